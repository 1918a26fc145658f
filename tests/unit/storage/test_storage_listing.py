"""Keyless listing: what it finds, and how little it reads for it."""

from collections.abc import Callable

import pytest

from holdfast.proto.errors import Corruption
from holdfast.storage.keys import frame
from holdfast.storage.listing import children
from holdfast.storage.memory import MemoryStore

A, B, C = frame(b"a"), frame(b"b"), frame(b"\xff\xff")


class CountingStore(MemoryStore):
    """Counts the keys it hands out and refuses to be scanned."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def seek(self, start: bytes, end: bytes | None = None) -> tuple[bytes, bytes] | None:
        self.reads += 1
        return super().seek(start, end)

    def scan(self, start: bytes, end: bytes | None = None) -> None:  # type: ignore[override]
        raise AssertionError("a listing must not scan")


def filled(*paths: bytes, make: Callable[[], MemoryStore] = MemoryStore) -> MemoryStore:
    store = make()
    store.write([(b"d" + path, b"v") for path in paths])
    return store


def test_a_child_says_whether_it_is_a_record_and_whether_it_has_children() -> None:
    store = filled(b"s" + A, b"s" + B + A, b"s" + C, b"s" + C + A, b"l" + A)
    assert children(store, b"d", b"s", b"", 10) == [(A, True, False), (B, False, True), (C, True, True)]
    assert children(store, b"d", b"s" + C, b"", 10) == [(A, True, False)]
    assert children(store, b"d", b"s" + A, b"", 10) == []


def test_the_cursor_is_exclusive_and_need_not_exist() -> None:
    store = filled(b"s" + A, b"s" + A + A, b"s" + C)
    assert children(store, b"d", b"s", A, 10) == [(C, True, False)]
    assert children(store, b"d", b"s", B, 10) == [(C, True, False)]
    assert children(store, b"d", b"s", C, 10) == []


def test_the_neighbours_of_a_prefix_and_its_own_record_are_not_listed() -> None:
    store = filled(b"s" + A, b"s" + A + B, b"s" + B)
    store.write([(b"c", b"v"), (b"e", b"v"), (b"ds", b"v")])
    assert children(store, b"d", b"s" + A, b"", 10) == [(B, True, False)]
    assert [segment for segment, _, _ in children(store, b"d", b"s", b"", 10)] == [A, B]


@pytest.mark.parametrize("limit", [1, 5, 20])
def test_it_reads_on_the_order_of_its_limit_whatever_lies_below(limit: int) -> None:
    store = CountingStore()
    for child in range(50):
        top = b"s" + frame(b"c%02d" % child)
        below = [(b"d" + top + frame(b"g%03d" % grand), b"v") for grand in range(200)]
        store.write([(b"d" + top, b"v"), *below] if child % 2 else below)
    assert len(children(store, b"d", b"s", b"", limit)) == limit
    assert store.reads <= 2 * limit + 1


def test_a_key_that_is_not_made_of_segments_is_corruption() -> None:
    for broken in (b"s\x00", b"s\x00\x05abc", b"s\x00\x00", b"s\xff\xff" + b"x" * 100):
        with pytest.raises(Corruption, match="whole segments"):
            children(filled(broken), b"d", b"s", b"", 10)


def test_a_prefix_has_a_class() -> None:
    with pytest.raises(ValueError, match="class byte"):
        children(filled(), b"d", b"", b"", 10)
