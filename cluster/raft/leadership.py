"""What a node knows only while it leads: its followers' progress, the read rounds, the clock of the cluster, a transfer
under way. Made when a term is won and dropped when it ends, so that nothing of one term can leak into another.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

import structlog

from holdfast.cluster.raft.autopilot import Autopilot
from holdfast.cluster.raft.comparing import Comparison
from holdfast.cluster.raft.entries import Entry, Position
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.messages import Append, AppendReply, Commit, MalformedMessage, Message, TimeoutNow
from holdfast.cluster.raft.progress import Mode, Progress
from holdfast.cluster.raft.quorum import reached_by_majority
from holdfast.cluster.raft.reads import ReadRounds
from holdfast.cluster.raft.timing import Limits, Timing

Send = Callable[[str, Message], bool]

_log = structlog.get_logger(__name__)
_STAMPS_PER_S = 1_000_000


class Transfer(enum.Enum):
    """Where a leadership transfer stands."""

    NONE = "none"
    CATCHING_UP = "catching up"
    ASKED = "asked"


class Leadership:
    """One term of leading.

    noop_index: the entry that begins the term; once it is committed, everything before it is known to be.
    send: hands a message to a member's session; False when it was dropped.
    """

    def __init__(
        self, *, self_id: str, term: int, journal: Journal, timing: Timing, limits: Limits, now_s: float, send: Send
    ) -> None:
        self._self_id = self_id
        self._term = term
        self._journal = journal
        self._timing = timing
        self._limits = limits
        self._send = send
        self.began_s = now_s
        self._began_cluster_ms = journal.last.cluster_time_ms
        self._stamp = 0
        self._age_ms = 0
        self._heartbeat_due_s = now_s
        self._shared: tuple[tuple[int, ...], Append] | None = None
        self._transfer = Transfer.NONE
        self._transfer_deadline_s = 0.0
        self.transfer_target = ""
        self.successor_was_asked = False
        """Whether the successor of the latest transfer was asked to campaign: it may, even when this is given up."""
        self.noop_index = journal.last_index + 1
        self.commit = 0
        self.progress: dict[str, Progress] = {}
        self.rounds = ReadRounds()
        self.comparison = Comparison(self_id)
        self.autopilot = Autopilot(self_id, now_s)
        self._compare_due_s = now_s
        self.held_from: int | None = None
        """The log is kept from above this index on, for a snapshot that is being sent."""
        self._round_s = now_s

    def cluster_time_ms(self, now_s: float) -> int:
        """The stamp for an entry appended now: never falls, and owes nothing to wall clocks."""
        since_ms = int((now_s - self.began_s) * 1000)
        return max(self._began_cluster_ms + since_ms, self._journal.last.cluster_time_ms)

    def follow_members(self, node_ids: set[str], connected: set[str], contact_s: float) -> None:
        """Keep progress of these members, this node excepted, and of no others. contact_s: since when at the latest
        members that were not followed before count as heard."""
        for gone in self.progress.keys() - node_ids:
            del self.progress[gone]
        for node_id in sorted(node_ids - self.progress.keys() - {self._self_id}):
            progress = Progress(next=self._journal.last_index + 1, contact_s=contact_s)
            progress.connected = node_id in connected
            self.progress[node_id] = progress

    # What a majority of the voters has reached

    def _majority(self, own: int, of: Callable[[Progress], int]) -> int:
        values = [
            own if node_id == self._self_id else of(self.progress[node_id])
            for node_id in self._journal.configurations.voters
        ]
        return reached_by_majority(values)

    def unreached(self, node_ids: Iterable[str]) -> list[str]:
        """Those that are not known to hold an entry of this term. A new disk gives no vote before it does."""
        return [
            node_id
            for node_id in node_ids
            if node_id != self._self_id and self.progress[node_id].match < self.noop_index
        ]

    def committable(self) -> int:
        """The highest index that a majority holds durably, this node included only as far as it has synced. Only an
        entry of the own term commits by counting (Raft paper, section 5.4.2 and figure 8); `self.commit` otherwise."""
        index = self._majority(self._journal.synced, lambda progress: progress.match)
        if index > self.commit and self._journal.entry(index).term == self._term:
            return index
        return self.commit

    def quorum_contact_s(self, now_s: float) -> float:
        """When this node last knew itself to be in contact with a quorum, by its own clock."""
        contacts = [
            now_s if node_id == self._self_id else self.progress[node_id].contact_s
            for node_id in self._journal.configurations.voters
        ]
        return reached_by_majority(contacts)

    def confirm_reads(self) -> None:
        """Answer the questions whose round a quorum has echoed."""
        self.rounds.echoed(self._majority(self._stamp, lambda progress: progress.stamp))

    def trim_index(self) -> int:
        """The highest index that every member has durably which keeps up; the others will need a snapshot."""
        held = [progress.match for progress in self.progress.values() if self._keeps_up(progress)]
        return min([self._journal.synced, *held, *([] if self.held_from is None else [self.held_from])])

    def _keeps_up(self, progress: Progress) -> bool:
        """Whether the log is kept for a member: it was heard not long ago (or is new) and is not too far behind."""
        if progress.needs_snapshot or progress.contact_s < self._round_s - self._timing.away_s:
            return False
        last = self._journal.last_index
        if progress.match == 0:
            return True  # not known yet
        return (
            progress.match >= self._journal.base.index
            and last - progress.match <= self._limits.log_lag
            and self._journal.size_between(progress.match, last) <= self._limits.log_lag_bytes
        )

    # Replication

    @property
    def read_ready(self) -> bool:
        """Whether the own term's no-op is committed, so that the commit index is current."""
        return self.commit >= self.noop_index

    def broadcast_due(self, now_s: float) -> bool:
        """Whether a heartbeat or a read round is due."""
        return now_s >= self._heartbeat_due_s or (self.rounds.has_open and self.read_ready)

    def broadcast(self, now_s: float) -> None:
        """Begin a round: send every connected member what it misses, or a heartbeat."""
        self._round_s = now_s
        self._stamp = max(self._stamp + 1, int(now_s * _STAMPS_PER_S))
        self._heartbeat_due_s = now_s + self._timing.heartbeat_s
        if self.read_ready:
            self.rounds.begin(self._stamp, self.commit)
        self._age_ms = max(0, int((now_s - self.quorum_contact_s(now_s)) * 1000))
        for node_id, progress in self.progress.items():
            if progress.connected:
                self._replicate(node_id, progress, heartbeat=True)

    def tell_commit(self) -> None:
        """Let followers apply what was committed just now, without waiting for the next round."""
        entry = self._journal.at(self.commit)
        assert entry is not None, "what is being committed is in the log"
        for node_id, progress in self.progress.items():
            if progress.connected and progress.mode is Mode.PIPELINE:
                self._send(node_id, Commit(self._term, self.commit, entry.term))

    def _replicate(self, node_id: str, progress: Progress, *, heartbeat: bool) -> None:
        while True:
            message = self._append_for(node_id, progress)
            if not (message.entries or heartbeat) or not self._send(node_id, message):
                return
            if not message.entries:
                return
            progress.sent(message.entries[-1].index, sum(len(entry.payload) for entry in message.entries))
            heartbeat = False

    def _append_for(self, node_id: str, progress: Progress) -> Append:
        previous = self._journal.at(progress.next - 1)
        if previous is None:
            return self._append(self._without_log(node_id), (), probe=True)
        room = progress.has_room(
            window_bytes=self._limits.window_bytes, window_messages=self._limits.window_messages
        )  # fmt: skip
        probe = progress.mode is Mode.PROBE
        # Followers at the same place share one message, which is then encoded once.
        states = (self.comparison.sample.index, self.comparison.agreed.index)
        key = (self._stamp, self.commit, progress.next, self._journal.last_index, int(room), int(probe), *states)
        if self._shared is None or self._shared[0] != key:
            entries: tuple[Entry, ...] = ()
            if room and progress.next <= self._journal.last_index:
                entries = self._journal.between(progress.next, count=1024, bytes_max=self._limits.append_bytes)
            self._shared = (key, self._append(previous, entries, probe=probe))
        return self._shared[1]

    def _append(self, previous: Entry | Position, entries: tuple[Entry, ...], *, probe: bool) -> Append:
        return Append(
            term=self._term,
            prev_index=previous.index,
            prev_term=previous.term,
            prev_digest=previous.digest,
            commit=self.commit,
            stamp=self._stamp,
            trim=self.trim_index(),
            quorum_age_ms=self._age_ms,
            entries=entries,
            contacts=self._journal.configurations.current.contacts if probe else (),
            sample=self.comparison.sample,
            agreed=self.comparison.agreed,
        )

    def _without_log(self, node_id: str) -> Entry | Position:
        """The member needs entries that were trimmed, and will be sent a snapshot (`sending.py`). Until it has that, it
        is only kept in contact (the position sent is one that it cannot have)."""
        progress = self.progress[node_id]
        if not progress.needs_snapshot:
            progress.needs_snapshot = True
            _log.info(
                "member_needs_snapshot",
                member=node_id,
                needs_index=progress.next,
                first_index=self._journal.base.index + 1,
            )
        return self._journal.last

    def replied(self, node_id: str, reply: AppendReply) -> None:
        """A follower's reply of this term."""
        progress = self.progress.get(node_id)
        if progress is None:
            return
        if reply.stamp > self._stamp or (reply.accepted and reply.index > self._journal.last_index):
            raise MalformedMessage("an acknowledgement of something that was never sent")
        progress.eligible = reply.eligible
        progress.stamp = max(progress.stamp, reply.stamp)
        progress.contact_s = max(progress.contact_s, reply.stamp / _STAMPS_PER_S)
        if reply.accepted:
            progress.acknowledged(reply.index, self._stamp)
        before = progress.next
        if not reply.accepted:
            self._rejected(node_id, progress, reply)
        if progress.connected and progress.next <= self._journal.last_index:
            # A new place to try is tried at once; the same place again waits for the next round.
            self._replicate(node_id, progress, heartbeat=progress.next != before)

    def _rejected(self, node_id: str, progress: Progress, reply: AppendReply) -> None:
        knew = progress.lost_entries
        progress.rejected(reply.rejected, reply.index, reply.stamp)
        if progress.lost_entries and not knew:
            _log.error(
                "member_lost_acknowledged_entries",
                member=node_id,
                match_index=progress.match,
                advice="its data folder was replaced: remove it from the cluster and join it under a new node id",
            )

    # Comparing states

    def compare_due(self, now_s: float) -> bool:
        """Whether the replicas' states are to be compared again. Says so once for each time."""
        if now_s < self._compare_due_s:
            return False
        self._compare_due_s = now_s + self._timing.state_compare_s
        return True

    # Handing leadership over

    def begin_transfer(self, target: str, now_s: float) -> None:
        """Hold proposals back until `target` has the whole log, then ask it to campaign."""
        self.transfer_target = target
        self.successor_was_asked = False
        self._transfer = Transfer.CATCHING_UP
        self._transfer_deadline_s = now_s + self._timing.transfer_timeout_s

    @property
    def transferring(self) -> bool:
        """Whether proposals are held back for a transfer."""
        return self._transfer is not Transfer.NONE

    def drive_transfer(self, now_s: float) -> None:
        """Ask the target once it has caught up; give up when it takes too long."""
        if self._transfer is Transfer.NONE:
            return
        progress = self.progress.get(self.transfer_target)
        if progress is None or now_s >= self._transfer_deadline_s:
            _log.warning("leadership_transfer_gave_up", target=self.transfer_target)
            self._transfer, self.transfer_target = Transfer.NONE, ""
        elif (
            self._transfer is Transfer.CATCHING_UP
            and progress.match == self._journal.last_index
            and self._send(self.transfer_target, TimeoutNow(self._term))
        ):
            self._transfer = Transfer.ASKED
            self.successor_was_asked = True

    def successors(self) -> list[str]:
        """Voters that could lead next: connected and keeping up, the furthest first."""
        fit = [
            (-progress.match, node_id)
            for node_id, progress in self.progress.items()
            if node_id in self._journal.configurations.voters
            and progress.connected
            and progress.mode is Mode.PIPELINE
            and not progress.lost_entries
        ]
        return [node_id for _, node_id in sorted(fit)]
