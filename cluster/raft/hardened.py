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

from holdfast.cluster.raft import membership, restoring
from holdfast.cluster.raft.asking import Asking
from holdfast.cluster.raft.changes import MemberChanges, OnChangeDone
from holdfast.cluster.raft.consensus import Role
from holdfast.cluster.raft.copying import Copier, OnCopied
from holdfast.cluster.raft.entries import Entry, Kind, follow, join_batches
from holdfast.cluster.raft.following import FollowingNode
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
from holdfast.cluster.raft.outbox import RunJob
from holdfast.cluster.raft.piloting import Piloting
from holdfast.cluster.raft.proposals import OnDone, Proposal, Proposals, not_leader, outcome_unknown
from holdfast.cluster.raft.reads import Barrier, Barriers, OnBarrier
from holdfast.cluster.raft.restoring import Restoration, Restores
from holdfast.cluster.raft.sending import SnapshotSender
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.cluster.raft.timing import Limits, Timing
from holdfast.cluster.raft.transport import LinksTransport
from holdfast.proto.errors import Conflict, Fatal, HoldfastError, NoLeader
from holdfast.storage.home import Reception, StateHome

OnApplied = Callable[[int, Sequence[bytes]], None]
"""Told the index applied and the keys that changed."""

_log = structlog.get_logger(__name__)


