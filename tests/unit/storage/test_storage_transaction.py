"""Transactions: reads become preconditions, writes become one batch of ciphertext, views stay in their subtree."""

import asyncio
import inspect
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.storage_reader import StoreReader

from holdfast.core.plugin.contract import StorageView
from holdfast.proto.errors import Corruption, InvalidArgument, Sealed
from holdfast.storage import keys
from holdfast.storage.barrier import Barrier
from holdfast.storage.batch import MAX_BATCH_BYTES, RequestRecord
from holdfast.storage.keyring import Keyring
from holdfast.storage.memory import MemoryStore
from holdfast.storage.rocksdb import RocksStore
from holdfast.storage.store import Store
from holdfast.storage.transaction import Transaction, View

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


class Rig:
    def __init__(self) -> None:
        self.barrier = Barrier(Keyring.generate(os.urandom), os.urandom)
        store: Store = MemoryStore()
        self.reader = StoreReader(store)

    def begin(self) -> Transaction:
        return Transaction(self.reader, self.barrier)

    def store(self, *paths: str) -> None:
        transaction = self.begin()
        for path in paths:
            transaction.put(path, path.encode())
        self.reader.apply(transaction.batch())


def test_what_was_committed_is_read_and_its_revision_becomes_a_precondition() -> None:
    rig = Rig()
    rig.store("shared/a")
    transaction = rig.begin()
    assert run(transaction.get("shared/a")) == b"shared/a"
    assert run(transaction.get("shared/none")) is None
    found = {p.key: p.revision for p in transaction.batch().preconditions}
    assert found == {rig.barrier.physical("shared/a"): 1, rig.barrier.physical("shared/none"): 0}
    assert not transaction.writes


def test_own_writes_are_read_and_are_no_preconditions() -> None:
    rig = Rig()
    rig.store("shared/a")
    transaction = rig.begin()
    transaction.put("shared/b", b"new")
    transaction.delete("shared/a")
    assert run(transaction.get("shared/b")) == b"new"
    assert run(transaction.get("shared/a")) is None
    assert transaction.batch().preconditions == ()
    assert transaction.writes


def test_a_path_read_again_is_what_it_was_the_first_time() -> None:
    rig = Rig()
    rig.store("shared/a")
    transaction = rig.begin()
    assert run(transaction.get("shared/a")) == b"shared/a"
    assert run(transaction.unchanged())
    other = rig.begin()
    other.put("shared/a", b"changed")
    rig.reader.apply(other.batch())
    assert run(transaction.get("shared/a")) == b"shared/a"
    assert not run(transaction.unchanged())


def test_each_key_is_in_a_batch_once_whatever_was_done_to_it() -> None:
    rig = Rig()
    transaction = rig.begin()
    transaction.put("shared/a", b"1")
    transaction.delete("shared/a")
    transaction.put("shared/b", b"1")
    transaction.put("shared/b", b"2")
    record = RequestRecord(b"k" * 16, b"response")
    batch = transaction.batch(record)
    assert batch.deletes == (rig.barrier.physical("shared/a"),)
    assert [rig.barrier.decrypt(p.key, p.value) for p in batch.puts] == [b"2"]
    assert batch.request == record


def test_neither_names_nor_values_are_in_the_batch_the_store_or_a_repr() -> None:
    rig = Rig()
    transaction = rig.begin()
    transaction.view("shared/MARKER-mount").put("MARKER-name", b"MARKER-value")
    run(transaction.get("shared/MARKER-read"))
    batch = transaction.batch()
    rig.reader.apply(batch)
    stored = b"".join(key + value for key, value in rig.reader.store.scan(b""))
    view = transaction.view("shared/MARKER-mount")
    assert b"MARKER" not in stored
    assert "MARKER" not in f"{batch!r}{transaction!r}{view!r}{rig.barrier!r}"


def test_a_name_that_is_record_and_folder_is_listed_as_both() -> None:
    rig = Rig()
    rig.store("shared/m/a", "shared/m/a/x", "shared/m/b/x/y", "shared/m/c")
    view = rig.begin().view("shared/m")
    assert sorted(run(view.list(""))) == ["a", "a/", "b/", "c"]
    assert run(view.list("a")) == run(view.list("a/")) == ["x"]
    assert run(view.list("c")) == []
    assert run(view.list("b")) == ["x/"]


