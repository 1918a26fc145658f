"""What KV answers: the shapes of Vault's API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from holdfast.core.plugin.times import go_duration, rfc3339
from holdfast.engines.kv.secret import Secret, Version


def version_metadata(secret: Secret, number: int) -> dict[str, Any]:
    """The answer to a write, and the "metadata" of a read."""
    return {
        "version": number,
        **_version(secret.versions[number]),
        "custom_metadata": secret.custom_metadata or None,
    }


def secret_metadata(secret: Secret) -> dict[str, Any]:
    """The answer to a read of the metadata."""
    return {
        "cas_required": secret.cas_required,
        "created_time": rfc3339(secret.created),
        "current_version": secret.current,
        "custom_metadata": secret.custom_metadata or None,
        "delete_version_after": go_duration(secret.delete_version_after_s),
        "max_versions": secret.max_versions,
        "oldest_version": secret.oldest,
        "updated_time": rfc3339(secret.updated),
        "versions": {str(number): _version(version) for number, version in sorted(secret.versions.items())},
    }


def _version(version: Version) -> dict[str, Any]:
    return {
        "created_time": rfc3339(version.created),
        "deletion_time": _time(version.deletion),
        "destroyed": version.destroyed,
    }


def _time(moment: datetime | None) -> str:
    return "" if moment is None else rfc3339(moment)
