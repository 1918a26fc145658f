"""Snapshots, one machine alone: what a receiver accepts, what a snapshot may move, and what a sender sends when."""

import hashlib
from dataclasses import replace

import pytest
from support.raft_rig import Alone, entries_of, noop, put, raises

from holdfast.cluster.raft.entries import Position, position
from holdfast.cluster.raft.journal import Journal, Restart
from holdfast.cluster.raft.messages import (
    AppendReply,
    MalformedMessage,
    SnapshotChunk,
    SnapshotOffer,
    SnapshotProgress,
)
from holdfast.cluster.raft.sending import check_of
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.cluster.raft.timing import Limits
from holdfast.proto.errors import Corruption, Diverged
from holdfast.storage.home import StateCopy, digest_of_names
from holdfast.storage.memory import MemoryStore
from holdfast.storage.memoryhome import MemoryHome

ID = b"i" * 16


class Leader:
    """The state and log of a leader "b" that is far ahead of the node under test, and its snapshot."""

    def __init__(self, node: Alone, *, entries: int = 10, term: int = 3) -> None:
        self.node = node
        self.term = term
        self.home = MemoryHome()
        machine = StateMachine(self.home.store)
        first = Journal(MemoryStore(), initial=node.machine.log.configurations.current).entry(1)
        self.log = [first, noop(first, term=term)]
        for n in range(entries):
            self.log += entries_of(self.log[-1], put(b"k%d" % n, b"v"), term=term)
        machine.apply(self.log)
        self.at = position(self.log[-1])
        self.state_digest = machine.state_digest
        self.copy: StateCopy = self.home.copy()
        self.size = sum(size for _, size in self.copy.files)

    def offer(self, *, attempt: int = 1, at: Position | None = None, identity: bytes = ID) -> None:
        members = self.node.machine.log.configurations.at(1)
        offer = SnapshotOffer(self.term, identity, attempt, at or self.at, members, self.copy.files, self.state_digest)
        self.node.hear("b", offer)

    def digest(self) -> bytes:
        state = digest_of_names(self.copy.files)
        state.update(self.copy.read(0, self.size))
        return state.digest()

    def chunk(self, offset: int, size: int, *, digest: bytes | None = None) -> SnapshotChunk:
        data = self.copy.read(offset, size)
        last = offset + len(data) == self.size
        end = (self.digest() if digest is None else digest) if last else b""
        return SnapshotChunk(self.term, ID, offset, data, check_of(offset, data), end)

    def send(self, offset: int = 0, until: int | None = None, *, digest: bytes | None = None) -> None:
        for at in range(offset, self.size if until is None else until, 100):
            self.node.hear("b", self.chunk(at, 100, digest=digest))


def test_a_snapshot_takes_the_place_of_state_and_log() -> None:
    node = Alone()
    leader = Leader(node)
    leader.offer()
    assert node.only(SnapshotProgress, "b").have == 0
    leader.send()
    assert node.take(SnapshotProgress, "b")[-1].have == leader.size
    machine = node.machine
    assert machine.applied == machine.commit == leader.at.index
    assert (machine.log.base, machine.log.last) == (leader.at, leader.at)
    assert machine.log.synced == leader.at.index
    assert machine.log.announced is None
    assert machine.machine.get(b"k9") is not None
    assert machine.term == leader.term
    leader.log += entries_of(leader.log[-1], put(b"next", b"v"), term=3)
    node.append(leader.log[-1:], previous=leader.log[-2], term=3, commit=leader.at.index + 1)
    assert node.take(AppendReply, "b")[-1].accepted
    assert machine.machine.get(b"next") is not None
    again = node.restarted()
    assert again.machine.log.base == leader.at
    assert again.machine.machine.applied.index >= leader.at.index
    assert again.machine.log.last_index == leader.at.index + 1


def test_a_snapshot_of_an_earlier_term_is_refused_with_the_term() -> None:
    node = Alone()
    node.hear(
        "c", SnapshotOffer(9, ID, 1, Position(5, 4, 0, bytes(16)), node.machine.log.configurations.at(1), (), bytes(16))
    )
    node.take(SnapshotProgress)
    leader = Leader(node)
    leader.offer()
    assert node.only(SnapshotProgress, "b").term == 9
    node.hear("b", leader.chunk(0, 100))
    assert node.only(SnapshotProgress, "b").term == 9


