"""Directed tests of what keeps a cluster at work, and truthful, when disks, networks and processes are slow or stop."""

import asyncio
import random
import threading
import time

import pytest
from support.raft_cluster import LoopCluster, LoopLinks, LoopNetwork, until
from support.raft_rig import Alone, entries_of, member, members, noop, put

from holdfast.cluster.raft.admission import admit
from holdfast.cluster.raft.consensus import ConsensusStatus, Outcome, Role
from holdfast.cluster.raft.entries import Position
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.messages import (
    Append,
    AppendReply,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    TimeoutNow,
    Vote,
    VoteReply,
)
from holdfast.cluster.raft.node import RaftNode
from holdfast.cluster.raft.progress import Progress
from holdfast.cluster.raft.proposals import Proposals
from holdfast.cluster.raft.reads import QUESTIONS_MAX, ReadRounds
from holdfast.cluster.raft.timing import Limits, Timing
from holdfast.proto.errors import (
    Fatal,
    HoldfastError,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    StorageFailed,
    Unavailable,
)
from holdfast.storage.memory import MemoryStore
from holdfast.storage.memoryhome import MemoryHome

WAIT_S = 20.0


def follower() -> Alone:
    """A follower of b that has all of its log, and knows itself to be in contact."""
    node = Alone()
    heartbeat(node)
    node.prove_contact()
    heartbeat(node)
    return node


def heartbeat(node: Alone) -> None:
    """One of b's, of term 1."""
    node.append([], previous=node.machine.log.last, term=1, commit=1)


def candidate() -> Alone:
    """A candidate whose requests for votes have left and are not answered."""
    node = Alone()
    node.advance(2.0)
    asked = node.take(PreVote, "b")[-1]
    node.hear("b", PreVoteReply(0, asked.term, granted=True))
    assert node.machine.role is Role.CANDIDATE
    return node


# Reads over distance


def test_an_answer_that_takes_longer_than_a_follower_waits_before_it_asks_again_is_an_answer() -> None:
    node = follower()
    results = node.read()
    first = node.only(ReadIndex, "b").question
    for _ in range(10):
        node.now_s += 0.1
        heartbeat(node)
    again = node.take(ReadIndex, "b")
    assert {message.question for message in again} == {first}
    assert 1 <= len(again) <= 4
    node.hear("b", ReadIndexReply(1, first, 1))
    assert results == [1]


def test_a_question_put_again_is_answered_once_while_it_waits() -> None:
    node = Alone()
    node.lead()
    for _ in range(20):
        node.hear("c", ReadIndex(node.machine.term, 77))
    node.acknowledge("b")
    assert node.only(ReadIndexReply, "c") == ReadIndexReply(node.machine.term, 77, node.machine.log.last_index)
    node.hear("c", ReadIndex(node.machine.term, 77))
    node.acknowledge("b")
    assert len(node.take(ReadIndexReply, "c")) == 1


def test_a_leader_whose_no_op_does_not_commit_does_not_collect_questions() -> None:
    node = Alone()
    node.become_leader()
    assert node.machine.leadership is not None
    node.read()
    for _ in range(30):
        node.now_s += 0.1
        stamp = node.take(Append, "b")[-1].stamp
        node.hear("b", AppendReply(node.machine.term, True, 1, 0, stamp, True))
    answers: list[int | None] = []
    node.machine.leadership.rounds.ask(("z", 1), answers.append)
    waiting = node.machine.leadership.rounds._waiting
    assert len(waiting) == 2
    rounds = ReadRounds()
    for number in range(QUESTIONS_MAX + 1):
        rounds.ask(("b", number), answers.append)
    assert answers == [None]


def test_reads_that_gave_up_are_not_held_while_no_leader_is_known() -> None:
    node = Alone()
    for _ in range(100):
        node.machine.read(lambda _: None).resolve(Unavailable("late"))
    assert node.machine.barriers.held == 0
    node = follower()
    barriers = [node.machine.read(lambda _: None) for _ in range(10)]
    node.tick()
    question = node.only(ReadIndex, "b").question
    assert node.machine.barriers.held == 10
    barriers[0].resolve(Unavailable("late"))
    node.hear("b", ReadIndexReply(1, question, 5))
    for barrier in barriers[1:]:
        barrier.resolve(Unavailable("late"))
    assert node.machine.barriers.held == 0


# Contact that is what it says


