"""What surrounds a node's audit devices: events that no request caused, failures, and a leader that cannot audit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import structlog

from holdfast.audit_devices.file import FileDevice
from holdfast.cluster.raft.consensus import Consensus, Role
from holdfast.core.audit.devices import AuditDevices
from holdfast.core.plugin.auditing import AuditDeviceType
from holdfast.proto.errors import HoldfastError
from holdfast.server.limits import TRANSFER_TIMEOUT_S
from holdfast.server.metrics import Metrics
from holdfast.storage.barrier import Barrier
from holdfast.storage.transaction import Transaction

DEVICE_TYPES: tuple[Callable[[], AuditDeviceType], ...] = (FileDevice,)
"""The registry of audit devices: a new one is a line here."""

STEP_DOWN_EVERY_S = 10.0
"""How often a leader that cannot audit tries to hand leadership on, in seconds."""

log = structlog.stdlib.get_logger(__name__)


class Auditing:
    """The audit devices of one node. barrier: the open barrier; raises Sealed. clock: monotonic seconds."""

    def __init__(
        self,
        *,
        node_id: str,
        consensus: Consensus,
        barrier: Callable[[], Barrier],
        metrics: Metrics,
        wall_clock: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self.devices = AuditDevices(
            {made.type: made for made in (make() for make in DEVICE_TYPES)},
            node_id=node_id,
            now=lambda: datetime.fromtimestamp(wall_clock(), UTC),
            on_failure=metrics.audit_failure,
            on_outage=self._outage,
        )
        self._consensus = consensus
        self._barrier = barrier
        self._clock = clock
        self._step_down_due_s = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()

    def event(self, name: str, **data: str) -> None:
        """Record what the node did by itself, soon. Nothing waits for it."""
        self._spawn(self._event(name, data))

    def sealed(self, reason: str) -> None:
        """See AuditDevices."""
        self.devices.sealed(reason)

    async def stop(self) -> None:
        """Let what is under way end, and close the devices."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        await self.devices.close()

    async def _event(self, name: str, data: dict[str, str]) -> None:
        with suppress(HoldfastError):  # sealed meanwhile: the devices that are open still, if any, take it
            await self.devices.current(Transaction(self._consensus, self._barrier()))
        await self.devices.event(name, data)

    def _outage(self) -> None:
        """No device took an entry. A leader in this state refuses every write of the cluster: another one may do."""
        if self._consensus.status().role is Role.LEADER and self._clock() >= self._step_down_due_s:
            self._step_down_due_s = self._clock() + STEP_DOWN_EVERY_S
            self._spawn(self._step_down())

    async def _step_down(self) -> None:
        try:
            heir = await self._consensus.transfer_leadership(timeout_s=TRANSFER_TIMEOUT_S)
            log.error("leader_cannot_audit", handed_leadership_to=heir)
        except HoldfastError as error:
            log.error("leader_cannot_audit", not_handed_on=error.reason)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