class HardenedRaft(FollowingNode):
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
        on_content_wanted: Callable[[bytes], None] = lambda _sha256: None,
        on_replaced: Callable[[bool], None] = lambda _keys_replaced: None,
    ) -> None:
        self.restores = Restores(on_content_wanted)
        self._sender: SnapshotSender | None = None
        self._on_applied = on_applied
        self.started_s = clock()
        self._transfer_due_s = float("-inf")
        self._members_told: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        self._appended = False
        self.proposals = Proposals(
            queue_count=limits.queue_count, queue_bytes=limits.queue_bytes,
            group_count=limits.group_count, group_bytes=limits.group_bytes,
        )  # fmt: skip
        self.barriers = Barriers(count_max=limits.reads, first_question=rng.getrandbits(62))
        super().__init__(
            node_id, journal=journal, machine=machine, home=home, transport=transport, timing=timing, limits=limits,
            clock=clock, rng=rng, run_job=run_job, wake=wake, new_question=self.barriers.new_question,
        )  # fmt: skip
        self._changes = MemberChanges(journal, timing, self._append_members)
        self.piloting = Piloting(node_id, journal, self._changes, timing, clock)
        self._on_replaced = on_replaced
        self._keys_replaced_at = machine.keys_replaced_at
        self._copier = Copier(home, machine, self._run_job, purpose="backup", on_failure=self._sync_failed)
        self._asking = Asking(
            node_id, barriers=self.barriers, contact=self._contact, timing=timing, clock=clock,
            leader_id=lambda: self.leader_id, leadership=lambda: self.leadership, term=lambda: self.term,
            send=self._send, wake=wake,
        )  # fmt: skip
        self._handlers: dict[type[Message], Callable[[str, Any], None]] = {
            PreVote: self._on_pre_vote,
            PreVoteReply: self._on_pre_vote_reply,
            Vote: self._on_vote,
            VoteReply: self._on_vote_reply,
            Append: self._on_append,
            AppendReply: self._on_append_reply,
            Commit: self._on_commit,
            TimeoutNow: self._on_timeout_now,
            ReadIndex: self._asking.on_read_index,
            ReadIndexReply: self._asking.on_read_index_reply,
            SnapshotOffer: self._on_snapshot_offer,
            SnapshotChunk: self._on_snapshot_chunk,
            SnapshotProgress: self._on_snapshot_progress,
        }
        journal.configurations.on_change(self._members_changed)
        self._members_changed()
        if journal.configurations.voters == (node_id,):
            self.election_deadline_s = clock()  # the only voter waits for nobody

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
        if eligible != self._told_eligible:
            self.eligible = eligible
            self._wake()

    def change_members(self, change: Callable[[Configuration], Configuration], on_done: OnChangeDone) -> None:
        """Append a membership change at once. Raises NotLeader, Conflict, or what `change` raises."""
        self._check_usable()
        leadership = self.leadership
        if leadership is None:
            raise not_leader(self.leader_id)
        self._changes.begin(leadership, change, on_done)
        self._wake()

    def restore(self, restoration: Restoration, on_done: OnChangeDone) -> None:
        """Append the entry that replaces the state. Nothing else is proposed until it is applied; then this node stops
        leading, so that whoever knows something of the state begins anew. Raises NotLeader or Conflict."""
        self._check_usable()
        leadership = self.leadership
        if leadership is None:
            raise not_leader(self.leader_id)
        if not self.ready or leadership.transferring or self.restores.holds_proposals(self.applied):
            raise Conflict("a restore is under way, or leadership is changing hands; try again in a moment")
        if not self.restores.has(restoration.sha256):
            raise Conflict("another restore took the place of this one while it was prepared; try again")
        index = self._append_own(leadership, Kind.RESTORE, restoring.encode(restoration)).index
        self.restores.appended(index, on_done)
        self._wake()

    def prepare_content(self, sha256: bytes, content: Reception) -> None:
        """What a restore needs is prepared beside the state."""
        self.restores.prepare(sha256, content)
        self._wake()

    def copy_state(self, on_copied: OnCopied) -> None:
        """Copy the state for a file. Raises Conflict while that is being done."""
        self._check_usable()
        if self._copier.busy:
            raise Conflict("the state is being copied already; try again in a moment")
        self._copier.copy(on_copied)

    def transfer(self, target: str) -> None:
        """Begin to hand leadership to a member that `Leadership.successors` names."""
        assert self.leadership is not None, "only a leader hands leadership over"
        self.leadership.begin_transfer(target, self._clock())
        self._wake()

    def fail_all(self, error: Callable[[], HoldfastError], *, reads: Callable[[], HoldfastError] | None = None) -> None:
        """Resolve everything that waits: the node stops or has failed. reads: the error for reads, if another."""
        self._changes.fail(error)
        self.restores.fail(error)
        if self.leadership is not None:
            self.leadership.rounds.abandon()
        self.proposals.fail(queued=error, appended=error)
        self.barriers.fail(reads or error)

    def _check_usable(self) -> None:
        if self.failed is not None:
            raise self.failed
        self._check_quorum(self._clock())

    # State

    @property
    def eligible(self) -> bool:
        """Whether this node can serve as the active node: it was told so, and it waits for no content of a restore."""
        return self._told_eligible and not self.restores.wanted

    @eligible.setter
    def eligible(self, eligible: bool) -> None:
        self._told_eligible = eligible

    def is_connected(self, node_id: str) -> bool:
        """Whether there is a session with a member."""
        return node_id in self._connected

    @property
    def ready(self) -> bool:
        """Whether this node leads and has applied the no-op of its term."""
        return self.leadership is not None and self.applied >= self.leadership.noop_index

    @property
    def compared_index(self) -> int:
        """The latest index at which this node's state was found to be what a majority has; 0 before the first."""
        agreed = 0 if self.leadership is None else self.leadership.comparison.agreed.index
        return max(agreed, self._reporting.compared_index)

    def quorum_contact_age_s(self) -> float:
        """Seconds since this node knew itself to be in contact with a quorum; since its start when it never did."""
        now_s = self._clock()
        if self.leadership is not None:
            return max(0.0, now_s - self.leadership.quorum_contact_s(now_s))
        return max(0.0, now_s - self._contact.known_s)

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
        self._asking.step(now_s, self.applied)
        if self.role is Role.FOLLOWER:
            self._asking.prove_contact(now_s)
        self._compare_state()
        self.scrub.step(now_s)
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
        self.piloting.step(leadership, now_s)
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
        if leadership.compare_due(now_s):
            leadership.comparison.take(self._mark(self.applied), self.log.configurations.voters)
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
        leadership.follow_members(self._contacts.members(), self._connected, self._votes_sent_s)
        self._receiver.drop()
        self._sender = SnapshotSender(
            term=self.term, home=self._home, machine=self.machine, journal=self.log, timing=self._timing,
            limits=self._limits, rng=self._rng, run_job=self._run_job, send=self._send, wake=self._wake,
            on_failure=self._sync_failed,
        )  # fmt: skip
        self._contacts.forget_told()

    def _SyncObj__onBecomeLeader(self) -> None:  # noqa: N802
        """In place of pysyncobj's: the same, without its next and match tables and its wall clock."""
        self.leader_id = self.node_id
        self.set_role(Role.LEADER)
        self.log.add(bytes([Kind.NOOP]), self.log.last_index + 1, self.term)
        self._appended = True
        self._wake()

    def _leadership_ended(self, ended: Leadership) -> None:
        self._changes.fail(outcome_unknown)
        self.restores.fail(outcome_unknown)
        self._contact.had_while_leading(ended.quorum_contact_s(self._clock()))
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
            and not self.restores.holds_proposals(self.applied)
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
        if self.eligible or leadership.transferring or now_s < self._transfer_due_s:
            return
        if not self.ready and not self.restores.wanted:
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
            comparison = self.leadership.comparison
            if comparison.reported(node_id, message.state, self.log.configurations.voters):
                self._doubt(message.state.index, node_id)

    # Membership

    def _members_changed(self) -> None:
        contacts = self._contacts
        contacts.refresh()
        self.other_nodes = {self._links_transport.node(node_id) for node_id in contacts.addresses}
        if self.leadership is not None:
            self.leadership.follow_members(contacts.members(), self._connected, self._clock())
            self._trimmer.held_by_all(self.leadership.trim_index())
        self._links_transport.dial(contacts.addresses, contacts.guests)
        configurations = self.log.configurations
        told = (configurations.peers, configurations.voters)
        if told != self._members_told:
            self._members_told = told
            _log.info("members", members=list(configurations.peers), voters=list(configurations.voters))

    def _may_say(self, node_id: str, message: Message) -> bool:
        """Whether a message counts. A node that this log does not name may lead or stand all the same, for this log may
        be old (Raft thesis 4.1); but only while no leader is heard, so that a node that was removed disturbs none."""
        if self._contacts.is_familiar(node_id) or node_id == self.leader_id:
            return True
        return isinstance(message, Append | PreVote | Vote) and self.hears_no_leader

    def _append_members(self, configuration: Configuration) -> int:
        assert self.leadership is not None, "only a leader appends"
        return self._append_own(self.leadership, Kind.MEMBERSHIP, membership.encode(configuration)).index

    # Applying

    def _apply(self) -> None:
        """Apply a chunk of what is committed and durable here. Never beyond the synced log, so that after a crash the
        state is always a point on it."""
        until = min(self.commit, self.log.synced)
        if self.applied >= until or self._copier.copying or (self._sender is not None and self._sender.copier.copying):
            return
        count = min(until - self.applied, self._limits.apply_entries)
        entries = self.log.between(self.applied + 1, count=count, bytes_max=self._limits.apply_bytes)
        entries = restoring.before_restore(entries)
        if not entries:
            self._apply_restore(self.log.entry(self.applied + 1))
            return
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
        on_done = self._changes.applied(entry.index)
        if self.leadership is not None:
            self.leadership.tell_commit()
        self._members_changed()
        if on_done is not None:
            on_done(entry.index)

    def _apply_restore(self, entry: Entry) -> None:
        """Put the prepared content in the place of the state. A crash before it is in place leaves the old state, which
        comes to this entry again; one after it leaves the state as of this entry."""
        restoration = restoring.decode(entry)
        if not restoration.allowed(self.machine):
            self.machine.apply([entry])
            self.applied = entry.index
            _log.warning("restore_refused", index=entry.index)
            self.barriers.applied(self.applied)
            self.restores.refused(entry.index)
            self._wake()
            return
        content = self.restores.content(restoration)
        if content is None or self._jobs:
            return
        self.scrub.abandon()
        changed = restoring.exchange(content, machine=self.machine, home=self._home, entry=entry)
        self.applied = entry.index
        _log.warning("state_restored", index=entry.index, keys_replaced=restoration.replace_keys)
        self._run_job(self._home.tidy, self._tidied)
        self._state_exchanged(entry.index, changed)
        self.restores.done(entry.index)
        if self.leadership is not None:
            self.leadership.tell_commit()
            self._follow(self.term, "")
        self._wake()

    def _tidied(self, error: BaseException | None) -> None:
        if error is not None:
            self._sync_failed(error)

    def _state_exchanged(self, index: int, changed: Sequence[bytes]) -> None:
        """Whoever holds keys or anything else of the state before is told before anybody reads the new one."""
        before, self._keys_replaced_at = self._keys_replaced_at, self.machine.keys_replaced_at
        self.restores.passed()
        self._on_replaced(self._keys_replaced_at != before)
        self._on_applied(index, changed)
        self.barriers.applied(index)

    # Sending snapshots

    def _on_snapshot_progress(self, node_id: str, message: SnapshotProgress) -> None:
        if message.term > self.term:
            self._follow(message.term, "")
        elif self._sender is not None and message.term == self.term:
            self._sender.progressed(node_id, message, self._clock())

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
