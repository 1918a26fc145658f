"""The store a node keeps its bytes in, as its users see it. RocksDB in `rocksdb.py`; the in-memory twin in `memory.py`
is held to the same stateful test and can also lose its unsynced writes, as a machine does that loses power.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol


class Store(Protocol):
    """An ordered map of bytes to bytes with atomic batches and an explicit durability point.

    Keys are at most 4,096 bytes, values at most 4 MiB. Every method raises `Corruption` when stored bytes fail their
    checksums and `StorageFailed` when the disk refuses; both are fatal. Methods other than `sync` are called from one
    thread.
    """

    def get(self, key: bytes) -> bytes | None:
        """The value, or None when the key is absent."""
        ...

    def scan(self, start: bytes, end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < end (None: to the last key) in ascending order, as of the time of the call.

        Lazy: reads no more than the caller takes. Ends only at the end of the range; a scan cut short by corruption
        raises. Close the iterator (or exhaust it) to release what it pins.
        """
        ...

    def seek(self, start: bytes, end: bytes | None = None) -> tuple[bytes, bytes] | None:
        """The first entry with start <= key < end, or None."""
        ...

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes] = ()) -> None:
        """Apply puts, then deletes, atomically. Visible at once; durable only after the next `sync`."""
        ...

    def delete_range(self, start: bytes, end: bytes) -> None:
        """Delete all keys with start <= key < end. Ordered and durable like `write`."""
        ...

    def sync(self) -> None:
        """Make everything written before the call durable. Blocks; releases the GIL; may run in another thread."""
        ...

    def checkpoint(self, path: str) -> None:
        """A consistent copy of the store as a new folder `path` on the same file system."""
        ...

    def close(self) -> None:
        """Release the store. Unsynced writes survive a clean close."""
        ...