def test_heartbeats_that_waited_while_the_process_was_stopped_are_no_contact() -> None:
    node = follower()
    assert node.machine.quorum_contact_age_s() == 0.0
    node.now_s += 60.0
    for _ in range(5):
        heartbeat(node)
    assert node.machine.quorum_contact_age_s() >= 60.0
    asked = node.take(ReadIndex, "b")[-1]
    node.hear("b", ReadIndexReply(1, asked.question - 1, 1))
    assert node.machine.quorum_contact_age_s() >= 60.0
    node.now_s += 0.1
    node.hear("b", ReadIndexReply(1, asked.question, 1))
    assert 0.0 < node.machine.quorum_contact_age_s() < 0.2
    heartbeat(node)
    assert node.machine.quorum_contact_age_s() == 0.0


def test_the_question_for_contact_is_put_until_a_leader_with_a_quorum_answers() -> None:
    node = follower()
    node.now_s += 60.0
    heartbeat(node)
    asked = node.only(ReadIndex, "b")
    node.hear("b", ReadIndexReply(1, asked.question, None))
    assert node.take(ReadIndex) == []
    for _ in range(4):
        node.now_s += 0.1
        heartbeat(node)
    assert {message.question for message in node.take(ReadIndex, "b")} == {asked.question}
    assert node.machine.quorum_contact_age_s() >= 60.0
    node.hear("b", ReadIndexReply(1, asked.question, 1))
    assert node.machine.quorum_contact_age_s() < 1.0


def test_a_vote_that_waited_while_the_candidate_was_stopped_does_not_make_it_lead() -> None:
    node = candidate()
    term = node.machine.term
    node.now_s += 60.0
    node.hear("b", VoteReply(term, granted=True))
    assert node.machine.role is not Role.LEADER
    assert node.machine.quorum_contact_age_s() >= 60.0


def test_a_new_leaders_contact_is_as_old_as_its_request_for_votes() -> None:
    node = candidate()
    node.now_s += 0.2
    node.hear("b", VoteReply(node.machine.term, granted=True))
    assert node.machine.role is Role.LEADER
    assert node.machine.quorum_contact_age_s() == pytest.approx(0.2)
    # It has the usual time for its first round all the same.
    node.advance(0.2)
    assert node.machine.role is Role.LEADER
    node.advance(0.2)
    assert node.machine.role is Role.FOLLOWER


def test_a_node_that_was_stopped_does_not_take_over_on_an_old_request() -> None:
    node = follower()
    node.now_s += 1.0
    node.hear("b", TimeoutNow(1))
    assert node.machine.role is Role.FOLLOWER
    node = follower()
    node.hear("b", TimeoutNow(1))
    assert node.machine.role is Role.CANDIDATE


# Slow disks


def test_a_node_whose_disk_hangs_does_not_take_over() -> None:
    node = Alone(auto_sync=False)
    node.sync()
    first = node.machine.log.last
    node.append([noop(first, term=1)], previous=first, term=1)
    for _ in range(30):
        node.now_s += 0.1
        heartbeat(node)
    node.hear("b", TimeoutNow(1))
    assert node.machine.role is Role.FOLLOWER


def test_a_candidacy_outlives_the_sync_of_its_own_vote() -> None:
    node = Alone(auto_sync=False)
    node.sync()
    node.advance(2.0)
    node.hear("b", PreVoteReply(0, node.take(PreVote, "b")[-1].term, granted=True))
    term = node.machine.term
    for _ in range(15):
        node.advance(0.1)
    assert (node.machine.role, node.machine.term, node.take(Vote)) == (Role.CANDIDATE, term, [])
    node.sync()
    assert node.only(Vote, "b").term == term
    for _ in range(15):  # b's disk is as slow
        node.advance(0.1)
    node.hear("b", VoteReply(term, granted=True))
    assert node.machine.role is Role.LEADER


def test_a_voter_does_not_campaign_while_its_vote_is_on_its_way_to_the_disk() -> None:
    node = Alone(auto_sync=False)
    node.sync()
    node.hear("b", Vote(4, 9, 0, transfer=False))
    for _ in range(15):
        node.advance(0.1)
    assert node.take(PreVote) == []
    node.sync()
    node.tick()
    assert node.only(VoteReply, "b").granted
    node.advance(0.2)
    assert node.take(PreVote) == []
    node.advance(0.5)
    assert node.take(PreVote) != []


# A leader under load


def test_one_tick_appends_only_so_much() -> None:
    node = Alone(limits=Limits(group_count=1, tick_bytes=100))
    node.lead()
    before = node.machine.log.last_index
    results: list[Outcome | HoldfastError] = []
    for n in range(6):
        node.machine.propose(admit(put(b"k%d" % n, bytes(60))), results.append)
    ends = []
    for _ in range(4):
        node.machine.doTick()
        ends.append(node.machine.log.last_index - before)
    assert ends == [2, 4, 6, 6]


