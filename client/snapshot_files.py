"""Snapshot files on this machine: written whole or not at all, never over another file unasked, and checked."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from holdfast.client.failures import LocalError
from holdfast.proto.snapshot_file import SnapshotDamaged, SnapshotMetadata, SnapshotReader


@dataclass(frozen=True)
class SnapshotInfo:
    """What a snapshot file says, after all of it was checked. size: in bytes. sha256: of the whole file, in hex."""

    metadata: SnapshotMetadata
    size: int
    sha256: str


def inspect(path: Path) -> SnapshotInfo:
    """Check every byte of a file. Raises LocalError when it cannot be read, is no snapshot or is damaged."""
    try:
        with path.open("rb") as file:
            reader = SnapshotReader(file)
            reader.verify()
    except SnapshotDamaged as problem:
        raise LocalError(f"{path}: {problem.message}", field="file") from None
    except OSError as problem:
        raise LocalError(f"{path} cannot be read: {problem.strerror}.", field="file") from None
    return SnapshotInfo(reader.metadata, reader.size, reader.digest.hex())


class NewFile:
    """A file under a temporary name beside the one that it is to have. Use `new_file`."""

    def __init__(self, file: BinaryIO, temporary: Path, path: Path, *, replace: bool) -> None:
        self.file = file
        self.temporary = temporary
        self._path = path
        self._replace = replace

    def begin_again(self) -> None:
        """Drop what was written."""
        self.file.seek(0)
        self.file.truncate()

    def sync(self) -> None:
        """Make what was written durable, to be looked at before `keep`."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def keep(self) -> None:
        """Give the file its name, durably. Raises LocalError when another file took the name meanwhile."""
        if self._replace:
            self.temporary.replace(self._path)
        else:
            try:
                os.link(self.temporary, self._path)
            except FileExistsError:
                raise _exists(self._path) from None
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def new_file(path: Path, *, replace: bool) -> Iterator[NewFile]:
    """A new file, readable by its user alone, that is gone at the end unless it was kept. Raises LocalError."""
    if path.exists() and not replace:
        raise _exists(path)
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield NewFile(file, temporary, path, replace=replace)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as problem:
        raise LocalError(f"{path} cannot be written: {problem.strerror}.", field="file") from None


def _exists(path: Path) -> LocalError:
    return LocalError(
        f"{path} exists and was left as it is. Name another file, or add -force to replace it.", field="file"
    )
