"""Receiving a snapshot: chunk after chunk into a folder beside the state, in the worker thread, until all of it is
there, durable and verified. When and how it is installed is not decided here (`following.py`,
`installing.py`).

A reception outlives lost sessions: an offer of the same snapshot is answered with what there is of it. Another offer
begins anew. Nothing here changes state, log or commit index.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from holdfast.cluster.raft.journal import Restart
from holdfast.cluster.raft.messages import (
    MalformedMessage,
    Message,
    SnapshotChunk,
    SnapshotOffer,
    SnapshotProgress,
)
from holdfast.cluster.raft.outbox import RunJob
from holdfast.cluster.raft.scrub import verify
from holdfast.cluster.raft.sending import check_of
from holdfast.cluster.raft.statedigest import Content
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.proto.errors import Corruption
from holdfast.storage.home import Reception, StateHome, checked_files

_log = structlog.get_logger(__name__)


class Receiving:
    """One snapshot on its way in. expected: the offset of the chunk to come. have: what has been written."""

    def __init__(self, sender: str, offer: SnapshotOffer, reception: Reception) -> None:
        self.sender = sender
        self.id = offer.id
        self.attempt = offer.attempt
        self.restart = Restart(offer.at, offer.members)
        self.state_digest = offer.state_digest
        self.size = sum(size for _, size in offer.files)
        self.reception = reception
        self.expected = 0
        self.have = 0
        self.verified = False


class SnapshotReceiver:
    """One node's receiving. send: to a member's session. term: the current one. on_failure: the disk refused."""

    def __init__(
        self,
        *,
        home: StateHome,
        run_job: RunJob,
        send: Callable[[str, Message], bool],
        term: Callable[[], int],
        wake: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._home = home
        self._run_job = run_job
        self._send = send
        self._term = term
        self._wake = wake
        self._on_failure = on_failure
        self._current: Receiving | None = None

    @property
    def ready(self) -> Receiving | None:
        """A snapshot that is complete, durable and verified."""
        return self._current if self._current is not None and self._current.verified else None

    def offered(self, sender: str, offer: SnapshotOffer) -> None:
        """A leader offers a snapshot that this node can use. Raises MalformedMessage."""
        current = self._current
        if current is None or (current.sender, current.id) != (sender, offer.id):
            self.drop()
            try:
                files = checked_files(offer.files)
            except ValueError as error:
                raise MalformedMessage(str(error)) from error
            if offer.at.index == 0 or offer.members.index > offer.at.index:
                raise MalformedMessage("an offer of a snapshot that cannot be")
            _log.info("snapshot_reception_begins", sender=sender, index=offer.at.index)
            current = self._current = Receiving(sender, offer, self._home.receive(files))
        current.attempt = offer.attempt
        # Chunks of an earlier attempt may be missing: what comes next is what was written last.
        self._tell(current)

    def _tell(self, current: Receiving) -> None:
        self._send(current.sender, SnapshotProgress(self._term(), current.id, current.attempt, current.have))

    def received(self, sender: str, chunk: SnapshotChunk) -> None:
        """A chunk. One that is not the next is ignored. Raises MalformedMessage for one that is damaged."""
        current = self._current
        if current is None or (current.sender, current.id, current.expected) != (sender, chunk.id, chunk.offset):
            return
        last = chunk.offset + len(chunk.data) == current.size
        if check_of(chunk.offset, chunk.data) != chunk.check or last != bool(chunk.digest):
            raise MalformedMessage("a chunk of a snapshot was damaged")
        if chunk.offset + len(chunk.data) > current.size or (not chunk.data and not last):
            raise MalformedMessage("a chunk that is not within its snapshot")
        current.expected += len(chunk.data)
        if last:
            current.expected += 1  # nothing comes after it, not even the same again
        write = current.reception.write
        self._run_job(lambda: write(chunk.data), lambda error: self._written(current, chunk, error))

    def _written(self, current: Receiving, chunk: SnapshotChunk, error: BaseException | None) -> None:
        if error is not None:
            self._on_failure(error)
            return
        current.have += len(chunk.data)
        if current is not self._current:
            return
        self._tell(current)
        if chunk.digest:
            self._run_job(lambda: _verify(current, chunk.digest), lambda error: self._finished(current, error))

    def _finished(self, current: Receiving, error: BaseException | None) -> None:
        if current is not self._current:
            return
        if isinstance(error, Corruption):
            # The leader offers it again, and the reception begins anew.
            _log.error("snapshot_was_damaged", sender=current.sender, message=error.message)
            self.drop()
        elif error is not None:
            self._on_failure(error)
        else:
            current.verified = True
            self._wake()

    def drop(self) -> None:
        """Forget what was received."""
        if self._current is not None:
            discard, self._current = self._current.reception.discard, None
            self._run_job(discard, self._dropped)

    def _dropped(self, error: BaseException | None) -> None:
        if error is not None:
            self._on_failure(error)

    def installed(self) -> None:
        """The snapshot that was ready is the state now."""
        assert self.ready is not None, "what is installed was ready"
        self._current = None
        self._run_job(self._home.tidy, self._dropped)


def _verify(current: Receiving, digest: bytes) -> None:
    """In the worker: make it durable, compare, open it as the node will, and read every record. Raises Corruption."""
    if current.reception.finish() != digest:
        raise Corruption("the SHA-256 over names, sizes and contents is another one than the leader's")
    store = current.reception.open()
    try:
        machine = StateMachine(store)
        if machine.applied != current.restart.at:
            raise Corruption("the state stands at another position than was said")
        if machine.state_digest != current.state_digest:
            raise Corruption("the state amounts to something else than was said")
        found = Content()
        found.add_all(machine.records())
        verify(found, machine.content)
        # RocksDB has replayed its log: what it wrote meanwhile is to be durable as well.
        store.sync()
    finally:
        store.close()