def test_a_learner_that_is_always_a_little_behind_is_promoted() -> None:
    node = Alone()
    node.lead()
    node.machine.change_members(lambda c: c.with_learner(member("d")), lambda _: None)
    node.tick()
    node.links.up.add("d")
    node.transport.connected("d")
    node.acknowledge("b")
    behind = 1
    for n in range(6):
        node.propose(put(b"k%d" % n, b"v"))
        node.acknowledge("b")
        node.now_s += 0.02
        stamp = node.take(Append, "d")[-1].stamp
        node.hear("d", AppendReply(node.machine.term, True, behind, 0, stamp, True))
        assert node.machine.log.configurations.current.promoting == () or behind < node.machine.commit
        behind = node.machine.commit
    assert "d" in node.machine.log.configurations.voters


def test_a_learner_whose_rounds_take_long_is_not_promoted_until_one_does_not() -> None:
    progress = Progress(next=1)
    assert not progress.kept_up(10, 0.0, within_s=0.3)
    progress.match = 9
    assert not progress.kept_up(20, 1.0, within_s=0.3)
    progress.match = 10
    assert not progress.kept_up(20, 1.1, within_s=0.3)  # this round ended, but took 1.1 s
    progress.match = 20
    assert progress.kept_up(30, 1.3, within_s=0.3)


def test_a_leader_that_removes_itself_tells_so_when_its_own_disk_is_the_slow_one() -> None:
    node = Alone(auto_sync=False)
    node.sync()
    node.become_leader()
    node.acknowledge("b")
    node.acknowledge("c")
    node.sync()
    node.tick()
    results: list[object] = []
    node.machine.change_members(lambda c: c.without("a"), results.append)
    node.tick()
    index = node.machine.log.last_index
    for peer in "bc":
        stamp = node.take(Append, peer)[-1].stamp
        node.hear(peer, AppendReply(node.machine.term, True, index, 0, stamp, True))
    assert node.machine.commit == index
    assert (results, node.machine.role) == ([], Role.LEADER)
    late = node.propose(put(b"k", b"v"))
    node.sync()
    node.tick()
    assert (results, node.machine.role) == ([index], Role.FOLLOWER)
    assert isinstance(late[0], NotLeader)


def test_a_proposal_that_was_never_taken_says_that_nothing_was_changed() -> None:
    proposals = Proposals(queue_count=9, queue_bytes=99, group_count=9, group_bytes=99)
    results: list[object] = []
    queued = proposals.add(b"x", results.append)
    queued.abandon()
    assert isinstance(results.pop(), Overloaded)
    appended = proposals.add(b"y", results.append)
    assert proposals.take_group() == [appended]
    appended.abandon()
    assert isinstance(results.pop(), OutcomeUnknown)


def test_an_ineligible_leader_takes_proposals_between_two_attempts_to_hand_over() -> None:
    node = Alone()
    node.lead()
    node.machine.set_eligible(eligible=False)
    node.tick()
    assert node.take(TimeoutNow, "b") != []
    for _ in range(7):
        node.now_s += 0.1
        node.acknowledge("b")
    results = node.propose(put(b"k", b"v"))
    node.acknowledge("b")
    assert len(results) == 1


# Trimming


def test_the_tail_that_is_kept_is_bounded_in_bytes_too() -> None:
    node = Alone("a", limits=Limits(log_tail_bytes=1000, trim_step_bytes=1000))
    node.tick()
    assert node.machine.ready
    for n in range(40):
        node.propose(put(b"k", bytes(180), request=b"%d" % n))
    node.tick()
    log = node.machine.log
    assert log.base.index > 20
    assert log.size_between(log.base.index, log.last_index) < 3000
    again = node.restarted(journal_kept=99, state_kept=99).machine.log
    assert again.size_between(again.base.index, again.last_index) == log.size_between(log.base.index, log.last_index)


