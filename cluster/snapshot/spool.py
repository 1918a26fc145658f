"""Snapshot files that a restore needs, in a folder of the node, named by their SHA-256. A file has its name only when
it is whole, durable and verified. What fails here leaves the state alone, so it does not end the node."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

from holdfast.proto.errors import Overloaded, Unavailable
from holdfast.proto.snapshot_file import SUFFIX, SnapshotDamaged, SnapshotReader
from holdfast.storage.folder import sync_folder

ROOM_BYTES_MIN = 64 * 1024 * 1024
"""What must stay free on the disk besides."""

_PARTIAL = ".partial"


class Spool:
    """All methods may block."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder, and removes what never became whole. Raises Unavailable."""
        self._folder = folder
        self._made = 0
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            for partial in folder.glob(f"*{_PARTIAL}"):
                partial.unlink()
        except OSError as error:
            raise _failed(folder, error) from error

    def path(self, sha256: bytes) -> Path:
        """Where a file is, if it is there."""
        return self._folder / (sha256.hex() + SUFFIX)

    def use(self, sha256: bytes) -> bool:
        """Whether a file is there; it counts as new then."""
        try:
            os.utime(self.path(sha256))
        except FileNotFoundError:
            return False
        return True

    def check_room(self, size: int) -> None:
        """Raises Overloaded unless so many bytes fit on the disk, and what they are unpacked to."""
        if shutil.disk_usage(self._folder).free < 2 * size + ROOM_BYTES_MIN:
            raise Overloaded(f"the disk of {self._folder} has no room for the snapshot; nothing was changed: make room")

    def check_room_for(self, sha256: bytes) -> None:
        """Raises Overloaded unless a file that is there can be unpacked, and Unavailable."""
        try:
            size = self.path(sha256).stat().st_size
        except OSError as error:
            raise _failed(self.path(sha256), error) from error
        self.check_room(size)

    def held(self) -> dict[bytes, float]:
        """The SHA-256 of every file that is there, and when it came (Unix time)."""
        return {bytes.fromhex(path.name.removesuffix(SUFFIX)): path.stat().st_mtime for path in self._whole()}

    def _whole(self) -> list[Path]:
        return sorted(self._folder.glob(f"{'?' * 64}{SUFFIX}"))

    def remove(self, sha256: bytes) -> None:
        """Remove a file, if it is there."""
        self.path(sha256).unlink(missing_ok=True)

    def remove_unused(self, sha256: bytes, came: float) -> bool:
        """Remove a file, unless it was used since it came at that time. Whether it was removed."""
        path = self.path(sha256)
        try:
            if path.stat().st_mtime != came:
                return False
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    def begin(self) -> Incoming:
        """A new file, to be written and then kept or dropped."""
        self._made += 1
        return Incoming(self, self._folder / f"{self._made}{_PARTIAL}")


class Incoming:
    """A file on its way in. Raises Unavailable when the disk refuses."""

    def __init__(self, spool: Spool, path: Path) -> None:
        self._spool = spool
        self._path = path
        self.size = 0
        try:
            self._file: BinaryIO = path.open("wb")
        except OSError as error:
            raise _failed(path, error) from error

    def write(self, data: bytes) -> None:
        """The next bytes."""
        try:
            self._file.write(data)
        except OSError as error:
            raise _failed(self._path, error) from error
        self.size += len(data)

    def keep(self, expected: bytes | None = None) -> bytes:
        """Make the file durable, verify all of it as the disk gives it back, and give it its name: its SHA-256, which
        is returned. expected: what that must be. Raises SnapshotDamaged."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            with self._path.open("rb") as file:
                reader = SnapshotReader(file)
                reader.verify()
            if expected not in (None, reader.digest):
                raise SnapshotDamaged("the snapshot that arrived is another one than was meant: try again")
            self._path.replace(self._spool.path(reader.digest))
            sync_folder(self._path.parent)
        except OSError as error:
            raise _failed(self._path, error) from error
        return reader.digest

    def drop(self) -> None:
        """Remove what was written, unless it was kept."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def _failed(path: Path, error: OSError) -> Unavailable:
    return Unavailable(f"{path} cannot be written ({error.strerror or error}); nothing was changed: check the disk")
