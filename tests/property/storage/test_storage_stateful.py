"""The RocksDB store and its in-memory twin against a plain dict, by the same random histories."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.storage.memory import MemoryStore
from holdfast.storage.rocksdb import RocksStore
from holdfast.storage.store import Store

Table = dict[bytes, bytes]

KEYS = st.lists(st.sampled_from([0, 1, 0x61, 0xFF]), min_size=1, max_size=3).map(bytes)
BOUNDS = st.lists(st.sampled_from([0, 1, 0x61, 0xFF]), max_size=3).map(bytes)
VALUES = st.binary(max_size=12)


def entries(model: Table, start: bytes, end: bytes | None) -> list[tuple[bytes, bytes]]:
    return sorted((k, v) for k, v in model.items() if k >= start and (end is None or k < end))


class StoreHistory(RuleBasedStateMachine):
    """Everything a Store promises, but for the loss of power."""

    def __init__(self) -> None:
        super().__init__()
        self.model: Table = {}
        self.states: list[Table] = [{}]  # the synced state, then the state after each write since
        self.scans: list[tuple[Iterator[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]] = []
        self.store = self.made()

    def made(self) -> Store:
        raise NotImplementedError

    def reopened(self) -> Store:
        raise NotImplementedError

    @rule(puts=st.lists(st.tuples(KEYS, VALUES), max_size=4), deletes=st.lists(KEYS, max_size=3))
    def write(self, puts: list[tuple[bytes, bytes]], deletes: list[bytes]) -> None:
        self.store.write(puts, deletes)
        self.model.update(puts)
        for key in deletes:
            self.model.pop(key, None)
        self.states.append(dict(self.model))

    @rule(start=BOUNDS, end=BOUNDS)
    def delete_range(self, start: bytes, end: bytes) -> None:
        self.store.delete_range(start, end)
        self.model = {k: v for k, v in self.model.items() if not start <= k < end}
        self.states.append(dict(self.model))

    @rule()
    def sync(self) -> None:
        self.store.sync()
        self.states = [dict(self.model)]

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self.store.get(key) == self.model.get(key)

    @rule(start=BOUNDS, end=st.none() | BOUNDS)
    def scan(self, start: bytes, end: bytes | None) -> None:
        assert list(self.store.scan(start, end)) == entries(self.model, start, end)

    @rule(start=BOUNDS, end=st.none() | BOUNDS)
    def seek(self, start: bytes, end: bytes | None) -> None:
        assert self.store.seek(start, end) == next(iter(entries(self.model, start, end)), None)

    @rule(start=BOUNDS, end=st.none() | BOUNDS)
    def begin_scan(self, start: bytes, end: bytes | None) -> None:
        self.scans.append((self.store.scan(start, end), entries(self.model, start, end)))

    @rule(count=st.integers(1, 3))
    def step_scans(self, count: int) -> None:
        for scan, expected in self.scans:
            for _ in range(count):
                assert next(scan, None) == (expected.pop(0) if expected else None)

    @rule()
    def restart(self) -> None:
        self.scans.clear()
        self.store.close()
        self.store = self.reopened()
        self.states = [dict(self.model)]

    @invariant()
    def whole(self) -> None:
        assert list(self.store.scan(b"")) == sorted(self.model.items())


class MemoryHistory(StoreHistory):
    """The twin: also loses power."""

    def made(self) -> Store:
        return MemoryStore()

    def reopened(self) -> Store:
        assert isinstance(self.store, MemoryStore)
        return self.store.reopened()

    @rule(data=st.data())
    def lose_power(self, data: st.DataObject) -> None:
        assert isinstance(self.store, MemoryStore)
        kept = data.draw(st.integers(0, len(self.states) - 1))
        assert self.store.unsynced_writes == len(self.states) - 1
        self.scans.clear()
        self.store = self.store.crash(unsynced_kept=kept)
        self.model = dict(self.states[kept])
        self.states = [dict(self.model)]


class RocksHistory(StoreHistory):
    """The driver, in a folder of its own."""

    def made(self) -> Store:
        self.folder = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
        return RocksStore.open(self.folder / "store")

    def reopened(self) -> Store:
        return RocksStore.open(self.folder / "store")

    def teardown(self) -> None:
        self.scans.clear()
        self.store.close()
        shutil.rmtree(self.folder)


TestMemoryStore = MemoryHistory.TestCase
TestMemoryStore.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestRocksStore = RocksHistory.TestCase
TestRocksStore.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
