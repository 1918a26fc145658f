"""The state's RocksDB folder and the folders beside it.

    state            the state in use
    state.receiving  a copy that is being received, or was received and is not yet installed
    state.replaced   the state that an install replaced
    state.copy       a checkpoint that is being sent to a member
    state.backup     a checkpoint that is being written to a file
    state.staged     a store that is being filled from a file

An install renames `state` to `state.replaced` and `state.receiving` to `state`. A crash between the two leaves no
`state`: `open` then takes the replaced one back. Whatever else it finds beside the state is an orphan and goes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from holdfast.proto.errors import StorageFailed
from holdfast.storage import folder
from holdfast.storage.home import Files, Reception, digest_of_names
from holdfast.storage.rocksdb import RocksStore

_RECEIVING, _REPLACED, _STAGED = ".receiving", ".replaced", ".staged"
_COPIES = (".copy", ".backup")
_ORPHANS = (_RECEIVING, _REPLACED, _STAGED, *_COPIES, *(f"{copy}.building" for copy in _COPIES))


class RocksHome:
    """A StateHome in a folder. Use `open`. on_step: called with the name of each step of an install, for tests."""

    def __init__(self, path: Path, store: RocksStore, on_step: Callable[[str], None] = lambda _step: None) -> None:
        self._path = path
        self._store = store
        self._on_step = on_step

    @classmethod
    def open(cls, path: Path, *, on_step: Callable[[str], None] = lambda _step: None) -> RocksHome:
        """Open the state in `path` or make an empty one, after finishing or undoing what a crash interrupted.

        Raises what RocksStore.open raises."""
        try:
            replaced = _beside(path, _REPLACED)
            if not path.exists() and replaced.exists():
                replaced.rename(path)
                folder.sync_folder(path.parent)
            for suffix in _ORPHANS:
                _remove(_beside(path, suffix))
        except OSError as error:
            raise _failed(path, error) from error
        return cls(path, RocksStore.open(path), on_step)

    @property
    def store(self) -> RocksStore:
        """See StateHome."""
        return self._store

    def prepare(self) -> None:
        """See StateHome. A checkpoint writes out the memtable and holds the GIL meanwhile; a flush does not."""
        self._store.flush()

    def copy(self, purpose: str = "copy") -> RocksCopy:
        """See StateHome."""
        assert f".{purpose}" in _COPIES, "what is left of a copy is removed at start"
        path = _beside(self._path, f".{purpose}")
        _remove(path)
        self._store.checkpoint(str(path))
        return RocksCopy(path)

    def receive(self, files: Files) -> RocksReception:
        """See StateHome."""
        return RocksReception(_beside(self._path, _RECEIVING), files)

    def stage(self) -> RocksStaging:
        """See StateHome."""
        staging = RocksStaging(_beside(self._path, _STAGED), ())
        _remove(staging.path)
        return staging

    def install(self, reception: Reception) -> None:
        """See StateHome."""
        assert isinstance(reception, RocksReception), "a home installs what it received"
        replaced = _beside(self._path, _REPLACED)
        try:
            _remove(replaced)
            self._store.close()
            self._on_step("closed")
            self._path.rename(replaced)
            self._on_step("set aside")
            reception.path.rename(self._path)
            self._on_step("renamed")
            folder.sync_folder(self._path.parent)
        except OSError as error:
            raise _failed(self._path, error) from error
        self._on_step("durable")
        self._store = RocksStore.open(self._path)
        self._on_step("opened")

    def tidy(self) -> None:
        """See StateHome."""
        _remove(_beside(self._path, _REPLACED))

    def close(self) -> None:
        """See StateHome."""
        self._store.close()


class RocksCopy:
    """A checkpoint's folder as a StateCopy."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: Files = tuple(sorted((file.name, file.stat().st_size) for file in path.iterdir()))

    @property
    def files(self) -> Files:
        """See StateCopy."""
        return self._files

    def read(self, offset: int, size: int) -> bytes:
        """See StateCopy."""
        parts: list[bytes] = []
        begin = 0
        for name, length in self._files:
            if offset < begin + length and size > 0:
                part = self._read_file(name, offset - begin, min(size, begin + length - offset))
                parts.append(part)
                offset, size = offset + len(part), size - len(part)
            begin += length
        return b"".join(parts)

    def _read_file(self, name: str, offset: int, size: int) -> bytes:
        try:
            with (self._path / name).open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise _failed(self._path, error) from error
        if len(data) != size:
            raise StorageFailed(f"a file of the copy in {self._path} became shorter while it was sent")
        return data

    def open(self) -> RocksStore:
        """See StateCopy."""
        return RocksStore.open(self._path)

    def discard(self) -> None:
        """See StateCopy."""
        _remove(self._path)


class RocksReception:
    """A folder being received. Each file is synced when it is complete, so that `finish` has little left to do."""

    def __init__(self, path: Path, files: Files) -> None:
        self.path = path
        self._files = files
        self._digest = digest_of_names(files)
        self._made = False
        self._file = 0
        self._written = 0

    def write(self, data: bytes) -> None:
        """See Reception."""
        self._digest.update(data)
        try:
            self._make()
            view = memoryview(data)
            while view:
                name, size = self._files[self._file]
                part = view[: size - self._written]
                with (self.path / name).open("ab") as file:
                    file.write(part)
                view, self._written = view[len(part) :], self._written + len(part)
                self._complete_files()
        except OSError as error:
            raise _failed(self.path, error) from error

    def _make(self) -> None:
        if not self._made:
            _remove(self.path)
            self.path.mkdir(mode=0o700)
            self._made = True
            self._complete_files()

    def _complete_files(self) -> None:
        """Sync the file that is complete, and make the empty ones that follow it."""
        while self._file < len(self._files) and self._written == self._files[self._file][1]:
            with (self.path / self._files[self._file][0]).open("ab") as file:
                os.fsync(file.fileno())
            self._file, self._written = self._file + 1, 0

    def finish(self) -> bytes:
        """See Reception."""
        try:
            self._make()
            assert self._file == len(self._files), "everything was written"
            folder.sync_folder(self.path)
            folder.sync_folder(self.path.parent)
        except OSError as error:
            raise _failed(self.path, error) from error
        return self._digest.digest()

    def open(self) -> RocksStore:
        """See Reception."""
        return RocksStore.open(self.path)

    def discard(self) -> None:
        """See Reception."""
        if self._made:
            _remove(self.path)


class RocksStaging(RocksReception):
    """A folder whose files the store itself makes."""

    def open(self) -> RocksStore:
        """See Reception."""
        self._made = True
        return RocksStore.open(self.path)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _failed(path: Path, error: OSError) -> StorageFailed:
    return StorageFailed(
        f"the folder {path} cannot be used ({error.strerror or error}): check the disk, then start again"
    )
