"""Sending snapshots: what a leader does for members that need entries which it has trimmed.

One member is served at a time, from a copy of the state. The copy is made in the worker thread while nothing is
applied, so that its position is known; parts of it are read there too. The snapshot leaves in chunks, inside a window
that the member's acknowledgements move and no faster than the rate. A transfer without progress is offered again: the
answer tells what the member has, so that nothing is sent twice after a lost session.
"""

from __future__ import annotations

import random  # noqa: TID251 - for the type; the generator is passed in
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from holdfast.cluster.raft.copying import Copier
from holdfast.cluster.raft.entries import Position
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.membership import Step
from holdfast.cluster.raft.messages import Message, SnapshotChunk, SnapshotOffer, SnapshotProgress
from holdfast.cluster.raft.outbox import RunJob
from holdfast.cluster.raft.progress import Progress
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.cluster.raft.timing import Limits, Timing
from holdfast.storage.home import StateCopy, StateHome, digest_of_names

_log = structlog.get_logger(__name__)


def check_of(offset: int, data: bytes) -> int:
    """The checksum of a chunk."""
    return zlib.crc32(data, zlib.crc32(offset.to_bytes(8, "big")))


class Snapshot:
    """A copy of the state that is being sent. `read` runs in the worker, one at a time."""

    def __init__(self, identity: bytes, at: Position, state_digest: bytes, members: Step, copy: StateCopy) -> None:
        self.id = identity
        self.at = at
        self.state_digest = state_digest
        self.members = members
        self.copy = copy
        self.size = sum(size for _, size in copy.files)
        self._digest = digest_of_names(copy.files)
        self._digested = 0

    def read(self, offset: int, size: int) -> tuple[bytes, bytes]:
        """A part of the stream, and with its last part the digest of all of it."""
        data = self.copy.read(offset, size)
        assert offset <= self._digested, "a snapshot is read from its beginning"
        self._digest.update(data[self._digested - offset :])
        self._digested = max(self._digested, offset + len(data))
        return data, self._digest.digest() if offset + len(data) == self.size else b""


@dataclass
class _Transfer:
    """To one member. begun: it has answered the offer. acknowledged, next: offsets."""

    member: str
    attempt: int = 0
    begun: bool = False
    acknowledged: int = 0
    next: int = 0
    retry_due_s: float = float("-inf")