def test_a_listing_shows_committed_state_and_is_no_precondition() -> None:
    rig = Rig()
    rig.store("shared/a")
    transaction = rig.begin()
    transaction.put("shared/b", b"")
    assert run(transaction.list("shared")) == ["a"]
    assert transaction.batch().preconditions == ()


def test_the_clear_cluster_records_are_not_listed() -> None:
    rig = Rig()
    rig.reader.store.write([(b"d" + keys.cluster_key(n), b"v") for n in ("seal/shamir", "keyring", "n" * 16)])
    rig.store("cluster/config", "cluster/x/y")
    assert sorted(run(rig.begin().list("cluster"))) == ["config", "x/"]


@pytest.mark.parametrize("limit", [0, -1, 10_001])
def test_a_list_limit_out_of_range_is_refused(limit: int) -> None:
    with pytest.raises(InvalidArgument) as caught:
        run(Rig().begin().list("shared", limit=limit))
    assert caught.value.field == "limit"


@pytest.mark.parametrize("path", ["../other", "a/../../other", "", "/", "/a", "a//b", "a/", "a\x00"])
def test_a_view_cannot_be_left_or_given_a_malformed_path(path: str) -> None:
    view = Rig().begin().view("shared/m")
    with pytest.raises(InvalidArgument):
        run(view.get(path))
    with pytest.raises(InvalidArgument):
        view.put(path, b"")
    with pytest.raises(InvalidArgument):
        view.delete(path)


def test_the_root_of_a_class_holds_no_record() -> None:
    with pytest.raises(InvalidArgument, match="root of a class"):
        Rig().begin().put("shared", b"")


def test_the_writes_of_a_request_have_a_limit() -> None:
    transaction = Rig().begin()
    with pytest.raises(InvalidArgument, match="split it"):
        transaction.put("shared/a", bytes(MAX_BATCH_BYTES))
    for _ in range(10):  # the same key again counts once
        transaction.put("shared/a", bytes(MAX_BATCH_BYTES // 2))
    with pytest.raises(InvalidArgument, match="split it"):
        transaction.put("shared/b", bytes(MAX_BATCH_BYTES // 2))
    transaction.delete("shared/a")
    transaction.put("shared/b", bytes(MAX_BATCH_BYTES // 2))


def test_a_record_moved_by_someone_below_the_barrier_is_corruption() -> None:
    rig = Rig()
    rig.store("shared/a", "shared/b")
    a, b = (b"d" + rig.barrier.physical(p) for p in ("shared/a", "shared/b"))
    stored = rig.reader.store.get(a)
    assert stored is not None
    rig.reader.store.write([(b, stored)])
    with pytest.raises(Corruption):
        run(rig.begin().get("shared/b"))


def test_a_segment_of_another_cluster_makes_a_listing_fail_and_not_shorter() -> None:
    rig = Rig()
    rig.store("shared/a")
    rig.reader.store.write([(b"d" + Rig().barrier.physical("shared/b"), b"v")])
    with pytest.raises(Corruption):
        run(rig.begin().list("shared"))


def test_a_transaction_ends_with_its_barrier() -> None:
    rig = Rig()
    rig.store("shared/a")
    transaction = rig.begin()
    transaction.put("shared/b", b"x")
    rig.barrier.close()
    with pytest.raises(Sealed):
        run(transaction.get("shared/a"))
    with pytest.raises(Sealed):
        run(transaction.list("shared"))
    with pytest.raises(Sealed):
        transaction.batch()


def test_a_view_is_the_plug_in_contracts_storage_view() -> None:
    for name in ("get", "put", "delete", "list"):
        assert inspect.signature(getattr(View, name)) == inspect.signature(getattr(StorageView, name)), name


def test_no_file_of_the_store_shows_a_name_or_a_value(tmp_path: Path) -> None:
    rig = Rig()
    store = RocksStore.open(tmp_path / "store")
    rig.reader = StoreReader(store)
    rig.store(*(f"shared/MARKER-mount/MARKER-{n}" for n in range(50)))
    assert len(run(rig.begin().list("shared/MARKER-mount"))) == 50
    store.checkpoint(str(tmp_path / "copy"))
    store.close()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.suffix == ".sst" for file in files)
    for file in files:
        assert b"MARKER" not in file.read_bytes(), file.name