def test_the_tail_is_counted_in_entries_and_in_bytes() -> None:
    journal = Journal(MemoryStore(), initial=None)
    for entry in entries_of(Position(), *(put(b"k", bytes(100)) for _ in range(10)), term=1):
        journal.append(entry)
    size = journal.size_between(0, 1)
    assert journal.size_between(2, 10) == 8 * size
    assert journal.before_tail(10, count=4, bytes_max=99 * size) == 6
    assert journal.before_tail(10, count=99, bytes_max=3 * size) == 7
    assert journal.before_tail(10, count=99, bytes_max=3 * size + 1) == 7
    assert journal.before_tail(10, count=99, bytes_max=0) == 10
    assert journal.before_tail(8, count=99, bytes_max=3 * size) == 5
    assert journal.before_tail(10, count=99, bytes_max=10 * size) == 0
    assert journal.before_tail(0, count=1, bytes_max=0) == 0
    journal.setCurrentTerm(1, None)
    journal.sync()
    journal.compact(4)
    journal.truncate(10)
    assert journal.before_tail(9, count=99, bytes_max=3 * size) == 6
    assert journal.before_tail(9, count=99, bytes_max=5 * size) == 4
    assert journal.before_tail(2, count=1, bytes_max=0) == 4


def test_a_member_that_is_added_while_a_trim_is_under_way_still_gets_the_whole_log() -> None:
    node = Alone("a", auto_sync=False, limits=Limits(log_tail=2, trim_step=5))
    for _ in range(4):
        node.tick()
        node.sync()
    assert node.machine.ready
    for n in range(20):
        node.propose(put(b"k%d" % n, b"v"))
    trims: list[object] = []
    while not trims:
        for job in list(node.jobs):
            if job[0] == node.machine.machine.sync:
                trims.append(job)
                node.jobs.remove(job)
        node.sync()
        node.tick()
    assert node.machine.log.base.index == 0
    node.machine.change_members(lambda c: c.with_learner(member("d", voter=False)), lambda _: None)
    job, on_done = trims[0]  # type: ignore[misc]
    job()
    on_done(None)
    assert node.machine.log.base.index == 0
    node.tick()
    node.sync()
    node.tick()
    assert node.machine.log.base.index == 0


# The driver


def test_a_listener_that_raises_ends_the_node_instead_of_escaping() -> None:
    def broken(_status: ConsensusStatus) -> None:
        raise ValueError("a broken listener")

    async def play() -> None:
        cluster = LoopCluster("abc")
        await cluster.start_all()
        try:
            leader = await cluster.leader()
            name = leader.status().node_id
            leader.on_role_change(broken)
            cluster.network.isolate(name)
            await until(lambda: name in cluster.fatal)
            assert isinstance(cluster.fatal[name].__cause__, ValueError)
        finally:
            await cluster.stop()

    asyncio.run(play())


def test_stopping_and_failing_end_a_wait_for_a_transfer() -> None:
    async def transfer(cluster: LoopCluster) -> tuple[RaftNode, asyncio.Future[str]]:
        leader = await cluster.leader()
        name = leader.status().node_id
        target = next(peer for peer in "abc" if peer != name)
        await until(lambda: leader._running().leadership is not None
                    and target in leader._running().leadership.successors())  # type: ignore[union-attr]  # fmt: skip
        wait = asyncio.ensure_future(leader.transfer_leadership(target, timeout_s=WAIT_S))
        await asyncio.sleep(0)
        assert not wait.done()
        return leader, wait

    async def play() -> None:
        cluster = LoopCluster("abc")
        await cluster.start_all()
        try:
            leader, wait = await transfer(cluster)
            await leader.stop()
            with pytest.raises(Unavailable):
                await asyncio.wait_for(wait, 1.0)
        finally:
            await cluster.stop()
        cluster = LoopCluster("abc")
        await cluster.start_all()
        try:
            leader, wait = await transfer(cluster)
            leader._fail(StorageFailed("the disk is gone"))
            with pytest.raises(StorageFailed):
                await asyncio.wait_for(wait, 1.0)
        finally:
            await cluster.stop()

    asyncio.run(play())


class HangingStore(MemoryStore):
    """A store whose syncs can be made to hang."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()

    def sync(self) -> None:
        self.free.wait()
        super().sync()


def test_stop_does_not_wait_for_a_hung_disk_for_ever() -> None:
    async def play() -> None:
        store, fatal = HangingStore(), list[Fatal]()
        node = RaftNode(
            member=member("a"), initial_members=members("a"), journal_store=store, state=MemoryHome(),
            links=LoopLinks(LoopNetwork(), "a"), clock=time.monotonic, rng=random.Random(1), on_fatal=fatal.append,
            timing=Timing(stop_s=0.05),
        )  # fmt: skip
        await node.start()
        await until(lambda: node.status().ready)
        store.free.clear()
        write = asyncio.ensure_future(node.propose(put(b"k", b"v"), timeout_s=WAIT_S))
        await until(lambda: bool(node._jobs))
        with pytest.raises(StorageFailed):
            await node.stop()
        store.free.set()
        with pytest.raises(OutcomeUnknown):
            await write

    asyncio.run(play())
