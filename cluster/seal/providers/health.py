"""How each provider did when this node last asked it: a table, pure."""

from __future__ import annotations

import msgspec

from holdfast.cluster.seal.providers.contract import Health
from holdfast.cluster.seal.providers.records import ProviderList, ProviderRecord


class ProviderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One provider as this node sees it.

    message: why it is not healthy; names files and addresses, so it is for operators. checked_s, succeeded_s: Unix time
    in seconds of the last attempt and of the last that succeeded, None when there was none in this process's life.
    duration_s: of the last attempt.
    """

    name: str
    type: str
    priority: int
    health: Health = Health.UNCHECKED
    message: str = ""
    checked_s: float | None = None
    succeeded_s: float | None = None
    duration_s: float = 0.0


class HealthTable:
    """The status of every provider there is."""

    def __init__(self) -> None:
        self._statuses: dict[str, tuple[ProviderRecord, ProviderStatus]] = {}

    @property
    def statuses(self) -> tuple[ProviderStatus, ...]:
        """In the order in which they are tried."""
        return tuple(status for _, status in self._statuses.values())

    def find(self, name: str) -> ProviderStatus | None:
        """The status of one."""
        return self._statuses[name][1] if name in self._statuses else None

    def keep(self, providers: ProviderList) -> None:
        """Make the table that of these providers. What was replaced under its name begins anew."""
        self._statuses = {record.name: (record, self._status(record)) for record in providers.providers}

    def tell(self, record: ProviderRecord, health: Health, message: str, *, now_s: float, duration_s: float) -> bool:
        """Take up the outcome of an attempt. Returns whether the health is another one than before. What is told of a
        provider that was removed or replaced meanwhile is dropped."""
        known, before = self._statuses.get(record.name, (None, None))
        if known != record or before is None:
            return False
        after = msgspec.structs.replace(
            before,
            health=health,
            message=message,
            checked_s=now_s,
            succeeded_s=now_s if health is Health.HEALTHY else before.succeeded_s,
            duration_s=duration_s,
        )
        self._statuses[record.name] = (record, after)
        return after.health is not before.health

    def _status(self, record: ProviderRecord) -> ProviderStatus:
        known, status = self._statuses.get(record.name, (None, None))
        if known == record and status is not None:
            return status
        return ProviderStatus(name=record.name, type=record.type, priority=record.priority)
