"""What a node takes from its leader: entries, the commit index, snapshots. And how it is answered.

Override 1 and 3 of pysyncobj's replication: the judgement is `replica.py`'s, replies carry a term and leave when what
they claim is durable.
"""

from __future__ import annotations

import random  # noqa: TID251 - for the type; the generator is passed in
from abc import abstractmethod
from collections.abc import Callable, Sequence

import structlog

from holdfast.cluster.raft.comparing import Reporting, StateMark
from holdfast.cluster.raft.consensus import Role
from holdfast.cluster.raft.entries import Position
from holdfast.cluster.raft.installing import install, reconcile
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.messages import (
    Append,
    AppendReply,
    Commit,
    SnapshotChunk,
    SnapshotOffer,
    SnapshotProgress,
)
from holdfast.cluster.raft.outbox import Job, OnJobDone, RunJob
from holdfast.cluster.raft.quorum_contact import QuorumContact
from holdfast.cluster.raft.receiving import Receiving, SnapshotReceiver
from holdfast.cluster.raft.replica import accept, reaches
from holdfast.cluster.raft.scrub import Scrub
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.cluster.raft.timing import Limits, Timing
from holdfast.cluster.raft.transport import LinksTransport
from holdfast.cluster.raft.trimming import Trimmer
from holdfast.cluster.raft.voting import VotingNode
from holdfast.proto.errors import Diverged
from holdfast.storage.home import StateHome

_log = structlog.get_logger(__name__)