def test_a_snapshot_never_goes_backwards() -> None:
    node = Alone()
    leader = Leader(node)
    node.append(leader.log[1:], previous=leader.log[0], term=3, commit=leader.at.index)
    assert node.machine.applied == leader.at.index
    leader.offer(at=position(leader.log[4]))
    leader.offer()
    assert not node.take(SnapshotProgress, "b")
    leader.send()
    assert node.home.installs == 0
    assert node.machine.commit == leader.at.index
    # Nor when the log has been trimmed, so that it cannot be compared any more.
    node.machine.machine.sync()
    node.machine.log.compact(leader.at.index)
    leader.offer(at=position(leader.log[4]))
    assert not node.take(SnapshotProgress, "b")


def test_a_snapshot_that_the_log_reaches_moves_commit_and_installs_nothing() -> None:
    node = Alone()
    leader = Leader(node)
    node.append(leader.log[1:], previous=leader.log[0], term=3, commit=0)
    leader.offer()
    assert node.machine.applied == leader.at.index
    assert node.home.installs == 0


def test_a_snapshot_moves_no_commit_index_over_a_tail_that_was_not_compared() -> None:
    """B3: the log is as long as the snapshot, but of another leader."""
    node = Alone()
    leader = Leader(node)
    other = [leader.log[0], noop(leader.log[0], term=2)]
    for n in range(20):
        other += entries_of(other[-1], put(b"other%d" % n, b"v"), term=2)
    node.append(other[1:], previous=other[0], term=2, commit=0, sender="c")
    leader.offer()
    leader.send(until=leader.size - 100)
    assert node.machine.commit == 0 or node.machine.commit < 2
    leader.send(offset=(leader.size - 1) // 100 * 100)
    for at in range(0, leader.size, 100):
        node.hear("b", leader.chunk(at, 100))
    assert node.machine.log.last == leader.at, "the tail of the other leader is gone"
    assert node.machine.machine.get(b"other1") is None


def test_the_same_place_with_another_digest_is_a_divergence() -> None:
    node = Alone()
    leader = Leader(node)
    node.append(leader.log[1:], previous=leader.log[0], term=3, commit=0)
    wrong = Position(leader.at.index, leader.at.term, leader.at.cluster_time_ms, bytes(16))
    assert isinstance(raises(lambda: leader.offer(at=wrong)), Diverged)


def test_a_damaged_chunk_costs_the_session_and_nothing_else() -> None:
    node = Alone()
    leader = Leader(node)
    leader.offer()
    good = leader.chunk(0, 100)
    for damaged in (
        SnapshotChunk(3, ID, 0, b"x" + good.data[1:], good.check),
        SnapshotChunk(3, ID, 0, good.data, good.check, bytes(32)),
        SnapshotChunk(3, ID, 0, b"", check_of(0, b"")),
        SnapshotChunk(3, ID, 0, bytes(leader.size + 1), check_of(0, bytes(leader.size + 1))),
    ):
        with pytest.raises(MalformedMessage):
            node.hear("b", damaged)
    leader.send()
    assert node.home.installs == 1


def test_a_wrong_digest_installs_nothing_and_the_next_offer_begins_anew() -> None:
    node = Alone()
    leader = Leader(node)
    leader.offer()
    leader.send(digest=hashlib.sha256(b"another").digest())
    assert node.home.installs == 0
    node.take(SnapshotProgress)
    leader.offer(attempt=2)
    assert node.only(SnapshotProgress, "b") == SnapshotProgress(3, ID, 2, 0)
    leader.send()
    assert node.home.installs == 1


def test_a_snapshot_that_stands_elsewhere_than_it_says_is_not_installed() -> None:
    node = Alone()
    leader = Leader(node)
    leader.offer(at=position(leader.log[-2]))
    leader.send()
    assert node.home.installs == 0
    assert node.machine.applied <= 1


def test_chunks_out_of_order_or_twice_change_nothing() -> None:
    node = Alone()
    leader = Leader(node)
    leader.offer()
    node.hear("b", leader.chunk(100, 100))
    for at in range(0, leader.size, 100):
        node.hear("b", leader.chunk(at, 100))
        node.hear("b", leader.chunk(at, 100))
    assert node.home.installs == 1


def test_an_offer_repeated_after_a_lost_session_is_answered_with_what_there_is() -> None:
    node = Alone()
    leader = Leader(node)
    leader.offer()
    leader.send(until=200)
    node.transport.disconnected("b")
    node.transport.connected("b")
    node.take(SnapshotProgress)
    leader.offer(attempt=2)
    assert node.only(SnapshotProgress, "b") == SnapshotProgress(3, ID, 2, 200)
    leader.send(offset=200)
    assert node.home.installs == 1


def test_a_log_that_overtook_the_snapshot_is_kept() -> None:
    node = Alone()
    leader = Leader(node)
    leader.offer()
    leader.send(until=100)
    node.append(leader.log[1:], previous=leader.log[0], term=3, commit=leader.at.index)
    leader.send(offset=100)
    assert node.home.installs == 0
    assert node.machine.applied == leader.at.index
    assert node.machine.log.base.index == 0


def test_the_stores_are_exchanged_only_when_no_job_uses_them() -> None:
    node = Alone(auto_sync=False)
    leader = Leader(node)
    leader.offer()
    leader.send()
    waited = appended = False
    while node.home.installs == 0:
        assert node.jobs, "something is still to come"
        current = node.machine._receiver._current
        if current is not None and current.have == leader.size and not appended:
            # While the snapshot is verified the leader's entries come, and a sync of the log begins.
            node.append(leader.log[1:3], previous=leader.log[0], term=3)
            appended = True
        job, on_done = node.jobs.pop(0)
        job()
        on_done(None)
        busy = bool(node.jobs)
        waited |= busy and node.machine._receiver.ready is not None
        node.machine.doTick()
        assert not (busy and node.home.installs), "a job was still to run"
    assert waited
    assert node.machine.applied == leader.at.index


@pytest.mark.parametrize("exchanged", [False, True])
def test_a_start_in_the_middle_of_an_install_finds_one_or_the_other(*, exchanged: bool) -> None:
    node = Alone()
    leader = Leader(node)
    step = "after" if exchanged else "before"

    class Died(BaseException):
        pass

    def die(reached: str) -> None:
        if reached == step:
            raise Died

    node.home.on_step = die
    leader.offer()
    with pytest.raises(Died):
        leader.send()
    again = node.restarted()
    assert again.machine.log.announced is None
    if exchanged:
        assert (again.machine.log.base, again.machine.applied) == (leader.at, leader.at.index)
    else:
        assert (again.machine.log.base.index, again.machine.applied) == (0, 0)
    assert again.machine.term == leader.term
    assert Journal(again.journal_store, initial=None).announced is None, "what was found out is durable"


def test_a_state_that_was_not_announced_is_still_refused() -> None:
    node = Alone()
    leader = Leader(node)
    assert isinstance(
        raises(lambda: Alone(journal_store=node.journal_store, state_store=leader.home.store)), Corruption
    )


def test_the_journal_begins_anew_as_announced_and_keeps_term_and_vote() -> None:
    store = MemoryStore()
    node = Alone(journal_store=store)
    journal = Journal(store, initial=None)
    journal.setCurrentTerm(7, "c")
    at = Position(50, 6, 9, b"d" * 16)
    members = journal.configurations.at(1)
    journal.append(entries_of(journal.last, put(b"k", b"v"), term=7)[0])
    journal.announce_restart(Restart(at, members))
    journal.sync()
    assert Journal(store, initial=None).announced == Restart(at, members)
    journal.restart()
    journal.sync()
    again = Journal(store.crash(), initial=None)
    assert (again.base, again.last_index, again.announced) == (at, 50, None)
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (7, "c")
    assert again.configurations.current == node.machine.log.configurations.current
    assert again.size_between(50, 50) == 0


# The sender

SENDING = Limits(log_tail=2, trim_step=2, log_lag=4, snapshot_chunk_bytes=200, snapshot_window_bytes=400)


def sending() -> Alone:
    """A leader, "a", whose log no longer reaches back to what c needs."""
    node = Alone(limits=SENDING)
    node.lead()
    for _ in range(30):
        keep_contact(node, 0.2)
    for n in range(12):
        node.propose(put(b"k%d" % n, b"v" * 50))
        node.acknowledge("b")
    assert node.machine.log.base.index > 2
    node.take(object)
    return node


def need(node: Alone) -> None:
    """c answers that its log is empty but for its first entry."""
    leadership = node.machine.leadership
    assert leadership is not None
    node.hear("c", AppendReply(node.machine.term, False, 2, node.machine.log.last_index, leadership._stamp, True))
    node.tick()


def keep_contact(node: Alone, seconds: float) -> None:
    """Time passes in which b acknowledges."""
    node.now_s += seconds
    node.acknowledge("b")


def test_a_member_in_need_is_offered_a_snapshot_and_sent_a_window() -> None:
    node = sending()
    need(node)
    offer = node.take(SnapshotOffer, "c")[-1]
    assert offer.at == node.machine.machine.applied
    assert not node.take(SnapshotChunk), "nothing is sent before the member has said what it has"
    node.hear("c", SnapshotProgress(offer.term, offer.id, offer.attempt, 0))
    for _ in range(5):
        keep_contact(node, 0.05)
    chunks = node.take(SnapshotChunk, "c")
    assert [chunk.offset for chunk in chunks] == [0, 200], "the window is full"
    node.hear("c", SnapshotProgress(offer.term, offer.id, offer.attempt, 200))
    keep_contact(node, 0.05)
    assert [chunk.offset for chunk in node.take(SnapshotChunk, "c")] == [400]


def test_what_the_member_has_is_not_sent_again() -> None:
    node = sending()
    need(node)
    offer = node.take(SnapshotOffer, "c")[-1]
    size = sum(length for _, length in offer.files)
    have = 0
    node.hear("c", SnapshotProgress(offer.term, offer.id, offer.attempt, 0))
    while have < 600:
        keep_contact(node, 0.05)
        for chunk in node.take(SnapshotChunk, "c"):
            have = chunk.offset + len(chunk.data)
            node.hear("c", SnapshotProgress(offer.term, offer.id, offer.attempt, have))
    node.transport.disconnected("c")
    node.tick()
    node.transport.connected("c")
    node.tick()
    need(node)
    again = node.take(SnapshotOffer, "c")[-1]
    assert again.id == offer.id
    assert again.attempt > offer.attempt
    node.take(SnapshotChunk)
    node.hear("c", SnapshotProgress(offer.term, offer.id, again.attempt, 600))
    keep_contact(node, 0.05)
    assert min(chunk.offset for chunk in node.take(SnapshotChunk, "c")) == 600
    assert size > 600


def test_a_transfer_without_progress_is_offered_again() -> None:
    node = sending()
    need(node)
    first = node.take(SnapshotOffer, "c")[-1]
    for _ in range(30):
        keep_contact(node, 0.05)
    later = node.take(SnapshotOffer, "c")
    assert {offer.id for offer in later} == {first.id}
    assert later[-1].attempt > first.attempt


def test_the_rate_is_kept() -> None:
    node = sending()
    sender = node.machine._sender
    assert sender is not None
    sender._timing = replace(sender._timing, snapshot_bytes_per_s=1000)
    sender._limits = replace(sender._limits, snapshot_window_bytes=10**6)
    need(node)
    offer = node.take(SnapshotOffer, "c")[-1]
    node.hear("c", SnapshotProgress(offer.term, offer.id, offer.attempt, 0))
    began_s = node.now_s
    for _ in range(20):
        keep_contact(node, 0.04)
    sent = sum(len(chunk.data) for chunk in node.take(SnapshotChunk, "c"))
    assert 200 < sent <= 1000 * (node.now_s - began_s) + 2 * 200


def test_nothing_is_applied_while_the_copy_is_made() -> None:
    node = sending()
    sender = node.machine._sender
    assert sender is not None
    before = node.machine.applied
    sender.copier.copying = True
    node.propose(put(b"meanwhile", b"v"))
    node.acknowledge("b")
    assert node.machine.commit > before
    assert node.machine.applied == before
    sender.copier.copying = False
    node.tick()
    assert node.machine.applied > before


def test_a_member_that_has_lost_acknowledged_entries_is_sent_no_snapshot() -> None:
    node = sending()
    need(node)
    node.take(SnapshotOffer)
    leadership = node.machine.leadership
    assert leadership is not None
    leadership.progress["c"].lost_entries = True
    for _ in range(30):
        keep_contact(node, 0.05)
    assert not node.take(SnapshotOffer)


def test_the_log_is_kept_for_the_one_who_receives_and_trimmed_when_it_is_gone() -> None:
    node = sending()
    need(node)
    offer = node.take(SnapshotOffer, "c")[-1]
    for n in range(10):
        node.propose(put(b"more%d" % n, b"v"))
        node.acknowledge("b")
    assert node.machine.log.base.index <= offer.at.index
    node.transport.disconnected("c")
    for _ in range(110):
        keep_contact(node, 0.2)
    for n in range(4):
        node.propose(put(b"end%d" % n, b"v"))
        node.acknowledge("b")
    assert node.machine.log.base.index > offer.at.index


def test_a_deposed_leader_sends_no_more() -> None:
    node = sending()
    need(node)
    offer = node.take(SnapshotOffer, "c")[-1]
    node.hear("c", SnapshotProgress(offer.term + 1, offer.id, offer.attempt, 0))
    assert node.machine.leadership is None
    assert node.machine._sender is None
    node.hear("c", SnapshotProgress(offer.term, offer.id, offer.attempt, 0))
    assert not node.take(SnapshotChunk)
