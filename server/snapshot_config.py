"""The section `snapshots` of node.yaml: snapshots by the clock."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from holdfast.server.durations import seconds

INTERVAL_S_MIN, INTERVAL_S_MAX = 10.0, 366 * 86400.0
KEEP_MAX = 100_000


class S3Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of an S3-compatible store. Credentials come from where AWS tools look (environment, ~/.aws, the machine's role).

    endpoint: empty for AWS itself. path_style: the bucket stands in the path of the address, not in its host name.
    ca_file: certificates to trust in place of the system's.
    """

    endpoint: str = ""
    region: str = ""
    path_style: bool = False
    ca_file: str = ""


class SnapshotSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the leader saves snapshots, where to, and how many are kept.

    target: a folder, or s3://bucket/prefix. interval: a duration. keep: how many; the newest always stays. keep_for: a
    duration after which they go all the same; empty for none.
    """

    target: str
    interval: str | int | float = "24h"
    keep: int = 14
    keep_for: str | int | float = ""
    s3: S3Settings = S3Settings()

    @property
    def interval_s(self) -> float:
        """`interval` in seconds. Raises ValueError when it is none."""
        return seconds(self.interval)

    @property
    def keep_for_s(self) -> float | None:
        """`keep_for` in seconds. Raises ValueError when it is none."""
        return None if self.keep_for == "" else seconds(self.keep_for)

    @property
    def bucket(self) -> tuple[str, str] | None:
        """The bucket and the prefix of an S3 target; None for a folder."""
        if not self.target.startswith("s3://"):
            return None
        parts = urlsplit(self.target)
        return parts.netloc, parts.path.strip("/")


def placed(settings: SnapshotSettings | None, folder: Path) -> SnapshotSettings | None:
    """With relative paths beginning at the folder of node.yaml."""
    if settings is None or not settings.target:
        return settings
    s3 = settings.s3
    if s3.ca_file:
        s3 = msgspec.structs.replace(s3, ca_file=str(folder / s3.ca_file))
    target = settings.target if settings.bucket else str(folder / settings.target)
    return msgspec.structs.replace(settings, target=target, s3=s3)


def problems(settings: SnapshotSettings | None) -> list[tuple[str, str]]:
    """(field, problem) of what is wrong in the section."""
    if settings is None:
        return []
    found: list[tuple[str, str]] = []
    if not settings.target:
        found.append(("snapshots.target", "must be a folder or s3://bucket/prefix"))
    if settings.bucket is not None and not settings.bucket[0]:
        found.append(("snapshots.target", "names no bucket; write s3://bucket/prefix"))
    try:
        if not INTERVAL_S_MIN <= settings.interval_s <= INTERVAL_S_MAX:
            found.append(("snapshots.interval", "from 10s to 366d"))
    except ValueError as error:
        found.append(("snapshots.interval", str(error)))
    if not 1 <= settings.keep <= KEEP_MAX:
        found.append(("snapshots.keep", f"from 1 to {KEEP_MAX}"))
    try:
        keep_for_s = settings.keep_for_s
        if keep_for_s is not None and keep_for_s <= 0:
            found.append(("snapshots.keep_for", "must be longer than nothing; leave it out to keep them for ever"))
    except ValueError as error:
        found.append(("snapshots.keep_for", str(error)))
    endpoint = settings.s3.endpoint
    if endpoint and urlsplit(endpoint).scheme not in ("http", "https"):
        found.append(("snapshots.s3.endpoint", "must begin with https:// (or http:// inside a trusted machine)"))
    return found
