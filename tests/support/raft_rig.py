"""One consensus machine alone with the test, which plays its peers, its clock and its disk."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from holdfast.cluster.raft import membership, messages
from holdfast.cluster.raft.admission import admit
from holdfast.cluster.raft.consensus import Member, Outcome
from holdfast.cluster.raft.entries import Entry, Kind, Position, follow, join_batches
from holdfast.cluster.raft.hardened import HardenedRaft
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.messages import (
    Append,
    AppendReply,
    Message,
    ReadIndex,
    ReadIndexReply,
    Vote,
    VoteReply,
)
from holdfast.cluster.raft.outbox import Job, OnJobDone
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.cluster.raft.timing import Limits, Timing
from holdfast.cluster.raft.transport import LinksTransport
from holdfast.proto.errors import HoldfastError
from holdfast.storage.batch import Batch, Precondition, Put, RequestRecord
from holdfast.storage.memory import MemoryStore
from holdfast.storage.memoryhome import MemoryHome

M = TypeVar("M")


def member(node_id: str, *, voter: bool = True) -> Member:
    """A member with made-up addresses."""
    return Member(
        node_id=node_id, cluster_address=f"{node_id}.test:8201", api_address=f"{node_id}.test:8200", voter=voter
    )


def members(node_ids: str) -> tuple[Member, ...]:
    """One member for each letter."""
    return tuple(member(node_id) for node_id in node_ids)


def put(key: bytes, value: bytes, *, revision: int | None = None, request: bytes | None = None) -> Batch:
    """A batch that stores one record."""
    return Batch(
        puts=(Put(key, value),),
        preconditions=() if revision is None else (Precondition(key, revision),),
        request=None if request is None else RequestRecord(request, b"response to " + request),
    )


def entries_of(previous: Entry | Position, *batches: Batch, term: int, time_ms: int | None = None) -> tuple[Entry, ...]:
    """One entry for each batch, following `previous`."""
    made: list[Entry] = []
    for batch in batches:
        at = made[-1] if made else previous
        payload = join_batches([admit(batch)])
        stamp = at.cluster_time_ms if time_ms is None else time_ms
        made.append(follow(at, term=term, cluster_time_ms=stamp, kind=Kind.BATCHES, payload=payload))
    return tuple(made)


def noop(previous: Entry | Position, *, term: int) -> Entry:
    """The entry that begins a term."""
    return follow(previous, term=term, cluster_time_ms=previous.cluster_time_ms, kind=Kind.NOOP)


class RecordingLinks:
    """Links whose other ends are the test."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Message]] = []
        self.up: set[str] = set()
        self.dialled: Mapping[str, str] = {}
        self.guests: Collection[str] = ()

    def bind(self, **_callbacks: Any) -> None:
        """Not used: the test calls the transport itself."""

    def set_peers(self, peers: Mapping[str, str], guests: Collection[str] = ()) -> None:
        self.dialled = dict(peers)
        self.guests = set(guests)

    def send(self, node_id: str, payload: bytes) -> bool:
        if node_id not in self.up:
            return False
        self.sent.append((node_id, messages.decode(payload)))
        return True


