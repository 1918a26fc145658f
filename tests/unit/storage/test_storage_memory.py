"""The twin's own promises: what a loss of power leaves, and that a failed sync ends it."""

from pathlib import Path

import pytest

from holdfast.proto.errors import StorageFailed
from holdfast.storage.limits import STORE_KEY_BYTES_MAX, STORE_VALUE_BYTES_MAX
from holdfast.storage.memory import MemoryStore


def test_a_crash_keeps_what_was_synced_and_nothing_else() -> None:
    store = MemoryStore()
    store.write([(b"a", b"1")])
    store.sync()
    store.write([(b"b", b"2")], [b"a"])
    assert list(store.crash().scan(b"")) == [(b"a", b"1")]


def test_a_crash_may_keep_the_first_of_the_unsynced_writes_each_whole() -> None:
    store = MemoryStore()
    store.write([(b"a", b"1"), (b"b", b"1")])
    store.delete_range(b"a", b"b")
    store.write([(b"c", b"1")])
    survivor = store.crash(unsynced_kept=2)
    assert list(survivor.scan(b"")) == [(b"b", b"1")]
    assert list(survivor.crash().scan(b"")) == [(b"b", b"1")]


def test_a_failed_sync_makes_nothing_durable_and_the_store_refuses_everything_after() -> None:
    store = MemoryStore()
    store.write([(b"a", b"1")])
    store.fail_next_sync = True
    with pytest.raises(StorageFailed):
        store.sync()
    for use in (lambda: store.get(b"a"), lambda: store.write([]), store.sync, lambda: store.seek(b"")):
        with pytest.raises(StorageFailed):
            use()
    assert list(store.crash().scan(b"")) == []


def test_a_crashed_store_and_a_scan_of_it_are_of_no_more_use() -> None:
    store = MemoryStore()
    store.write([(b"a", b"1")])
    scan = store.scan(b"")
    store.crash()
    with pytest.raises(StorageFailed):
        next(scan)
    with pytest.raises(StorageFailed):
        store.get(b"a")


def test_a_checkpoint_is_a_copy_of_its_moment(tmp_path: Path) -> None:
    store = MemoryStore()
    store.write([(b"a", b"1"), (b"b", b"")])
    store.checkpoint(str(tmp_path / "copy"))
    store.write([(b"c", b"1")])
    assert list(MemoryStore.restore(str(tmp_path / "copy")).scan(b"")) == [(b"a", b"1"), (b"b", b"")]


def test_keys_and_values_have_limits() -> None:
    store = MemoryStore()
    store.write([(b"k" * STORE_KEY_BYTES_MAX, bytes(STORE_VALUE_BYTES_MAX))])
    for puts in ([(b"", b"")], [(b"k" * (STORE_KEY_BYTES_MAX + 1), b"")], [(b"k", bytes(STORE_VALUE_BYTES_MAX + 1))]):
        with pytest.raises(ValueError, match="allowed"):
            store.write([(b"other", b""), *puts])
    assert store.get(b"other") is None
