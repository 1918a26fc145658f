"""Trimming the log: only what every member has, what this node's state machine has applied *and made durable*, and
never the tail that members need who come back from a restart.

Until snapshots exist, nothing else is trimmed: a member that is away for long holds the log of all the others.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.outbox import RunJob
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.cluster.raft.timing import Limits

_log = structlog.get_logger(__name__)


class Trimmer:
    """Trims one node's log, a step at a time. on_failure: the state machine's sync failed."""

    def __init__(
        self,
        journal: Journal,
        machine: StateMachine,
        limits: Limits,
        *,
        run_job: RunJob,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._journal = journal
        self._machine = machine
        self._limits = limits
        self._run_job = run_job
        self._on_failure = on_failure
        self._held_by_all = 0
        self._running = False

    def held_by_all(self, index: int) -> None:
        """Every member has the log up to `index` durably (the leader says so). Falls when a member is added."""
        self._held_by_all = index

    def step(self) -> None:
        """Start to trim if there is enough to trim."""
        if self._running:
            return
        base = self._journal.base.index
        floor = self._floor()
        few = floor - base < self._limits.trim_step
        if floor <= base or (few and self._journal.size_between(base, floor) < self._limits.trim_step_bytes):
            return
        to_index = min(floor, base + self._limits.trim_max)
        self._running = True
        # What has been applied by now becomes durable with this sync; it includes everything up to `to_index`.
        self._run_job(self._machine.sync, lambda error: self._state_is_durable(to_index, error))

    def _floor(self) -> int:
        """What may go by what is known now. The tail is counted from the highest index that could go."""
        held = min(self._held_by_all, self._machine.applied.index, self._journal.synced)
        return self._journal.before_tail(held, count=self._limits.log_tail, bytes_max=self._limits.log_tail_bytes)

    def _state_is_durable(self, to_index: int, error: BaseException | None) -> None:
        self._running = False
        if error is not None:
            self._on_failure(error)
            return
        # A member that was added while the sync ran needs the log from its beginning.
        to_index = min(to_index, self._floor())
        if to_index > self._journal.base.index:
            self._journal.compact(to_index)
            _log.info("log_trimmed", first_index=to_index + 1, last_index=self._journal.last_index)
