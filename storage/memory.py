"""The in-memory twin of the RocksDB store, for tests and the simulator. It models what a disk does to a machine that
loses power: `crash` gives a store with everything synced and, of what was written since, only a leading part, whole
writes at a time, as a write-ahead log does. A sync can be made to fail.
"""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast.proto.errors import StorageFailed
from holdfast.storage.limits import check_key, check_write

_Change = tuple[Sequence[tuple[bytes, bytes]], Sequence[bytes]]


class MemoryStore:
    """A Store that forgets. `fail_next_sync`: the next `sync` raises StorageFailed and makes nothing durable; the store
    then refuses everything, as a node must not carry on with it."""

    def __init__(self) -> None:
        self._table: dict[bytes, bytes] = {}
        self._order: list[bytes] = []
        self._durable: dict[bytes, bytes] = {}
        self._unsynced: list[_Change] = []
        self._scans: weakref.WeakSet[_Scan] = weakref.WeakSet()
        self._closed = False
        self._failed = False
        self.fail_next_sync = False

    def get(self, key: bytes) -> bytes | None:
        """See Store."""
        self._check_usable()
        check_key(key)
        return self._table.get(key)

    def scan(self, start: bytes, end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """See Store."""
        self._check_usable()
        scan = _Scan(self._order, self._table, bisect_left(self._order, start), end)
        self._scans.add(scan)
        return self._entries(scan)

    def _entries(self, scan: _Scan) -> Iterator[tuple[bytes, bytes]]:
        while True:
            self._check_usable()
            entry = scan.take()
            if entry is None:
                return
            yield entry

    def seek(self, start: bytes, end: bytes | None = None) -> tuple[bytes, bytes] | None:
        """See Store."""
        self._check_usable()
        index = bisect_left(self._order, start)
        if index == len(self._order):
            return None
        key = self._order[index]
        return (key, self._table[key]) if end is None or key < end else None

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes] = ()) -> None:
        """See Store."""
        self._check_usable()
        check_write(puts, deletes)
        self._detach_scans()
        change = (tuple(puts), tuple(deletes))
        self._unsynced.append(change)
        known = len(self._table)
        self._order.extend(dict.fromkeys(key for key, _ in puts if key not in self._table))
        _apply(self._table, change)
        if len(self._order) > known:
            self._order.sort()  # two runs: close to one pass
        for key in dict.fromkeys(deletes):
            index = bisect_left(self._order, key)
            if index < len(self._order) and self._order[index] == key:
                del self._order[index]
        assert len(self._order) == len(self._table)

    def delete_range(self, start: bytes, end: bytes) -> None:
        """See Store."""
        self._check_usable()
        doomed = self._order[bisect_left(self._order, start) : bisect_left(self._order, end)]
        self._detach_scans()
        self._unsynced.append(((), tuple(doomed)))
        for key in doomed:
            del self._table[key]
        first = bisect_left(self._order, start)
        del self._order[first : first + len(doomed)]

    def sync(self) -> None:
        """See Store."""
        self._check_usable()
        if self.fail_next_sync:
            self._failed = True
            raise StorageFailed("the disk refused to make writes durable: replace it and start the node again")
        changes, self._unsynced = self._unsynced, []
        for change in changes:
            _apply(self._durable, change)

    def checkpoint(self, path: str) -> None:
        """Writes the entries to a file in the new folder `path`; `restore` reads it back."""
        self._check_usable()
        folder = Path(path)
        folder.mkdir()
        encoded = (part for entry in self.scan(b"") for item in entry for part in (len(item).to_bytes(4, "big"), item))
        (folder / "entries").write_bytes(b"".join(encoded))

    @classmethod
    def restore(cls, path: str) -> MemoryStore:
        """The store that `checkpoint` wrote, all of it durable."""
        data = (Path(path) / "entries").read_bytes()
        items: list[bytes] = []
        offset = 0
        while offset < len(data):
            end = offset + 4 + int.from_bytes(data[offset : offset + 4], "big")
            items.append(data[offset + 4 : end])
            offset = end
        return cls._of(dict(zip(items[::2], items[1::2], strict=True)))

    def close(self) -> None:
        """See Store. `reopened` gives the store that a clean start finds."""
        self._closed = True

    def reopened(self) -> MemoryStore:
        """The store as a process finds it that starts after this one ended without the machine losing power."""
        return self.crash(unsynced_kept=len(self._unsynced))

    def crash(self, *, unsynced_kept: int = 0) -> MemoryStore:
        """The store as it is after a loss of power: what was synced and the first `unsynced_kept` writes since. This
        one is closed."""
        survivor = dict(self._durable)
        for change in self._unsynced[:unsynced_kept]:
            _apply(survivor, change)
        self._closed = True
        return MemoryStore._of(survivor)

    @property
    def unsynced_writes(self) -> int:
        """How many writes a loss of power now could take."""
        return len(self._unsynced)

    @classmethod
    def _of(cls, entries: dict[bytes, bytes]) -> MemoryStore:
        store = cls()
        store._table = dict(entries)
        store._durable = entries
        store._order = sorted(entries)
        return store

    def _detach_scans(self) -> None:
        for scan in list(self._scans):
            scan.detach()
        self._scans.clear()

    def _check_usable(self) -> None:
        if self._failed:
            raise StorageFailed("an earlier sync failed, so what is durable is unknown: start the node again")
        if self._closed:
            raise StorageFailed("the store is closed")


class _Scan:
    """A position in a store's entries. Before they change, `detach` copies what is left, so that the scan goes on with
    the entries as of its beginning; a store without a scan under way copies nothing."""

    def __init__(self, order: list[bytes], table: dict[bytes, bytes], index: int, end: bytes | None) -> None:
        self._order = order
        self._table = table
        self._index = index
        self._end = end

    def take(self) -> tuple[bytes, bytes] | None:
        if self._index >= len(self._order):
            return None
        key = self._order[self._index]
        if self._end is not None and key >= self._end:
            return None
        self._index += 1
        return key, self._table[key]

    def detach(self) -> None:
        stop = len(self._order) if self._end is None else bisect_left(self._order, self._end)
        self._order = self._order[self._index : stop]
        self._table = {key: self._table[key] for key in self._order}
        self._index = 0


def _apply(table: dict[bytes, bytes], change: _Change) -> None:
    puts, deletes = change
    table.update(puts)
    for key in deletes:
        table.pop(key, None)