class SnapshotSender:
    """One term's sending. send: hands a message to a member's session. on_failure: the disk refused."""

    def __init__(
        self,
        *,
        term: int,
        home: StateHome,
        machine: StateMachine,
        journal: Journal,
        timing: Timing,
        limits: Limits,
        rng: random.Random,
        run_job: RunJob,
        send: Callable[[str, Message], bool],
        wake: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._term = term
        self.copier = Copier(home, machine, run_job, purpose="copy", on_failure=on_failure)
        self._journal = journal
        self._timing = timing
        self._limits = limits
        self._rng = rng
        self._run_job = run_job
        self._send = send
        self._wake = wake
        self._on_failure = on_failure
        self._snapshot: Snapshot | None = None
        self._transfer: _Transfer | None = None
        self._busy = False
        self._ended = False
        self._attempts = 0
        self._used_s = float("-inf")
        self._budget_bytes = 0.0
        self._budget_at_s = float("-inf")

    @property
    def holds_from(self) -> int | None:
        """The log must be kept from above this index on while a transfer is under way, or it would be for nothing."""
        return self._snapshot.at.index if self._snapshot is not None else None

    def step(self, progress: Mapping[str, Progress], now_s: float) -> None:
        """Go on with what there is to do."""
        waiting = {name: p for name, p in progress.items() if p.needs_snapshot and not p.lost_entries}
        heard_s = now_s - self._timing.away_s
        connected = [name for name, p in waiting.items() if p.connected and p.contact_s >= heard_s]
        if self._transfer is not None and self._transfer.member not in connected:
            _log.info("snapshot_transfer_ended", member=self._transfer.member)
            self._transfer = None
        if self._transfer is None and connected:
            self._transfer = _Transfer(min(connected))
        if self._busy or self.copier.busy:
            return
        # Whoever lost its session finds the same snapshot when it is back soon, and goes on where it was. But the log
        # is not held for ever for a snapshot that does not arrive.
        if self._snapshot is None:
            self._used_s = now_s
        if not waiting or now_s - self._used_s > self._timing.snapshot_keep_s:
            self._drop_snapshot()
        elif self._transfer is None:
            return
        elif self._snapshot is None:
            self.copier.copy(self._copied, wanted=lambda: not self._ended)
        elif self._snapshot.at.index < self._journal.base.index:
            self._drop_snapshot()
        else:
            self._go_on(self._snapshot, self._transfer, now_s)

    def _copied(self, at: Position, state_digest: bytes, copy: StateCopy) -> None:
        identity = self._rng.getrandbits(128).to_bytes(16, "big")
        self._snapshot = Snapshot(identity, at, state_digest, self._journal.configurations.at(at.index), copy)
        if self._ended:
            self._drop_snapshot()
            return
        _log.info("snapshot_made", index=at.index, size_bytes=self._snapshot.size)
        self._wake()

    def _drop_snapshot(self) -> None:
        if self._snapshot is not None:
            copy, self._snapshot = self._snapshot.copy, None
            self._transfer = None  # its offsets were this snapshot's
            self._run_job(copy.discard, self._done_with)

    def _done_with(self, error: BaseException | None) -> None:
        if error is not None:
            self._on_failure(error)

    def end(self) -> None:
        """The term of leading is over."""
        self._ended = True
        self._transfer = None
        if not self._busy and not self.copier.busy:
            self._drop_snapshot()

    # One transfer

    def _go_on(self, snapshot: Snapshot, transfer: _Transfer, now_s: float) -> None:
        if now_s >= transfer.retry_due_s:
            transfer.retry_due_s = now_s + self._timing.snapshot_retry_s
            transfer.begun = False
            self._attempts += 1
            transfer.attempt = self._attempts
            offer = SnapshotOffer(
                self._term, snapshot.id, transfer.attempt, snapshot.at, snapshot.members, snapshot.copy.files,
                snapshot.state_digest,
            )  # fmt: skip
            self._send(transfer.member, offer)
        in_flight = transfer.next - transfer.acknowledged
        if (
            transfer.begun
            and transfer.next < snapshot.size
            and in_flight < self._limits.snapshot_window_bytes
            and self._may_send(now_s)
        ):
            self._busy = True
            self._read(snapshot, transfer, transfer.next)

    def _may_send(self, now_s: float) -> bool:
        """A bucket that holds two chunks fills at the rate."""
        chunk = self._limits.snapshot_chunk_bytes
        filled = self._budget_bytes + max(0.0, now_s - self._budget_at_s) * self._timing.snapshot_bytes_per_s
        self._budget_bytes, self._budget_at_s = min(filled, 2 * chunk), now_s
        if self._budget_bytes < chunk:
            return False
        self._budget_bytes -= chunk
        return True

    def _read(self, snapshot: Snapshot, transfer: _Transfer, offset: int) -> None:
        parts: list[tuple[bytes, bytes]] = []

        def done(error: BaseException | None) -> None:
            self._busy = False
            if error is not None:
                self._on_failure(error)
            elif self._ended:
                self._drop_snapshot()
            elif self._transfer is transfer and transfer.begun and transfer.next == offset:
                data, digest = parts[0]
                chunk = SnapshotChunk(self._term, snapshot.id, offset, data, check_of(offset, data), digest)
                if self._send(transfer.member, chunk):
                    transfer.next = offset + len(data)
                self._wake()

        self._run_job(lambda: parts.append(snapshot.read(offset, self._limits.snapshot_chunk_bytes)), done)

    def progressed(self, member: str, message: SnapshotProgress, now_s: float) -> None:
        """The member says what it has."""
        transfer, snapshot = self._transfer, self._snapshot
        if (
            transfer is None
            or snapshot is None
            or (transfer.member, snapshot.id, transfer.attempt) != (member, message.id, message.attempt)
            or message.have > snapshot.size
        ):
            return
        if not transfer.begun:
            transfer.begun = True
            transfer.acknowledged = transfer.next = message.have
        elif message.have > transfer.acknowledged:
            transfer.acknowledged = message.have
            transfer.next = max(transfer.next, message.have)
        else:
            return
        self._used_s = now_s
        transfer.retry_due_s = now_s + self._timing.snapshot_retry_s
