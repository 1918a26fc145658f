"""The consensus machine of one node: pysyncobj's SyncObj with every safety-relevant step replaced.

Inputs are calls, messages and the time; outputs go through the transport, the journal, the state machine and callbacks.
No I/O but the stores' own, no thread, no timer: a driver (`node.py`, or the simulator) calls `doTick` often, and soon
whenever `wake` was called. Anything that raises Fatal leaves the machine unusable; the driver stops the node.
"""

from __future__ import annotations

import random  # noqa: TID251 - for the type; the generator is passed in
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from pysyncobj.node import Node

from holdfast.cluster.raft import membership
from holdfast.cluster.raft.consensus import Role
from holdfast.cluster.raft.entries import Entry, Kind, Position, follow, join_batches
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.leadership import Leadership
from holdfast.cluster.raft.membership import Configuration
from holdfast.cluster.raft.messages import (
    Append,
    AppendReply,
    Commit,
    Message,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    SnapshotChunk,
    SnapshotOffer,
    SnapshotProgress,
    TimeoutNow,
    Vote,
    VoteReply,
)
from holdfast.cluster.raft.outbox import Job, OnJobDone, RunJob
from holdfast.cluster.raft.proposals import OnDone, Proposal, Proposals, not_leader, outcome_unknown
from holdfast.cluster.raft.reads import Barrier, Barriers, OnBarrier
from holdfast.cluster.raft.receiving import Receiving, SnapshotReceiver
from holdfast.cluster.raft.replica import accept, reaches
from holdfast.cluster.raft.sending import SnapshotSender
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.cluster.raft.timing import Limits, Timing
from holdfast.cluster.raft.transport import LinksTransport
from holdfast.cluster.raft.trimming import Trimmer
from holdfast.cluster.raft.voting import VotingNode
from holdfast.proto.errors import Conflict, Corruption, Diverged, Fatal, HoldfastError, NoLeader
from holdfast.storage.home import StateHome
from holdfast.storage.keys import KeyClass

OnChangeDone = Callable[[int | HoldfastError], None]
"""Told the index of a membership change once it is applied, or why it failed."""

OnApplied = Callable[[int, Sequence[bytes]], None]
"""Told the index applied and the keys that changed."""

_log = structlog.get_logger(__name__)


