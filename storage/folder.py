"""The folder of a RocksDB store, looked at before RocksDB opens it. Knows files, not RocksDB.

Three traps are closed here. RocksDB makes a new, empty database where the file CURRENT is missing. rocksdict opens a
folder written in its other key encoding without an error and then finds nothing in it; its file `rocksdict-config.json`
tells the encodings apart. And rocksdict rewrites that file at every start, in place, so that a kill at the wrong moment
leaves half of it; the mark, written once and made durable before anything else, shows that the folder is ours anyway.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from holdfast.proto.errors import Corruption, FailedPrecondition, StorageFailed

MARK = "holdfast-store"
"""The file that says that a folder holds a store of ours."""

FORMAT = b"holdfast store, format 1\n"
"""What the mark contains."""

_CONFIG = "rocksdict-config.json"


def prepare(path: Path) -> bool:
    """Make or check the folder of a store. Returns whether it holds a database already.

    Raises FailedPrecondition when the folder is not ours, Corruption when a part of the database is missing, and
    StorageFailed when the disk refuses."""
    try:
        return _prepare(path)
    except OSError as error:
        raise StorageFailed(f"the data folder {path} cannot be used: {error.strerror}") from error


def _prepare(path: Path) -> bool:
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700)
        sync_folder(folder.parent)
    mark = path / MARK
    held = _holds_database(path)
    if not mark.exists():
        if held:
            raise FailedPrecondition(
                f"the folder {path} holds a database that is not Holdfast's: choose another folder"
            )
        write_mark(path)
    elif mark.read_bytes() != FORMAT:
        raise FailedPrecondition(f"the store in {path} has a format this version does not know: run the one that does")
    _check_encoding(path)
    if held and not (path / "CURRENT").exists():
        raise Corruption(
            f"the store in {path} lost its file CURRENT: move the folder away and rebuild this node from its peers"
        )
    return held


def _holds_database(path: Path) -> bool:
    """Whether there is anything a new database would hide. A creation that was interrupted leaves empty logs only."""
    return (path / "CURRENT").exists() or any(
        file.suffix == ".sst" or (file.suffix == ".log" and file.stat().st_size > 0) for file in path.iterdir()
    )


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
    temporary = path / f"{MARK}.new"
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
