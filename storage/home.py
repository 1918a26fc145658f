"""Where a node's state lives, as one whole: it can be copied while it is in use, and exchanged for a copy that came
from another node. RocksDB folders in `rockshome.py`; the in-memory twin in `memoryhome.py` lets the simulator run the
same logic above.

A copy travels as one stream of bytes: its files in the order of their names, one behind the other. `digest_of_names`
begins the SHA-256 over all of it, so that names, sizes and contents are covered together.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from holdfast.storage.store import Store

if TYPE_CHECKING:
    from hashlib import _Hash

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What a file of a copy may be called: a plain name, so that no path can be smuggled in."""

Files = tuple[tuple[str, int], ...]
"""Names and sizes in bytes, in the order of the names."""


class StateCopy(Protocol):
    """A frozen copy of the state. All methods but `files` may block and may run in another thread, one at a time."""

    @property
    def files(self) -> Files:
        """The copy's files."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes (fewer at the end) of the stream from `offset` on. Raises StorageFailed."""
        ...

    def open(self) -> Store:
        """The copy as a store, to be read and closed by the caller; nothing may be sent of it afterwards, since opening
        changes its files. Raises Corruption."""
        ...

    def discard(self) -> None:
        """Remove the copy. May be called again."""
        ...


class Reception(Protocol):
    """A copy that is being received beside the state. All methods may block and may run in another thread, one at a
    time. They raise StorageFailed when the disk refuses."""

    def write(self, data: bytes) -> None:
        """The next bytes of the stream."""
        ...

    def finish(self) -> bytes:
        """Everything was written: make it durable. Returns the SHA-256 of names, sizes and contents."""
        ...

    def open(self) -> Store:
        """The received store, to look into before it is installed; to be closed by the caller. Raises Corruption."""
        ...

    def discard(self) -> None:
        """Remove what was received. May be called again."""
        ...


class StateHome(Protocol):
    """The current state's store and the way to replace it. `prepare`, `copy` and `tidy` may run in another thread;
    nothing else of the home or its store but `get`, `scan`, `write` and `sync` may run meanwhile."""

    @property
    def store(self) -> Store:
        """The store in use. Another one after `install`."""
        ...

    def prepare(self) -> None:
        """Do what can be done ahead of `copy`, so that it is quick. Blocks; releases the GIL."""
        ...

    def copy(self, purpose: str = "copy") -> StateCopy:
        """A copy of the state as it is now, in the place of an earlier one of the same purpose. Nothing may be written
        meanwhile. Blocks."""
        ...

    def receive(self, files: Files) -> Reception:
        """Begin to receive a copy; one at a time. What is left of an earlier one is removed."""
        ...

    def stage(self) -> Reception:
        """A new, empty store beside the state, in the place of an earlier one: to be opened, filled, closed, and then
        installed or discarded. It does not outlive the process."""
        ...

    def install(self, reception: Reception) -> None:
        """Put a finished reception in the place of the state, atomically: a crash leaves the one or the other. The
        store that was in use is closed."""
        ...

    def tidy(self) -> None:
        """Remove what `install` left over. Blocks."""
        ...

    def close(self) -> None:
        """Close the store."""
        ...


def checked_files(files: Sequence[tuple[str, int]]) -> Files:
    """The list as a value. Raises ValueError for names that are no plain names, twice there or out of order."""
    names = [name for name, _ in files]
    if names != sorted(set(names)) or not all(FILE_NAME.fullmatch(name) for name in names):
        raise ValueError("the files of a copy must have plain names, each once and in order")
    return tuple((name, size) for name, size in files)


def digest_of_names(files: Files) -> _Hash:
    """The SHA-256 state to which the stream's bytes are added."""
    state = hashlib.sha256(len(files).to_bytes(8, "big"))
    for name, size in files:
        encoded = name.encode()
        state.update(len(encoded).to_bytes(2, "big") + encoded + size.to_bytes(8, "big"))
    return state
