"""The state machine: one write for each chunk, preconditions, request records and their window, fatal entries."""

from collections.abc import Sequence

import pytest
from support.raft_rig import entries_of, members, put

from holdfast.cluster.raft import membership
from holdfast.cluster.raft.consensus import SCAN_BYTES_MAX, Applied, Conflicted, Duplicate
from holdfast.cluster.raft.entries import Kind, follow
from holdfast.cluster.raft.statemachine import REQUEST_WINDOW_MS, StateMachine
from holdfast.proto.errors import Corruption, Fatal
from holdfast.storage.batch import Batch, Precondition, Put, Record
from holdfast.storage.memory import MemoryStore


class CountingStore(MemoryStore):
    """Counts its writes."""

    writes = 0

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes] = ()) -> None:
        self.writes += 1
        super().write(puts, deletes)


def test_a_chunk_is_one_write_of_data_and_position() -> None:
    store = CountingStore()
    machine = StateMachine(store)
    entries = entries_of(machine.applied, put(b"a", b"1"), put(b"b", b"2"), Batch(deletes=(b"a",)), term=1)
    chunk = machine.apply(entries)
    assert store.writes == 1
    assert chunk.outcomes == [[Applied(1)], [Applied(2)], [Applied(3)]]
    assert sorted(chunk.changed) == [b"a", b"b"]
    assert machine.get(b"a") is None
    again = StateMachine(store.crash(unsynced_kept=1))
    assert (again.applied, again.state_digest) == (machine.applied, machine.state_digest)
    assert again.get(b"b") == Record(b"2", 2)
    assert StateMachine(MemoryStore()).applied.index == 0


def test_how_entries_are_cut_into_chunks_makes_no_difference() -> None:
    batches = [put(b"k", b"%d" % n, revision=n % 3, request=b"r%d" % (n % 4)) for n in range(12)]
    whole, pieces = StateMachine(MemoryStore()), StateMachine(MemoryStore())
    entries = entries_of(whole.applied, *batches, term=1)
    together = whole.apply(entries).outcomes
    apart = [pieces.apply([entry]).outcomes[0] for entry in entries]
    assert together == apart
    assert whole.state_digest == pieces.state_digest
    assert whole.get(b"k") == pieces.get(b"k")


def test_all_of_a_batch_happens_or_nothing() -> None:
    machine = StateMachine(MemoryStore())
    batch = Batch(
        puts=(Put(b"a", b"1"),), deletes=(b"b",), preconditions=(Precondition(b"c", 0), Precondition(b"b", 9))
    )
    entries = entries_of(machine.applied, put(b"b", b"1"), batch, term=1)
    assert machine.apply(entries).outcomes == [[Applied(1)], [Conflicted(b"b")]]
    assert machine.get(b"a") is None
    assert machine.get(b"b") is not None


def test_a_conflicted_request_is_not_remembered() -> None:
    machine = StateMachine(MemoryStore())
    entries = entries_of(
        machine.applied, put(b"k", b"1", revision=5, request=b"r"), put(b"k", b"1", request=b"r"), term=1
    )
    assert machine.apply(entries).outcomes == [[Conflicted(b"k")], [Applied(2)]]


def test_a_request_is_remembered_for_the_window_of_cluster_time_and_then_given_up() -> None:
    store = MemoryStore()
    machine = StateMachine(store)
    first = entries_of(machine.applied, put(b"k", b"1", request=b"r"), term=1, time_ms=1000)
    machine.apply(first)
    edge = entries_of(first[-1], put(b"k", b"2", request=b"r"), term=1, time_ms=1000 + REQUEST_WINDOW_MS)
    assert machine.apply(edge).outcomes == [[Duplicate(b"response to r")]]
    assert machine.duplicate_of(b"r") == b"response to r"
    late = entries_of(edge[-1], put(b"k", b"3", request=b"r"), term=1, time_ms=1001 + REQUEST_WINDOW_MS)
    assert machine.apply(late).outcomes == [[Applied(3)]]
    # The old record's place in the order of time goes; the renewed record stays.
    after = entries_of(late[-1], put(b"x", b"y"), term=1, time_ms=1002 + REQUEST_WINDOW_MS)
    machine.apply(after)
    assert machine.duplicate_of(b"r") == b"response to r"
    assert len(list(store.scan(b"t", b"u"))) == 1
    gone = entries_of(after[-1], put(b"x", b"z"), term=1, time_ms=2000 + 2 * REQUEST_WINDOW_MS)
    machine.apply(gone)
    assert list(store.scan(b"r", b"u")) == []


def test_the_window_is_kept_inside_a_chunk_too() -> None:
    machine = StateMachine(MemoryStore())
    first = entries_of(machine.applied, put(b"k", b"1", request=b"r"), term=1, time_ms=0)
    late = entries_of(first[-1], put(b"k", b"2", request=b"r"), term=1, time_ms=REQUEST_WINDOW_MS + 1)
    assert machine.apply([*first, *late]).outcomes == [[Applied(1)], [Applied(2)]]


def test_an_entry_that_does_not_decode_is_fatal_and_changes_nothing() -> None:
    machine = StateMachine(MemoryStore())
    for payload in (b"", b"\xc1", b"\x91\x01", b"\x91\x91\x01"):
        entry = follow(machine.applied, term=1, cluster_time_ms=0, kind=Kind.BATCHES, payload=payload)
        with pytest.raises(Fatal):
            machine.apply([entry])
    assert machine.applied.index == 0


def test_a_gap_is_fatal() -> None:
    machine = StateMachine(MemoryStore())
    entries = entries_of(machine.applied, put(b"a", b"1"), put(b"b", b"2"), term=1)
    with pytest.raises(Fatal):
        machine.apply(entries[1:])


def test_memberships_are_kept_beside_the_data() -> None:
    store = MemoryStore()
    machine = StateMachine(store)
    payload = membership.encode(membership.initial(members("abc")))
    machine.apply([follow(machine.applied, term=0, cluster_time_ms=0, kind=Kind.MEMBERSHIP, payload=payload)])
    assert store.get(b"c") == payload


def test_a_header_that_does_not_decode_or_is_missing_is_corruption() -> None:
    for puts, deletes in (([(b"m", b"\xc1")], []), ([], [b"m"])):
        store = MemoryStore()
        machine = StateMachine(store)
        machine.apply(entries_of(machine.applied, put(b"a", b"1"), term=1))
        store.write(puts, deletes)  # type: ignore[arg-type]
        with pytest.raises(Corruption):
            StateMachine(store)


def test_a_scan_goes_through_all_records_page_by_page_and_through_nothing_else() -> None:
    machine = StateMachine(MemoryStore())
    batches = [put(b"s%d" % n, b"v", request=b"r%d" % n) for n in range(5)] + [put(b"l", b"x" * SCAN_BYTES_MAX)]
    machine.apply(entries_of(machine.applied, *batches, term=1))
    whole = machine.scan(b"", 100)
    assert [key for key, _ in whole] == [b"l"]  # ends once its bytes are many
    assert [key for key, _ in machine.scan(b"l", 3)] == [b"s0", b"s1", b"s2"]
    assert machine.scan(b"s2", 3) == [(b"s3", Record(b"v", 4)), (b"s4", Record(b"v", 5))]
    assert machine.scan(b"s4", 3) == []
