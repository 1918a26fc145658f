"""Batches on their way into the log: a bounded queue, group commit, and who waits for what.

A proposal is *queued* (nothing has happened), then *appended* (it may take effect), then *resolved*, exactly once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from holdfast.cluster.raft.consensus import Outcome
from holdfast.proto.errors import HoldfastError, NotLeader, OutcomeUnknown, Overloaded

OnDone = Callable[[Outcome | HoldfastError], None]
"""Told the outcome, once."""


class Proposal:
    """One encoded batch and who waits for it. taken: it has left the queue for the log."""

    __slots__ = ("_on_done", "abandoned", "encoded", "taken")

    def __init__(self, encoded: bytes, on_done: OnDone) -> None:
        self.encoded = encoded
        self.abandoned = False
        self.taken = False
        self._on_done: OnDone | None = on_done

    def resolve(self, result: Outcome | HoldfastError) -> None:
        """Tell the waiter; only the first call counts."""
        on_done, self._on_done = self._on_done, None
        if on_done is not None:
            on_done(result)

    def abandon(self) -> None:
        """The waiter's time is up. A proposal that is still queued is never appended, and its waiter is told so."""
        self.abandoned = True
        if self.taken:
            self.resolve(OutcomeUnknown("the write was not confirmed in time; retry it with the same request id"))
        else:
            self.resolve(Overloaded("the write was not taken in time; nothing was changed; back off and try again"))


def not_leader(leader_id: str) -> NotLeader:
    """The error for a proposal that was not appended."""
    return NotLeader(
        "this node does not lead the cluster; nothing was changed; ask the leader",
        details={"leader_id": leader_id} if leader_id else {},
    )


def outcome_unknown() -> OutcomeUnknown:
    """The error for a proposal whose fate this node can no longer tell."""
    return OutcomeUnknown(
        "leadership was lost while the write was being replicated; it may or may not take effect; "
        "retry it with the same request id"
    )


class Proposals:
    """The leader's proposals, from the queue to their outcomes."""

    def __init__(self, *, queue_count: int, queue_bytes: int, group_count: int, group_bytes: int) -> None:
        self._queue_count, self._queue_bytes_max = queue_count, queue_bytes
        self._group_count, self._group_bytes = group_count, group_bytes
        self._queue: deque[Proposal] = deque()
        self._queue_bytes = 0
        self._appended: dict[int, tuple[int, Sequence[Proposal]]] = {}
        self._appended_bytes: dict[int, int] = {}
        self.uncommitted_bytes = 0

    @property
    def queued(self) -> int:
        """Proposals that wait to be appended."""
        return len(self._queue)

    def add(self, encoded: bytes, on_done: OnDone) -> Proposal:
        """Queue a batch. Raises Overloaded when the queue is full."""
        full = self._queue_bytes + len(encoded) > self._queue_bytes_max and self._queue
        if len(self._queue) >= self._queue_count or full:
            raise Overloaded("the queue of writes is full; nothing was changed; back off and try again")
        proposal = Proposal(encoded, on_done)
        self._queue.append(proposal)
        self._queue_bytes += len(encoded)
        return proposal

    def take_group(self) -> list[Proposal]:
        """The next proposals that fit in one entry; empty when none is queued."""
        group: list[Proposal] = []
        size = 0
        while self._queue and len(group) < self._group_count:
            proposal = self._queue[0]
            if group and size + len(proposal.encoded) > self._group_bytes:
                break
            self._queue.popleft()
            self._queue_bytes -= len(proposal.encoded)
            if not proposal.abandoned:
                proposal.taken = True
                group.append(proposal)
                size += len(proposal.encoded)
        return group

    def appended(self, index: int, term: int, group: Sequence[Proposal]) -> None:
        """The group became the entry at (`index`, `term`)."""
        size = sum(len(proposal.encoded) for proposal in group)
        self._appended[index] = (term, group)
        self._appended_bytes[index] = size
        self.uncommitted_bytes += size

    def applied(self, index: int, term: int, outcomes: Sequence[Outcome]) -> None:
        """The entry at (`index`, `term`) was applied."""
        appended_term, group = self._appended.pop(index, (0, ()))
        self.uncommitted_bytes -= self._appended_bytes.pop(index, 0)
        if not group:
            return
        if appended_term != term:
            for proposal in group:
                proposal.resolve(outcome_unknown())
            return
        assert len(group) == len(outcomes), "an entry has an outcome for each of its batches"
        for proposal, outcome in zip(group, outcomes, strict=True):
            proposal.resolve(outcome)

    def leadership_lost(self, leader_id: str) -> None:
        """What is queued was not appended; what was appended may take effect under another leader."""
        self.fail(queued=lambda: not_leader(leader_id), appended=outcome_unknown)

    def fail(self, *, queued: Callable[[], HoldfastError], appended: Callable[[], HoldfastError]) -> None:
        """Resolve everything."""
        waiting, self._queue, self._queue_bytes = self._queue, deque(), 0
        entries, self._appended, self._appended_bytes = self._appended, {}, {}
        self.uncommitted_bytes = 0
        for _, group in entries.values():
            for proposal in group:
                proposal.resolve(appended())
        for proposal in waiting:
            proposal.resolve(queued())