class HardenedRaft(VotingNode):
    """See the module. Any method may call `wake`. Raises Corruption when journal and state disagree."""

    def __init__(
        self,
        node_id: str,
        *,
        journal: Journal,
        machine: StateMachine,
        home: StateHome,
        transport: LinksTransport,
        clock: Callable[[], float],
        rng: random.Random,
        run_job: RunJob,
        wake: Callable[[], None],
        on_applied: OnApplied,
        timing: Timing,
        limits: Limits,
    ) -> None:
        self.machine = machine
        self._home = home
        self._jobs = 0
        self._sender: SnapshotSender | None = None
        self._run_uncounted = run_job
        self._on_applied = on_applied
        self.started_s = clock()
        self._quorum_contact_s = self.started_s
        self._transfer_due_s = float("-inf")
        self._ask_due_s = float("-inf")
        self._contact_proved = False
        self._proof_question = -1
        self._proof_asked_s = self._proof_due_s = self.started_s
        self._appended = False
        self._contacts: dict[str, str] = {}
        self._callers: dict[str, str] = {}
        self._familiar: set[str] = set()
        self.proposals = Proposals(
            queue_count=limits.queue_count, queue_bytes=limits.queue_bytes,
            group_count=limits.group_count, group_bytes=limits.group_bytes,
        )  # fmt: skip
        self.barriers = Barriers(count_max=limits.reads, first_question=rng.getrandbits(62))
        self._changes: dict[int, OnChangeDone] = {}
        self._handlers: dict[type[Message], Callable[[str, Any], None]] = {
            PreVote: self._on_pre_vote,
            PreVoteReply: self._on_pre_vote_reply,
            Vote: self._on_vote,
            VoteReply: self._on_vote_reply,
            Append: self._on_append,
            AppendReply: self._on_append_reply,
            Commit: self._on_commit,
            TimeoutNow: self._on_timeout_now,
            ReadIndex: self._on_read_index,
            ReadIndexReply: self._on_read_index_reply,
            SnapshotOffer: self._on_snapshot_offer,
            SnapshotChunk: self._on_snapshot_chunk,
            SnapshotProgress: self._on_snapshot_progress,
        }
        super().__init__(
            node_id, journal=journal, transport=transport, timing=timing, limits=limits,
            clock=clock, rng=rng, run_job=self._run_job, wake=wake,
        )  # fmt: skip
        self._trimmer = Trimmer(journal, machine, limits, run_job=self._run_job, on_failure=self._sync_failed)
        self._receiver = SnapshotReceiver(
            home=home, run_job=self._run_job, send=self._send, term=lambda: self.term, wake=wake,
            on_failure=self._sync_failed,
        )  # fmt: skip
        self._reconcile()
        journal.configurations.on_change(self._members_changed)
        self._members_changed()
        if journal.configurations.voters == (node_id,):
            self.election_deadline_s = clock()  # the only voter waits for nobody

    def _reconcile(self) -> None:
        """The state machine may be behind the log (its writes are not synced) but must be a point on it. A snapshot's
        install that was cut short is finished where the state has been exchanged, and forgotten where it has not."""
        applied = self.machine.applied
        if self.log.announced is not None:
            if applied == self.log.announced.at:
                self.log.restart()
            else:
                self.log.give_up_restart()
            self.log.sync()
        at = self.log.at(applied.index)
        if at is None or (at.term, at.digest) != (applied.term, applied.digest):
            raise Corruption(
                f"the state stands at index {applied.index} (term {applied.term}), which is not on the log "
                f"({self.log.base.index} to {self.log.last_index}): files of different nodes or times were mixed; "
                "rebuild this node from its peers"
            )
        self.commit = self.applied = applied.index

    def _run_job(self, job: Job, on_done: OnJobDone) -> None:
        """Run a job in the worker, and know that it runs: the stores are exchanged only when nobody uses them."""
        self._jobs += 1

        def done(error: BaseException | None) -> None:
            self._jobs -= 1
            on_done(error)

        self._run_uncounted(job, done)

    # Inputs

    def propose(self, encoded: bytes, on_done: OnDone) -> Proposal:
        """Queue an encoded batch. Raises NotLeader or Overloaded, and the Fatal that ended the machine."""
        self._check_usable()
        if self.role is not Role.LEADER:
            raise not_leader(self.leader_id)
        proposal = self.proposals.add(encoded, on_done)
        self._wake()
        return proposal

    def read(self, on_done: OnBarrier) -> Barrier:
        """Wait for a read barrier. Raises Overloaded, and the Fatal that ended the machine."""
        self._check_usable()
        barrier = self.barriers.add(on_done)
        self._wake()
        return barrier

    def set_eligible(self, *, eligible: bool) -> None:
        """Whether this node can serve as the active node."""
        if eligible != self.eligible:
            self.eligible = eligible
            self._wake()

    def change_members(self, change: Callable[[Configuration], Configuration], on_done: OnChangeDone) -> None:
        """Append a membership change at once. Raises NotLeader, Conflict, or what `change` raises."""
        self._check_usable()
        leadership = self.leadership
        if leadership is None:
            raise not_leader(self.leader_id)
        configuration = change(self.log.configurations.current)
        if not self._members_settled(leadership):
            raise Conflict("another membership change is under way, or the leader is new; try again in a moment")
        self._changes[self._append_members(configuration)] = on_done
        self._wake()

    def transfer(self, target: str) -> None:
        """Begin to hand leadership to a member that `Leadership.successors` names."""
        assert self.leadership is not None, "only a leader hands leadership over"
        self.leadership.begin_transfer(target, self._clock())
        self._wake()

    def fail_all(self, error: Callable[[], HoldfastError], *, reads: Callable[[], HoldfastError] | None = None) -> None:
        """Resolve everything that waits: the node stops or has failed. reads: the error for reads, if another."""
        changes, self._changes = self._changes, {}
        for on_done in changes.values():
            on_done(error())
        if self.leadership is not None:
            self.leadership.rounds.abandon()
        self.proposals.fail(queued=error, appended=error)
        self.barriers.fail(reads or error)

    def _check_usable(self) -> None:
        if self.failed is not None:
            raise self.failed
        self._check_quorum(self._clock())

    # State

    def is_connected(self, node_id: str) -> bool:
        """Whether there is a session with a member."""
        return node_id in self._connected

    @property
    def ready(self) -> bool:
        """Whether this node leads and has applied the no-op of its term."""
        return self.leadership is not None and self.applied >= self.leadership.noop_index

    def quorum_contact_age_s(self) -> float:
        """Seconds since this node knew itself to be in contact with a quorum; since its start when it never did."""
        now_s = self._clock()
        if self.leadership is not None:
            return max(0.0, now_s - self.leadership.quorum_contact_s(now_s))
        return max(0.0, now_s - self._quorum_contact_s)

    # The tick

    def _onTick(self, timeToWait: float = 0.0) -> None:  # noqa: N802, N803, ARG002
        """One step, in place of pysyncobj's. `doTick` is its public name."""
        if self.failed is not None:
            raise self.failed
        now_s = self._clock()
        self._note_step(now_s)
        self._check_quorum(now_s)
        if self.role is not Role.LEADER and now_s >= self.election_deadline_s:
            self._election_due(now_s)
        committed = self.commit
        if self.leadership is not None:
            self._advance_commit(self.leadership)
        if self.commit > 1:
            self.log.note_founded()
        self._apply()
        if self.leadership is not None:
            self._drive_leadership(self.leadership, now_s, committed)
        self._ask_barriers(now_s)
        self._ask_for_proof(now_s)
        ready = self._receiver.ready
        if ready is not None:
            self._install_snapshot(ready)
        else:
            self._trimmer.step()
        self._outbox.flush()

    def _check_quorum(self, now_s: float) -> None:
        """A leader that is out of contact (or was stopped for a while) must not act as one, not even once."""
        if self.leadership is None:
            return
        contact_s = max(self.leadership.quorum_contact_s(now_s), self.leadership.began_s)
        if now_s - contact_s > self._timing.quorum_timeout_s:
            _log.warning("quorum_lost", term=self.term)
            self._follow(self.term, "")
        elif self._disk_is_stalled(now_s):
            _log.error("disk_stalled_leader_steps_down", term=self.term)
            self._follow(self.term, "")

    def _drive_leadership(self, leadership: Leadership, now_s: float, committed: int) -> None:
        if not self._removed():
            self._append_proposals(leadership)
        self._promote_learners(leadership, now_s)
        self._hand_over_if_ineligible(leadership, now_s)
        leadership.drive_transfer(now_s)
        if self._sender is not None:
            self._sender.step(leadership.progress, now_s)
            leadership.held_from = self._sender.holds_from
        if self._appended or leadership.broadcast_due(now_s):
            self._appended = False
            leadership.broadcast(now_s)
        elif self.commit > committed:
            leadership.tell_commit()
        leadership.confirm_reads()
        self._trimmer.held_by_all(leadership.trim_index())
        # Its own end is applied first, so that whoever asked for it is told. A disk that hangs ends this wait.
        if self._removed() and self.applied >= self.log.configurations.index:
            _log.info("leader_left_the_cluster", term=self.term)
            leadership.broadcast(now_s)
            self._follow(self.term, "")

    def _removed(self) -> bool:
        """Whether it is committed that this node does not vote."""
        return not self.is_voter and self.commit >= self.log.configurations.index

    # Leading

    def _leadership_began(self, leadership: Leadership) -> None:
        leadership.follow_members(self._member_ids(), self._connected, self._votes_sent_s)
        self._receiver.drop()
        self._sender = SnapshotSender(
            term=self.term, home=self._home, machine=self.machine, journal=self.log, timing=self._timing,
            limits=self._limits, rng=self._rng, run_job=self._run_job, send=self._send, wake=self._wake,
            on_failure=self._sync_failed,
        )  # fmt: skip
        self._forget_contacts()

    def _SyncObj__onBecomeLeader(self) -> None:  # noqa: N802
        """In place of pysyncobj's: the same, without its next and match tables and its wall clock."""
        self.leader_id = self.node_id
        self.set_role(Role.LEADER)
        self.log.add(bytes([Kind.NOOP]), self.log.last_index + 1, self.term)
        self._appended = True
        self._wake()

    def _leadership_ended(self, ended: Leadership) -> None:
        changes, self._changes = self._changes, {}
        for on_done in changes.values():
            on_done(outcome_unknown())
        self._quorum_contact_s = max(self._quorum_contact_s, ended.quorum_contact_s(self._clock()))
        ended.rounds.abandon()
        if self._sender is not None:
            sender, self._sender = self._sender, None
            sender.end()
        self.proposals.leadership_lost(self.leader_id)

    def _advance_commit(self, leadership: Leadership) -> None:
        self.commit = leadership.commit = max(self.commit, leadership.committable())

    def _append_proposals(self, leadership: Leadership) -> None:
        appended_bytes = 0
        while (
            self.proposals.queued
            and not leadership.transferring
            and self.proposals.uncommitted_bytes < self._limits.uncommitted_bytes
        ):
            if appended_bytes >= self._limits.tick_bytes:
                self._wake()
                return
            group = self.proposals.take_group()
            if group:
                payload = join_batches([proposal.encoded for proposal in group])
                entry = self._append_own(leadership, Kind.BATCHES, payload)
                self.proposals.appended(entry.index, entry.term, group)
                appended_bytes += len(payload)

    def _append_own(self, leadership: Leadership, kind: Kind, payload: bytes) -> Entry:
        time_ms = leadership.cluster_time_ms(self._clock())
        entry = follow(self.log.last, term=self.term, cluster_time_ms=time_ms, kind=kind, payload=payload)
        self.log.append(entry)
        self._appended = True
        return entry

    def _hand_over_if_ineligible(self, leadership: Leadership, now_s: float) -> None:
        if self.eligible or leadership.transferring or now_s < self._transfer_due_s or not self.ready:
            return
        successor = next((name for name in leadership.successors() if leadership.progress[name].eligible), "")
        if successor:
            self._transfer_due_s = now_s + self._timing.transfer_timeout_s + self._timing.transfer_backoff_s
            _log.info("ineligible_leader_hands_over", target=successor, term=self.term)
            leadership.begin_transfer(successor, now_s)

    def _on_append_reply(self, node_id: str, message: AppendReply) -> None:
        if message.term > self.term:
            self._follow(message.term, "")
        elif self.leadership is not None and message.term == self.term:
            self.leadership.replied(node_id, message)

    # Membership

    def _member_ids(self) -> set[str]:
        """The members in effect; while a change is not committed, also those it removes, so that they learn of it."""
        configurations = self.log.configurations
        ids = set(configurations.peers)
        if configurations.index > self.commit:
            ids.update(member.node_id for member in configurations.previous.members)
        return ids

    def _members_changed(self) -> None:
        configurations = self.log.configurations
        addresses = {m.node_id: m.cluster_address for m in configurations.previous.members}
        if configurations.index <= self.commit:
            addresses.clear()
        addresses.update((m.node_id, m.cluster_address) for m in configurations.current.members)
        if self._contacts.items() <= addresses.items():
            self._contacts = {}
        members = set(addresses)
        addresses |= self._contacts  # they come from logs that are newer than this one
        self._familiar = set(addresses)
        addresses = self._callers | addresses
        addresses.pop(self.node_id, None)
        self.other_nodes = {self._links_transport.node(node_id) for node_id in addresses}
        if self.leadership is not None:
            self.leadership.follow_members(self._member_ids(), self._connected, self._clock())
            self._trimmer.held_by_all(self.leadership.trim_index())
        self._links_transport.dial(addresses, addresses.keys() - members)
        _log.info("members", members=list(configurations.peers), voters=list(configurations.voters))

    def _meet(self, contacts: dict[str, str]) -> None:
        """Dial the members that this node's own log does not name yet, or names at another address (it is joining, or
        far behind)."""
        known = dict(self.log.configurations.current.contacts) | self._contacts
        if not contacts.items() <= known.items():
            together = self._contacts | contacts
            self._contacts = together if len(together) <= membership.MEMBERS_MAX else contacts
            self._members_changed()

    def _forget_contacts(self) -> None:
        """This node's own log names the leader and is as new, so it says who else there is."""
        if self._contacts:
            self._contacts = {}
            self._members_changed()

    def _call_back(self, node_id: str, address: str) -> None:
        """A candidate asks that this node's log does not name: dial it, so that it can be answered. Forgotten when a
        leader is heard."""
        room = node_id in self._callers or len(self._callers) < membership.MEMBERS_MAX
        if node_id not in self._familiar and address and self._callers.get(node_id) != address and room:
            self._callers[node_id] = address
            self._members_changed()

    def _forget_callers(self) -> None:
        if self._callers:
            self._callers = {}
            self._members_changed()

    def _may_say(self, node_id: str, message: Message) -> bool:
        """Whether a message counts. A node that this log does not name may lead or stand all the same, for this log may
        be old (Raft thesis 4.1); but only while no leader is heard, so that a node that was removed disturbs none."""
        if node_id in self._familiar or node_id == self.leader_id:
            return True
        return isinstance(message, Append | PreVote | Vote) and self.hears_no_leader

    def _members_settled(self, leadership: Leadership) -> bool:
        """Whether a membership change may be appended: the term's no-op and the change before are committed."""
        return leadership.read_ready and self.log.configurations.index <= self.commit

    def _append_members(self, configuration: Configuration) -> int:
        assert self.leadership is not None, "only a leader appends"
        return self._append_own(self.leadership, Kind.MEMBERSHIP, membership.encode(configuration)).index

    def _promote_learners(self, leadership: Leadership, now_s: float) -> None:
        current = self.log.configurations.current
        if not current.promoting or not self._members_settled(leadership):
            return
        for node_id in current.promoting:
            progress = leadership.progress.get(node_id)
            within_s = self._timing.election_min_s
            if progress is not None and progress.kept_up(self.commit, now_s, within_s=within_s) and progress.connected:
                _log.info("learner_promoted", member=node_id)
                self._append_members(current.promoted(node_id))
                return

    # Following

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
            self._distrust_contact(now_s)
        self.leader_heard_s = now_s
        self._put_off_election(self.leader_heard_s)
        return True

    def _on_append(self, node_id: str, message: Append) -> None:
        if not self._from_leader(node_id, message.term):
            self._reply(node_id, AppendReply(self.term, False, 0, 0, 0, self.eligible), settled=True)
            return
        self._campaign.end()
        if self._contact_proved:
            self._quorum_contact_s = max(self._quorum_contact_s, self.leader_heard_s - message.quorum_age_ms / 1000)
        if message.contacts:
            self._meet(dict(message.contacts))
        self._forget_callers()
        if message.commit > 1:
            self.log.note_founded()
        if not self.log.vouched and self.voted_for is None:
            self.set_term(self.term, node_id)  # the disk before may have voted in this term
        verdict = accept(self.log, self.commit, message)
        if not verdict.accepted:
            reply = AppendReply(self.term, False, verdict.index, message.prev_index, message.stamp, self.eligible)
            self._reply(node_id, reply, settled=True)
            return
        if not self.log.vouched and self.log.last.term == self.term:
            self.log.vouch()
            _log.info("new_disk_brought_up_to_date", member=self.node_id, last_index=self.log.last_index)
        if not message.contacts and verdict.index >= message.commit and node_id in self.log.configurations.peers:
            self._forget_contacts()
        self.commit = max(self.commit, min(message.commit, verdict.index))
        self._trimmer.held_by_all(message.trim)
        # A heartbeat is answered with what is durable by now: reads and contact need not wait for the disk.
        index = verdict.index if message.entries else min(verdict.index, self.log.synced)
        reply = AppendReply(self.term, True, index, 0, message.stamp, self.eligible)
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

    # Contact

    def _distrust_contact(self, now_s: float) -> None:
        """A leader is heard after a silence. What is heard may be old: it may have waited on the way, or in a socket
        while this process was stopped. Heartbeats count as contact again once a question asked from now on has been
        answered, which takes a quorum; and what a session brings after that answer was sent after it."""
        self._contact_proved = False
        self._proof_question = self.barriers.new_question()
        self._proof_asked_s = self._proof_due_s = now_s

    def _ask_for_proof(self, now_s: float) -> None:
        if self._contact_proved or self.role is not Role.FOLLOWER or not self.leader_id or now_s < self._proof_due_s:
            return
        sent = self._send(self.leader_id, ReadIndex(self.term, self._proof_question))
        self._proof_due_s = now_s + (self._timing.quorum_timeout_s if sent else self._timing.heartbeat_s)

    def _proof_answered(self, index: int | None) -> None:
        if index is None:
            self._proof_due_s = self._clock() + self._timing.heartbeat_s
        else:
            self._contact_proved = True
            self._quorum_contact_s = max(self._quorum_contact_s, self._proof_asked_s)

    # Applying

    def _apply(self) -> None:
        """Apply a chunk of what is committed and durable here. Never beyond the synced log, so that after a crash the
        state is always a point on it."""
        until = min(self.commit, self.log.synced)
        if self.applied >= until or (self._sender is not None and self._sender.copying):
            return
        count = min(until - self.applied, self._limits.apply_entries)
        entries = self.log.between(self.applied + 1, count=count, bytes_max=self._limits.apply_bytes)
        try:
            chunk = self.machine.apply(entries)
        except Fatal:
            raise
        except Exception as error:
            raise Fatal(f"applying entries from {entries[0].index} on failed; the node must not carry on") from error
        self.applied = entries[-1].index
        for entry, outcomes in zip(entries, chunk.outcomes, strict=True):
            self.proposals.applied(entry.index, entry.term, outcomes)
            if entry.kind is Kind.MEMBERSHIP:
                self._member_change_applied(entry)
        self._on_applied(self.applied, chunk.changed)
        self.barriers.applied(self.applied)
        if self.applied < until:
            self._wake()

    def _member_change_applied(self, entry: Entry) -> None:
        on_done = self._changes.pop(entry.index, None)
        if self.leadership is not None:
            self.leadership.tell_commit()
        self._members_changed()
        if on_done is not None:
            on_done(entry.index)

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

    def _on_snapshot_progress(self, node_id: str, message: SnapshotProgress) -> None:
        if message.term > self.term:
            self._follow(message.term, "")
        elif self._sender is not None and message.term == self.term:
            self._sender.progressed(node_id, message, self._clock())

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
        """Exchange the state and begin the log anew, unless the log has overtaken the snapshot. A crash between any two
        steps leaves something that `_reconcile` understands."""
        at = ready.restart.at
        if self._needs_no_snapshot(at):
            self._receiver.drop()
            return
        if self._jobs:
            return
        self._follow(self.term, self.leader_id)
        self._campaign.end()
        changed = set(self.machine.keys(KeyClass.CLUSTER.value))
        self.log.announce_restart(ready.restart)
        self.log.sync()
        self._home.install(ready.reception)
        self.machine.adopt(self._home.store)
        assert self.machine.applied == at, "the snapshot was looked into when it had come"
        self.commit = self.applied = at.index
        self.log.restart()
        self.log.sync()
        self._receiver.installed()
        _log.info("snapshot_installed", index=at.index, term=at.term)
        changed.update(self.machine.keys(KeyClass.CLUSTER.value))
        self._on_applied(at.index, sorted(changed))
        self.barriers.applied(self.applied)

    # Reading

    def _ask_barriers(self, now_s: float) -> None:
        if self.leader_id and now_s >= self._ask_due_s:
            for question in self.barriers.unanswered(
                self.leader_id, now_s=now_s, patience_s=self._timing.quorum_timeout_s
            ):
                self._ask(question)
            fresh = self.barriers.ask(self.leader_id, now_s)
            if fresh is not None and not self._ask(fresh):
                self._ask_later(fresh)
        self.barriers.applied(self.applied)

    def _ask(self, question: int) -> bool:
        """Put a question to the leader. False when it cannot be reached."""
        if self.leadership is None:
            return self._send(self.leader_id, ReadIndex(self.term, question))
        self.leadership.rounds.ask((self.node_id, question), lambda index: self._answered(question, index))
        self._wake()
        return True

    def _answered(self, question: int, index: int | None) -> None:
        if index is None:
            self._ask_later(question)
        else:
            self.barriers.answer(question, index)

    def _ask_later(self, question: int) -> None:
        """The node asked cannot tell: its reads are put to the leader again, but not at once."""
        self._ask_due_s = self._clock() + self._timing.heartbeat_s
        self.barriers.answer(question, None)

    def _on_read_index(self, node_id: str, message: ReadIndex) -> None:
        if self.leadership is None:
            self._send(node_id, ReadIndexReply(self.term, message.question, None))
            return

        def answer(index: int | None) -> None:
            self._send(node_id, ReadIndexReply(self.term, message.question, index))

        self.leadership.rounds.ask((node_id, message.question), answer)

    def _on_read_index_reply(self, node_id: str, message: ReadIndexReply) -> None:  # noqa: ARG002
        if message.question == self._proof_question:
            self._proof_answered(message.index)
        else:
            self._answered(message.question, message.index)

    # Sessions and messages, as pysyncobj's transport calls them

    def _SyncObj__onMessageReceived(self, node: Node, message: Message) -> None:  # noqa: N802
        if self.failed is not None:
            return
        now_s = self._clock()
        self._note_step(now_s)
        self._check_quorum(now_s)
        if self._may_say(node.id, message):
            self._handlers[type(message)](node.id, message)
            self._wake()

    def _SyncObj__onNodeConnected(self, node: Node) -> None:  # noqa: N802
        self.connected_nodes.add(node)
        self._session_changed(node.id, up=True)

    def _SyncObj__onNodeDisconnected(self, node: Node) -> None:  # noqa: N802
        self.connected_nodes.discard(node)
        self._session_changed(node.id, up=False)

    def _session_changed(self, node_id: str, *, up: bool) -> None:
        if up:
            self._connected.add(node_id)
        else:
            self._connected.discard(node_id)
        progress = self.leadership.progress.get(node_id) if self.leadership is not None else None
        if progress is not None:
            progress.connected = up
            progress.reset()
        self._wake()


def no_leader(leader_id: str) -> NoLeader:
    """The error for a read barrier that was not reached in time."""
    if leader_id:
        return NoLeader("the leader did not confirm in time that this node's state is current; try again")
    return NoLeader("no leader is known: an election is under way or quorum is lost; try again")
