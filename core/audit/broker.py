"""The audit broker: every entry is with a device before anything follows from it.

A request is recorded twice: when it is decided whether it may be done, before it is evaluated; and when its outcome is
known, before it is answered. When devices are set up and none of them takes an entry in time, the request fails
(fail closed). One device that is slow or dead delays nobody while another one answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from holdfast.core.audit.entries import AuditEntry
from holdfast.proto.errors import AuditFailed
from holdfast.storage.transaction import Transaction

DEVICE_DEADLINE_S = 2.0
"""How long a device may take over one entry, in seconds."""

PENDING_PER_DEVICE_MAX = 1024
"""How many entries may be under way to one device; above it, the device counts as failed at once."""


class AuditDevice(Protocol):
    """Somewhere that entries are kept."""

    @property
    def name(self) -> str:
        """Names the device in metrics and logs."""
        ...

    async def record(self, entry: AuditEntry) -> None:
        """Keep an entry durably, or raise. May be cancelled when its deadline passes."""
        ...


FailureListener = Callable[[str, str], None]
"""Told of a device that did not take an entry: its name, and the class name of what went wrong."""


class AuditSource(Protocol):
    """Where a request finds the devices that are enabled as it is evaluated."""

    async def current(self, txn: Transaction) -> AuditBroker:
        """The broker over the devices that `txn` sees enabled."""
        ...


class AuditBroker:
    """Takes entries to every device. on_failure: for metrics and logs. on_outage: told when none
    of them took an entry. Neither may block."""

    def __init__(
        self,
        devices: Sequence[AuditDevice] = (),
        *,
        deadline_s: float = DEVICE_DEADLINE_S,
        on_failure: FailureListener | None = None,
        on_outage: Callable[[], None] | None = None,
    ) -> None:
        if len({device.name for device in devices}) != len(devices):
            raise ValueError("two audit devices have one name")
        self._devices = tuple(devices)
        self._deadline_s = deadline_s
        self._on_failure = on_failure
        self._on_outage = on_outage
        self._pending: dict[str, set[asyncio.Task[bool]]] = {device.name: set() for device in devices}

    async def current(self, txn: Transaction) -> AuditBroker:  # noqa: ARG002  (AuditSource's form)
        """This broker: its devices are fixed."""
        return self

    @property
    def active(self) -> bool:
        """Whether there is any device."""
        return bool(self._devices)

    async def record(self, entry: AuditEntry) -> None:
        """Return as soon as one device has the entry; the others go on within their own deadlines.

        Raises AuditFailed when no device took it."""
        if not self._devices:
            return
        waiting = {task for device in self._devices if (task := self._begin(device, entry)) is not None}
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if any(task.result() for task in done if not task.cancelled()):
                return
        if self._on_outage is not None:
            self._on_outage()
        raise AuditFailed("no audit device recorded the request in time: see to the audit devices, then try again")

    async def close(self) -> None:
        """Wait for the entries under way; each ends within its deadline."""
        pending = [task for tasks in self._pending.values() for task in tasks]
        await asyncio.gather(*pending, return_exceptions=True)

    def _begin(self, device: AuditDevice, entry: AuditEntry) -> asyncio.Task[bool] | None:
        tasks = self._pending[device.name]
        if len(tasks) >= PENDING_PER_DEVICE_MAX:
            self._failed(device, "Overloaded")
            return None
        task = asyncio.create_task(self._deliver(device, entry))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    async def _deliver(self, device: AuditDevice, entry: AuditEntry) -> bool:
        try:
            async with asyncio.timeout(self._deadline_s):
                await device.record(entry)
        except Exception as error:  # noqa: BLE001  (a plug-in: whatever it raises, the entry is not recorded)
            self._failed(device, type(error).__name__)
            return False
        return True

    def _failed(self, device: AuditDevice, error: str) -> None:
        if self._on_failure is not None:
            self._on_failure(device.name, error)

    def __repr__(self) -> str:
        return f"<AuditBroker devices={len(self._devices)}>"
