"""The folder of a RocksDB store, looked at before RocksDB opens it. Knows files, not RocksDB.

Three traps are closed here. RocksDB makes a new, empty database where the file CURRENT is missing. rocksdict opens a
folder written in its other key encoding without an error and then finds nothing in it; its file `rocksdict-config.json`
tells the encodings apart. And rocksdict rewrites that file at every start, in place, so that a kill at the wrong moment
leaves half of it; the mark, written once and made durable before anything else, shows that the folder is ours anyway.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import BinaryIO

from holdfast.proto.errors import Corruption, FailedPrecondition, StorageFailed

MARK = "holdfast-store"
"""The file that says that a folder holds a store of ours."""

FORMAT = b"holdfast store, format 1\n"
"""What the mark contains."""

_CONFIG = "rocksdict-config.json"


def prepare(path: Path) -> tuple[bool, BinaryIO]:
    """Make or check the folder of a store. Returns whether it holds a database already, and a file that locks the
    folder until it is closed: RocksDB's own lock comes only after it has written to the folder.

    Raises FailedPrecondition when the folder is in use or not ours, Corruption when a part of the database is missing,
    and StorageFailed when the disk refuses."""
    try:
        _make(path)
        lock = (path / MARK).open("rb")
        try:
            _lock(path, lock)
            return _check(path), lock
        except BaseException:
            lock.close()
            raise
    except OSError as error:
        raise StorageFailed(f"the data folder {path} cannot be used: {error.strerror}") from error


def _make(path: Path) -> None:
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700)
        sync_folder(folder.parent)
    if not (path / MARK).exists():
        if _holds_database(path):
            raise FailedPrecondition(
                f"the folder {path} holds a database that is not Holdfast's: choose another folder"
            )
        write_mark(path)


def _lock(path: Path, lock: BinaryIO) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FailedPrecondition(
            f"the store in {path} is open in another process: stop that one, or use another folder"
        ) from None


def _check(path: Path) -> bool:
    if (path / MARK).read_bytes() != FORMAT:
        raise FailedPrecondition(f"the store in {path} has a format this version does not know: run the one that does")
    held = _holds_database(path)
    _check_encoding(path)
    if held and not (path / "CURRENT").exists():
        raise Corruption(
            f"the store in {path} lost its file CURRENT: move the folder away and rebuild this node from its peers"
        )
    return held


def _holds_database(path: Path) -> bool:
    """Whether there is anything a new database would hide. RocksDB makes CURRENT before any log or table."""
    return any(file.name == "CURRENT" or file.suffix in (".sst", ".log") for file in path.iterdir())


def _check_encoding(path: Path) -> None:
    config = path / _CONFIG
    if not config.exists():
        return
    try:
        raw_mode = json.loads(config.read_bytes())["raw_mode"]
    except (ValueError, KeyError, TypeError):
        config.unlink()  # half-written: rocksdict writes a new one, and the mark vouches for the encoding
        return
    if raw_mode is not True:
        raise FailedPrecondition(
            f"the store in {path} was written in another key encoding (raw_mode is off in {_CONFIG}): it is not"
            " Holdfast's, choose another folder"
        )


def write_mark(path: Path) -> None:
    """Mark the folder as a store's, durably."""
    temporary = path / f"{MARK}.{os.getpid()}"
    with temporary.open("wb") as file:
        file.write(FORMAT)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path / MARK)
    sync_folder(path)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
