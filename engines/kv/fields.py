"""The members of KV requests, checked. Refusals name the member, never its value or a name inside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.core.plugin import fields
from holdfast.engines.kv.secret import MAX_VERSIONS_LIMIT, Secret
from holdfast.proto.errors import Conflict, InvalidArgument

CUSTOM_METADATA_KEYS_MAX = 64
CUSTOM_METADATA_KEY_BYTES_MAX = 128
CUSTOM_METADATA_VALUE_BYTES_MAX = 512

VERSIONS_PER_REQUEST_MAX = 1000

LIST_LIMIT_MAX = 1000


def secret_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """The object to store."""
    value = fields.mapping(data, "data")
    if value is None:
        raise InvalidArgument('the request has no data: send the secret as the object "data"', field="data")
    return value


def check_cas(data: Mapping[str, Any], secret: Secret | None) -> None:
    """Compare `options.cas` with the current version, 0 for a secret that has none.

    Raises Conflict when it differs, InvalidArgument when it is missing and the secret requires it."""
    options = fields.mapping(data, "options") or {}
    if not options.keys() <= {"cas"}:
        raise InvalidArgument('options takes only "cas"', field="options")
    cas = fields.integer(options, "cas", field="options.cas")
    if cas is None:
        if secret is not None and secret.cas_required:
            raise InvalidArgument(
                "this secret requires check-and-set: send options.cas with its current version", field="options.cas"
            )
    elif cas != (0 if secret is None else secret.current):
        raise Conflict("options.cas is not the current version: read the secret again and decide anew")


def version_numbers(data: Mapping[str, Any]) -> list[int]:
    """The versions a request is about; at least one."""
    numbers = fields.integers(data, "versions", minimum=1, count_max=VERSIONS_PER_REQUEST_MAX)
    if not numbers:
        raise InvalidArgument("the request names no version: send the list versions", field="versions")
    return numbers


def settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a metadata write changes, as the arguments of `Secret.with_settings`."""
    read = {
        "max_versions": fields.integer(data, "max_versions", maximum=MAX_VERSIONS_LIMIT),
        "cas_required": fields.boolean(data, "cas_required"),
        "delete_version_after_s": fields.duration_s(data, "delete_version_after"),
        "custom_metadata": _custom_metadata(data),
    }
    return {name: value for name, value in read.items() if value is not None}


def _custom_metadata(data: Mapping[str, Any]) -> dict[str, str] | None:
    field = "custom_metadata"
    given = fields.mapping(data, field)
    if given is None:
        return None
    if len(given) > CUSTOM_METADATA_KEYS_MAX:
        raise InvalidArgument(f"custom_metadata has over {CUSTOM_METADATA_KEYS_MAX} keys", field=field)
    for key, value in given.items():
        _check_text(key, "key", CUSTOM_METADATA_KEY_BYTES_MAX)
        if not isinstance(value, str):
            raise InvalidArgument("custom_metadata has a value that is not a string", field=field)
        _check_text(value, "value", CUSTOM_METADATA_VALUE_BYTES_MAX)
    return given


def _check_text(text: str, what: str, bytes_max: int) -> None:
    size = len(text.encode(errors="surrogatepass"))
    if not 0 < size <= bytes_max:
        raise InvalidArgument(
            f"custom_metadata has a {what} of {size} bytes: 1 to {bytes_max} are allowed", field="custom_metadata"
        )
    if not text.isprintable():
        raise InvalidArgument(f"custom_metadata has a {what} with unprintable characters", field="custom_metadata")
