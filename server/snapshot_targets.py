"""Where scheduled snapshots are kept: a folder (here) or an S3-compatible store (`snapshot_s3.py`); and their names.

    holdfast-<first 8 digits of the cluster id>-<time, UTC>-<Raft index>.hfsnap

Snapshots of other clusters in the same place are never listed and never removed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from holdfast.proto.errors import Unavailable
from holdfast.proto.snapshot_file import SUFFIX, SnapshotMetadata
from holdfast.storage.folder import sync_folder

_NAME = re.compile(r"holdfast-([0-9a-f]{8})-([0-9]{8}T[0-9]{6}Z)-([0-9]{1,20})" + re.escape(SUFFIX))
_TIME = "%Y%m%dT%H%M%SZ"
READ_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Stored:
    """A snapshot in its place. created_s: Unix time."""

    name: str
    size: int
    created_s: float
    index: int


class Target(Protocol):
    """A place for snapshots. All methods block and raise Unavailable."""

    @property
    def label(self) -> str:
        """The place, for people."""
        ...

    def stored(self, cluster_id: str) -> list[Stored]:
        """The cluster's snapshots, the newest first."""
        ...

    def store(self, file: Path, name: str, sha256: bytes) -> None:
        """Put a file there, and see that what the place gives back has this SHA-256."""
        ...

    def remove(self, name: str) -> None:
        """Remove a snapshot, if it is there."""
        ...


def name_of(metadata: SnapshotMetadata) -> str:
    """The name of a snapshot."""
    created = datetime.fromisoformat(metadata.created).astimezone(UTC)
    return f"holdfast-{metadata.cluster_id[:8]}-{created.strftime(_TIME)}-{metadata.index}{SUFFIX}"


def read_name(name: str, size: int, cluster_id: str) -> Stored | None:
    """What a name says; None for a name that is not of this cluster's snapshots."""
    match = _NAME.fullmatch(name)
    if match is None or match[1] != cluster_id[:8]:
        return None
    try:
        created = datetime.strptime(match[2], _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    return Stored(name, size, created.timestamp(), int(match[3]))


def newest_first(found: Sequence[Stored | None]) -> list[Stored]:
    """In order; without what is none."""
    return sorted((one for one in found if one is not None), key=lambda one: (one.created_s, one.index), reverse=True)


def outdated(stored: Sequence[Stored], *, keep: int, keep_for_s: float | None, now_s: float) -> list[Stored]:
    """What is to be removed of snapshots that are in order. Never the first, whatever its age."""
    return [
        one
        for place, one in enumerate(stored)
        if place > 0 and (place >= keep or (keep_for_s is not None and now_s - one.created_s > keep_for_s))
    ]


def sha256_of(file: BinaryIO) -> bytes:
    """The SHA-256 of what is left of an open file."""
    digest = hashlib.sha256()
    while data := file.read(READ_BYTES):
        digest.update(data)
    return digest.digest()


class FolderTarget:
    """A folder, made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def label(self) -> str:
        """See Target."""
        return str(self._folder)

    def stored(self, cluster_id: str) -> list[Stored]:
        """See Target."""
        try:
            if not self._folder.exists():
                return []
            return newest_first([read_name(f.name, f.stat().st_size, cluster_id) for f in self._folder.iterdir()])
        except OSError as error:
            raise self._failed(error) from error

    def store(self, file: Path, name: str, sha256: bytes) -> None:
        """See Target."""
        temporary = self._folder / f".{name}.partial"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with file.open("rb") as source, temporary.open("wb") as copy:
                    shutil.copyfileobj(source, copy, READ_BYTES)
                    copy.flush()
                    os.fsync(copy.fileno())
                with temporary.open("rb") as copied:
                    if sha256_of(copied) != sha256:
                        raise Unavailable(f"the folder {self._folder} does not give back what was put there")
                temporary.replace(self._folder / name)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(self._folder)
        except OSError as error:
            raise self._failed(error) from error

    def remove(self, name: str) -> None:
        """See Target."""
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> Unavailable:
        return Unavailable(f"the folder {self._folder} cannot be used for snapshots: {error.strerror or error}")
