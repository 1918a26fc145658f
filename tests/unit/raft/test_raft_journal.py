"""The journal: what survives a loss of power, what is refused at load, one write for each sync."""

from collections.abc import Sequence

import msgspec
import pytest
from support.raft_rig import entries_of, members, noop, put

from holdfast.cluster.raft import membership
from holdfast.cluster.raft.entries import Position, encode_entry
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.membership import Configuration
from holdfast.proto.errors import Corruption
from holdfast.storage.memory import MemoryStore

INITIAL = membership.initial(members("abc"))


class CountingStore(MemoryStore):
    """Counts its writes."""

    writes = 0

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes] = ()) -> None:
        self.writes += 1
        super().write(puts, deletes)


def filled(store: MemoryStore, count: int) -> Journal:
    journal = Journal(store, initial=INITIAL)
    for entry in entries_of(journal.last, *[put(b"k%d" % n, b"v") for n in range(count)], term=2):
        journal.append(entry)
    journal.setCurrentTerm(2, "b")
    journal.sync()
    return journal


def key(index: int) -> bytes:
    return b"l" + index.to_bytes(8, "big")


def test_a_new_log_begins_with_its_initial_members_and_an_uninvited_nodes_with_nothing() -> None:
    journal = Journal(MemoryStore(), initial=INITIAL)
    assert (journal.last_index, journal.synced, journal.configurations.voters) == (1, 1, ("a", "b", "c"))
    empty = Journal(MemoryStore(), initial=None)
    assert (empty.last_index, empty.last, empty.configurations.voters) == (0, Position(), ())
    assert Journal(MemoryStore(), initial=Configuration()).last_index == 0


def test_initial_members_count_only_once() -> None:
    store = MemoryStore()
    Journal(store, initial=INITIAL)
    again = Journal(store.crash(), initial=membership.initial(members("xyz")))
    assert again.configurations.voters == ("a", "b", "c")


def test_entries_term_and_vote_survive_when_synced_and_only_then() -> None:
    store = MemoryStore()
    journal = filled(store, 3)
    journal.append(noop(journal.last, term=3))
    journal.setCurrentTerm(3, "c")
    assert (journal.synced, journal.settled, journal.dirty) == (4, False, True)
    job = journal.begin_sync()
    lost = Journal(store.crash(), initial=INITIAL)
    assert (lost.last_index, lost.getCurrentTerm(), lost.getVotedForNodeId()) == (4, 2, "b")
    store = MemoryStore()
    journal = filled(store, 3)
    journal.append(noop(journal.last, term=3))
    journal.setCurrentTerm(3, "c")
    job = journal.begin_sync()
    assert not journal.settled
    job()
    journal.end_sync()
    assert (journal.synced, journal.settled, journal.dirty) == (5, True, False)
    kept = Journal(store.crash(), initial=INITIAL)
    assert (kept.last_index, kept.getCurrentTerm(), kept.getVotedForNodeId()) == (5, 3, "c")


def test_truncate_append_term_vote_and_trim_are_one_write() -> None:
    store = CountingStore()
    journal = filled(store, 6)
    before = store.writes
    journal.compact(3)
    journal.truncate(6)
    journal.append(noop(journal.last, term=3))
    journal.setCurrentTerm(3, "a")
    journal.sync()
    assert store.writes == before + 1
    again = Journal(store.crash(), initial=INITIAL)
    assert (again.base.index, again.last_index, again.last.term) == (3, 6, 3)
    assert again.configurations.voters == ("a", "b", "c")
    assert again.configurations.index == 1
    assert again.base == journal.base


def test_a_truncation_during_a_sync_lowers_what_the_sync_makes_durable() -> None:
    journal = filled(MemoryStore(), 3)
    for entry in entries_of(journal.last, put(b"x", b"1"), put(b"y", b"1"), term=2):
        journal.append(entry)
    job = journal.begin_sync()
    journal.truncate(5)
    journal.append(noop(journal.last, term=3))
    job()
    journal.end_sync()
    assert (journal.last_index, journal.synced) == (5, 4)


@pytest.mark.parametrize("victim", [1, 3, 5])
def test_a_hole_is_corruption(victim: int) -> None:
    store = MemoryStore()
    filled(store, 4)
    store.write([], [key(victim)])
    with pytest.raises(Corruption):
        Journal(store, initial=INITIAL)


def test_an_entry_that_is_not_what_was_written_is_corruption() -> None:
    for change in ("payload", "digest", "garbage", "beyond"):
        store = MemoryStore()
        journal = filled(store, 4)
        entry = journal.entry(3)
        forged = msgspec.structs.replace(entry, digest=journal.entry(2).digest)
        store.write(
            {
                "payload": [(key(3), encode_entry(msgspec.structs.replace(entry, payload=b"another")))],
                "digest": [(key(3), encode_entry(forged))],
                "garbage": [(key(3), b"\xc1")],
                "beyond": [(key(6), encode_entry(noop(journal.last, term=2)))],
            }[change]
        )
        with pytest.raises(Corruption):
            Journal(store, initial=INITIAL)


def test_a_header_that_does_not_decode_or_is_missing_is_corruption() -> None:
    vote_is_not_utf8 = b"\x95\x01\x05\xa1\x80\xc0\xc0"
    damages = ([(b"m", b"\xc1")], []), ([(b"m", vote_is_not_utf8)], []), ([(b"c", b"\xc1")], []), ([], [b"m"])
    for puts, deletes in damages:
        store = MemoryStore()
        filled(store, 2)
        store.write(puts, deletes)  # type: ignore[arg-type]
        with pytest.raises(Corruption):
            Journal(store, initial=INITIAL)


def test_pysyncobjs_view_of_the_log_has_the_base_at_its_head() -> None:
    journal = filled(MemoryStore(), 2)
    assert len(journal) == 4
    assert journal[0] == (b"\x01", 0, 0)
    assert journal[-1][1:] == (3, 2)
    assert journal[1][0][:1] == b"\x02"
    journal.add(b"\x01", 4, 5)
    assert (journal.last_index, journal.last.term) == (4, 5)
    journal.deleteEntriesFrom(4)
    assert journal.last_index == 3
    journal.deleteEntriesTo(2)
    assert journal.base.index == 2
    with pytest.raises(AssertionError):
        journal.clear()


def test_entries_are_handed_out_by_count_and_bytes() -> None:
    journal = filled(MemoryStore(), 5)
    size = len(journal.entry(2).payload)
    assert [entry.index for entry in journal.between(2, count=3, bytes_max=10_000)] == [2, 3, 4]
    assert [entry.index for entry in journal.between(2, count=9, bytes_max=2 * size)] == [2, 3]
    assert [entry.index for entry in journal.between(6, count=9, bytes_max=0)] == [6]
    assert journal.between(7, count=9, bytes_max=0) == ()
    assert journal.at(7) is None
    assert journal.at(0) == Position()