class FollowingNode(VotingNode):
    """A Raft node as far as elections and following go. Raises Corruption when journal and state disagree.

    new_question: a number for a ReadIndex question that no other question of this node has.
    """

    def __init__(
        self,
        node_id: str,
        *,
        journal: Journal,
        machine: StateMachine,
        home: StateHome,
        transport: LinksTransport,
        timing: Timing,
        limits: Limits,
        clock: Callable[[], float],
        rng: random.Random,
        run_job: RunJob,
        wake: Callable[[], None],
        new_question: Callable[[], int],
    ) -> None:
        self.machine = machine
        self._home = home
        self._jobs = 0
        self._run_uncounted = run_job
        self._contact = QuorumContact(clock(), timing, new_question)
        self._doubted: set[str] = set()
        super().__init__(
            node_id, journal=journal, transport=transport, timing=timing, limits=limits,
            clock=clock, rng=rng, run_job=self._run_job, wake=wake,
        )  # fmt: skip
        self._trimmer = Trimmer(journal, machine, limits, run_job=self._run_job, on_failure=self._sync_failed)
        self._receiver = SnapshotReceiver(
            home=home, run_job=self._run_job, send=self._send, term=lambda: self.term, wake=wake,
            on_failure=self._sync_failed,
        )  # fmt: skip
        self.commit = self.applied = reconcile(journal, machine)
        self._reporting = Reporting()
        self.scrub = Scrub(machine, timing, clock())

    def _run_job(self, job: Job, on_done: OnJobDone) -> None:
        """Run a job in the worker, and know that it runs: the stores are exchanged only when nobody uses them."""
        self._jobs += 1

        def done(error: BaseException | None) -> None:
            self._jobs -= 1
            on_done(error)

        self._run_uncounted(job, done)

    @abstractmethod
    def _state_exchanged(self, index: int, changed: Sequence[bytes]) -> None:
        """A snapshot has taken the place of the state; it stands at `index`. changed: keys to read again."""

    # Entries

    def _from_leader(self, node_id: str, term: int) -> bool:
        """Whether a leader's message is of the current term (or a later one, which is adopted)."""
        if term < self.term:
            return False
        if term == self.term and self.role is Role.LEADER:
            raise Diverged(
                f"two nodes lead in term {term}: this node and another; data folders were copied or restored"
            )
        if term > self.term or self.role is not Role.FOLLOWER or self.leader_id != node_id:
            self._follow(term, node_id)
        now_s = self._clock()
        if now_s - self.leader_heard_s > self._timing.quorum_timeout_s:
            self._contact.silence_ended(now_s)
        self.leader_heard_s = now_s
        self._put_off_election(self.leader_heard_s)
        return True

    def _on_append(self, node_id: str, message: Append) -> None:
        if not self._from_leader(node_id, message.term):
            self._reply(node_id, AppendReply(self.term, False, 0, 0, 0, self.eligible), settled=True)
            return
        self._campaign.end()
        self._contact.reported(self.leader_heard_s - message.quorum_age_ms / 1000)
        if message.contacts:
            self._contacts.meet(dict(message.contacts))
        self._contacts.forget_callers()
        if message.commit > 1:
            self.log.note_founded()
        if not self.log.vouched and self.voted_for is None:
            self.set_term(self.term, node_id)  # the disk before may have voted in this term
        self._reporting.heard(message.sample, message.agreed)
        own = self.machine.digest_at(message.sample.index)
        if message.sample.index and own is not None and own != message.sample.digest:
            self._doubt(message.sample.index, node_id)
        verdict = accept(self.log, self.commit, message)
        if not verdict.accepted:
            reply = AppendReply(
                self.term, False, verdict.index, message.prev_index, message.stamp, self.eligible, self._state_report()
            )
            self._reply(node_id, reply, settled=True)
            return
        if not self.log.vouched and self.log.last.term == self.term:
            self.log.vouch()
            _log.info("new_disk_brought_up_to_date", member=self.node_id, last_index=self.log.last_index)
        if not message.contacts and verdict.index >= message.commit and node_id in self.log.configurations.peers:
            self._contacts.forget_told()
        self.commit = max(self.commit, min(message.commit, verdict.index))
        self._trimmer.held_by_all(message.trim)
        # A heartbeat is answered with what is durable by now: reads and contact need not wait for the disk.
        index = verdict.index if message.entries else min(verdict.index, self.log.synced)
        reply = AppendReply(self.term, True, index, 0, message.stamp, self.eligible, self._state_report())
        self._reply(node_id, reply, settled=index <= self.log.synced)

    def _reply(self, node_id: str, reply: AppendReply, *, settled: bool) -> None:
        """Send at once when everything the reply claims is durable, else after the next sync."""
        if settled and self.log.settled:
            self._send(node_id, reply)
        else:
            self._post(node_id, reply)

    def _on_commit(self, node_id: str, message: Commit) -> None:
        if message.term != self.term or node_id != self.leader_id or self.role is not Role.FOLLOWER:
            return
        entry = self.log.at(message.index)
        if entry is not None and entry.term == message.index_term:
            self.commit = max(self.commit, message.index)

    # Comparing states

    def _mark(self, index: int) -> StateMark:
        digest = self.machine.digest_at(index) if index else None
        return StateMark() if digest is None else StateMark(index, digest)

    def _state_report(self) -> StateMark:
        return self._mark(self._reporting.due(self.applied))

    def _compare_state(self) -> None:
        """Raises Diverged when this node's state is not what a majority has."""
        own = self._mark(self._reporting.agreed_index)
        if own.index:
            self._reporting.compare(own)

    def _doubt(self, index: int, other: str) -> None:
        """This node's state and another's differ, and which is right is not known."""
        if other not in self._doubted:
            self._doubted.add(other)
            _log.error(
                "state_differs",
                index=index,
                member=other,
                advice="both read their records again, and the one whose state is wrong stops; if none does, see "
                "'Replicas that differ' in docs/operations.md",
            )
        self.scrub.hasten(self._clock())

    # Snapshots

    def _on_snapshot_offer(self, node_id: str, message: SnapshotOffer) -> None:
        if not self._from_leader(node_id, message.term):
            self._send(node_id, SnapshotProgress(self.term, message.id, message.attempt, 0))
        elif not self._needs_no_snapshot(message.at):
            self._receiver.offered(node_id, message)

    def _on_snapshot_chunk(self, node_id: str, message: SnapshotChunk) -> None:
        if not self._from_leader(node_id, message.term):
            self._send(node_id, SnapshotProgress(self.term, message.id, 0, 0))
        else:
            self._receiver.received(node_id, message)

    def _needs_no_snapshot(self, at: Position) -> bool:
        """Whether the own log leads to a snapshot's position. What a snapshot holds is committed; that moves the own
        commit index only where the digests show that both logs are the same up to there."""
        if at.index <= self.commit:
            return True
        if reaches(self.log, at):
            self.commit = at.index
            self._wake()
            return True
        return False

    def _install_snapshot(self, ready: Receiving) -> None:
        """Exchange the state and begin the log anew, unless the log has overtaken the snapshot."""
        at = ready.restart.at
        if self._needs_no_snapshot(at):
            self._receiver.drop()
            return
        if self._jobs:
            return
        self._follow(self.term, self.leader_id)
        self._campaign.end()
        self.scrub.abandon()
        self.commit = self.applied = at.index
        changed = install(ready, journal=self.log, machine=self.machine, home=self._home)
        self._receiver.installed()
        _log.info("snapshot_installed", index=at.index, term=at.term)
        self._state_exchanged(at.index, changed)