class Alone:
    """Machine "a" of a cluster whose other members are played by the test.

    Syncs happen when the test says `sync()`, unless `auto_sync`. fresh: its disk has lived through nothing yet.
    """

    def __init__(
        self,
        cluster: str = "abc",
        *,
        node_id: str = "a",
        journal_store: MemoryStore | None = None,
        state_store: MemoryStore | None = None,
        limits: Limits | None = None,
        auto_sync: bool = True,
        now_s: float = 1000.0,
        fresh: bool = False,
    ) -> None:
        self.now_s = now_s
        self.auto_sync = auto_sync
        self.jobs: list[tuple[Job, OnJobDone]] = []
        self.links = RecordingLinks()
        self.links.up = set(cluster) - {node_id}
        self.transport = LinksTransport(self.links)
        self.journal_store = journal_store or MemoryStore()
        self.state_store = state_store or MemoryStore()
        self.home = MemoryHome(self.state_store)
        self.changed: list[bytes] = []
        initial = membership.initial(members(cluster)) if node_id in cluster else None
        journal = Journal(self.journal_store, initial=initial)
        if not fresh and not journal.vouched:
            journal.vouch()
            journal.note_founded()
            journal.sync()
        self.machine = HardenedRaft(
            node_id,
            journal=journal,
            machine=StateMachine(self.state_store),
            home=self.home,
            transport=self.transport,
            clock=lambda: self.now_s,
            rng=random.Random(7),
            run_job=self._run_job,
            wake=lambda: None,
            on_applied=lambda _index, changed: self.changed.extend(changed),
            timing=Timing(),
            limits=limits or Limits(),
        )
        self.machine.eligible = True
        for peer in sorted(self.links.up):
            self.transport.connected(peer)

    def _run_job(self, job: Job, on_done: OnJobDone) -> None:
        if not self.auto_sync:
            self.jobs.append((job, on_done))
            return
        try:
            job()
        except HoldfastError as error:
            on_done(error)
        else:
            on_done(None)

    def sync(self) -> None:
        """Let the disk finish everything it has been given."""
        jobs, self.jobs = self.jobs, []
        for job, on_done in jobs:
            job()
            on_done(None)

    def tick(self, *, times: int = 3) -> None:
        """As many ticks as what has happened needs."""
        for _ in range(times):
            self.machine.doTick()

    def advance(self, seconds: float) -> None:
        """Let time pass in one go, then tick."""
        self.now_s += seconds
        self.tick()

    def hear(self, peer: str, message: Message) -> None:
        """A message from a peer, then ticks."""
        self.transport.receive(peer, messages.encode(message))
        self.tick()

    def take(self, kind: type[M], peer: str | None = None) -> list[M]:
        """The messages of one kind sent so far (to a peer); they are forgotten."""
        taken = [m for to, m in self.links.sent if isinstance(m, kind) and peer in (None, to)]
        self.links.sent = [(to, m) for to, m in self.links.sent if not (isinstance(m, kind) and peer in (None, to))]
        return taken

    def only(self, kind: type[M], peer: str) -> M:
        """The one message of this kind sent to a peer."""
        taken = self.take(kind, peer)
        assert len(taken) == 1, (kind, peer, taken)
        return taken[0]

    def restarted(self, *, journal_kept: int = 0, state_kept: int = 0, **options: Any) -> Alone:
        """The node after a loss of power."""
        return Alone(
            journal_store=self.journal_store.crash(unsynced_kept=journal_kept),
            state_store=self.home.store.crash(unsynced_kept=state_kept),
            now_s=self.now_s,
            **options,
        )

    # Short stories

    def become_leader(self) -> None:
        """Win an election with b's votes, then forget what was sent. The no-op is not acknowledged yet."""
        self.advance(2.0)
        asked = self.take(messages.PreVote, "b")[-1]
        self.hear("b", messages.PreVoteReply(self.machine.term, asked.term, granted=True))
        if not self.auto_sync:
            self.sync()
        vote = self.take(Vote, "b")[-1]
        self.hear("b", VoteReply(vote.term, granted=True))
        self.tick()
        assert self.machine.leadership is not None

    def lead(self) -> None:
        """Become leader and have b acknowledge everything."""
        self.become_leader()
        self.acknowledge("b")
        assert self.machine.ready

    def acknowledge(self, peer: str, *, index: int | None = None) -> None:
        """The peer acknowledges what it was sent last, up to `index` (all of the log by default)."""
        if not self.auto_sync:
            self.sync()
        appends = self.take(Append, peer)
        if not appends:
            self.advance(0.05)
            appends = self.take(Append, peer)
        last = self.machine.log.last_index if index is None else index
        self.hear(peer, AppendReply(self.machine.term, True, last, 0, appends[-1].stamp, True))

    def append(
        self, entries: Sequence[Entry], *, previous: Entry | Position, term: int, commit: int = 0, sender: str = "b"
    ) -> None:
        """An AppendEntries from a leader."""
        self.hear(
            sender,
            Append(
                term=term, prev_index=previous.index, prev_term=previous.term, prev_digest=previous.digest,
                commit=commit, stamp=1, trim=0, quorum_age_ms=0, entries=tuple(entries),
            ),
        )  # fmt: skip

    def prove_contact(self, leader: str = "b") -> None:
        """Answer the question with which a follower makes sure that what it hears is not old."""
        for asked in self.take(ReadIndex, leader):
            self.hear(leader, ReadIndexReply(self.machine.term, asked.question, 0))

    def propose(self, batch: Batch) -> list[Outcome | HoldfastError]:
        """Propose; the list gets the result when there is one."""
        results: list[Outcome | HoldfastError] = []
        self.machine.propose(admit(batch), results.append)
        self.tick()
        return results

    def read(self) -> list[int | HoldfastError]:
        """Ask for a read barrier; the list gets the result when there is one."""
        results: list[int | HoldfastError] = []
        self.machine.read(results.append)
        self.tick()
        return results


def raises(call: Callable[[], object]) -> HoldfastError:
    """The HoldfastError that a call raises."""
    try:
        call()
    except HoldfastError as error:
        return error
    raise AssertionError("nothing was raised")
