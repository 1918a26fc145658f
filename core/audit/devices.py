"""The enabled audit devices of one node: opened when a request first sees them, closed when they go or the node seals.

Every request reads the table in its own transaction, so a request that was evaluated with a device is recorded by it,
and a write that was evaluated without one conflicts with its enabling. A device that cannot be opened here stays in
the table and takes nothing, so that requests fail (unless another device takes them) instead of going unrecorded.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping, Set
from datetime import datetime
from typing import Any

import structlog

from holdfast.core.audit.broker import AuditBroker, FailureListener
from holdfast.core.audit.entries import AuditEntry
from holdfast.core.audit.hashing import AUDIT_PREFIX, KEY_BYTES
from holdfast.core.audit.table import TABLE_PATH, Device, decode
from holdfast.core.plugin.auditing import AuditDeviceType, AuditSink, Chain, chain_mac
from holdfast.core.plugin.times import rfc3339
from holdfast.proto.errors import AuditFailed, Corruption, FailedPrecondition, HoldfastError
from holdfast.storage.transaction import Transaction

REOPEN_S = 1.0
"""How long after a failure to open a device it is tried again, in seconds."""

_CHAIN_PURPOSE = b"holdfast/audit/chain/1"

log = structlog.stdlib.get_logger(__name__)


class _Enabled:
    """One enabled device. Opens itself with the first entry, and again some time after it could not be opened. after:
    closings under way, of which one may hold what this device is to open."""

    def __init__(
        self,
        path: str,
        device: Device,
        kind: AuditDeviceType | None,
        mac: Callable[[bytes], str],
        node_id: str,
        after: Set[asyncio.Task[None]] = frozenset(),
    ) -> None:
        self._path = path
        self.device = device
        self._kind = kind
        self._mac = mac
        self._node_id = node_id
        self._after = set(after)
        self._opening = asyncio.Lock()
        self._sink: AuditSink | None = None
        self._again_at = 0.0
        self._closed = False

    @property
    def name(self) -> str:
        return self._path

    async def record(self, entry: AuditEntry) -> None:
        sink = self._sink or await self._open()
        await sink.write(entry.encode())

    async def _open(self) -> AuditSink:
        async with self._opening:
            if self._sink is not None:
                return self._sink
            if self._after:
                await asyncio.wait(self._after)
                self._after.clear()
            now = asyncio.get_running_loop().time()
            if self._closed or self._kind is None or now < self._again_at:
                raise AuditFailed("the audit device is not open")
            try:
                self._sink = await self._kind.open(self.device.options, Chain(self._mac), node_id=self._node_id)
            except (OSError, HoldfastError) as error:
                self._again_at = now + REOPEN_S
                log.error("audit_device_not_open", device=self._path, error=_said(error))
                raise
            return self._sink

    async def close(self) -> None:
        self._closed = True
        async with self._opening:
            if self._sink is not None:
                await self._sink.close()


class AuditDevices:
    """See the module. types: what can be enabled, by type. on_failure, on_outage: see AuditBroker."""

    def __init__(
        self,
        types: Mapping[str, AuditDeviceType],
        *,
        node_id: str,
        now: Callable[[], datetime],
        on_failure: FailureListener | None = None,
        on_outage: Callable[[], None] | None = None,
    ) -> None:
        self.types = types
        self._node_id = node_id
        self._now = now
        self._on_failure = on_failure
        self._on_outage = on_outage
        self._record: bytes | None = None
        self._enabled: dict[str, _Enabled] = {}
        self._broker = AuditBroker(())
        self._closing: set[asyncio.Task[None]] = set()

    async def current(self, txn: Transaction) -> AuditBroker:
        """See AuditSource. Raises Corruption when the table or the audit key is damaged."""
        record = await txn.get(TABLE_PATH)
        if record != self._record:
            mac = chain_mac(chain_key(await txn.view(AUDIT_PREFIX).get("key")))
            # One that read the table before it changed is evaluated again, and must not bring back the old table.
            if await txn.unchanged():
                self._adopt(record, mac)
        return self._broker

    def _adopt(self, record: bytes | None, mac: Callable[[bytes], str]) -> None:
        wanted = decode(record)
        before = self._enabled
        kept = {path: enabled for path, enabled in before.items() if enabled.device == wanted.get(path)}
        self._close_later(self._broker, [enabled for path, enabled in before.items() if path not in kept])
        self._enabled = {
            path: kept.get(path)
            or _Enabled(path, device, self.types.get(device.type), mac, self._node_id, after=self._closing)
            for path, device in wanted.items()
        }
        self._record = record
        self._broker = AuditBroker(
            tuple(self._enabled.values()), on_failure=self._on_failure, on_outage=self._on_outage
        )

    async def test(self, path: str, device: Device, mac: Callable[[bytes], str]) -> None:
        """Open a device on this node and have it take an entry, before it is enabled. Raises FailedPrecondition
        with the cause."""
        tried = _Enabled(path, device, self.types.get(device.type), mac, self._node_id)
        try:
            async with asyncio.timeout(5.0):
                await tried.record(self._event("audit_device_test", {"device": path}))
        except Exception as error:  # noqa: BLE001  (a plug-in: whatever it raises, the device is of no use)
            raise FailedPrecondition(f"the device took no entry on this node: {_said(error)}") from None
        finally:
            await tried.close()

    async def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Record what the node did by itself, with the devices that are open. Never raises: what has happened cannot be
        refused any more."""
        await self._tell(self._broker, self._event(name, data))

    def sealed(self, reason: str) -> None:
        """The node is sealed: record it, close the devices and drop what was decrypted. Returns at once."""
        broker, devices = self._broker, list(self._enabled.values())
        self._record, self._enabled, self._broker = None, {}, AuditBroker(())
        if devices:
            self._close_later(broker, devices, self._event("sealed", {"reason": reason}))

    async def close(self) -> None:
        """Close the devices when the entries under way have ended."""
        await self._end(self._broker, list(self._enabled.values()), None)
        while self._closing:
            await asyncio.wait(set(self._closing))

    def _close_later(self, broker: AuditBroker, devices: list[_Enabled], last: AuditEntry | None = None) -> None:
        if devices:
            task = asyncio.ensure_future(self._end(broker, devices, last))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _end(self, broker: AuditBroker, devices: list[_Enabled], last: AuditEntry | None) -> None:
        if last is not None:
            await self._tell(broker, last)
        await broker.close()
        for device in devices:
            await device.close()

    async def _tell(self, broker: AuditBroker, entry: AuditEntry) -> None:
        try:
            await broker.record(entry)
        except AuditFailed:
            log.error("event_not_audited", event_name=entry.operation)

    def _event(self, name: str, data: Mapping[str, Any]) -> AuditEntry:
        return AuditEntry(
            type="event", time=rfc3339(self._now()), operation=name, node_id=self._node_id, data=dict(data)
        )

    def __repr__(self) -> str:
        return f"<AuditDevices enabled={len(self._enabled)}>"


def chain_key(audit_key: bytes | None) -> bytes:
    """The key of the chains, out of the cluster's audit key. Raises Corruption when that is missing."""
    if audit_key is None or len(audit_key) != KEY_BYTES:
        raise Corruption("the audit key is missing or damaged: restore this cluster from a snapshot")
    return hmac.digest(audit_key, _CHAIN_PURPOSE, "sha256")


def _said(error: BaseException) -> str:
    if isinstance(error, HoldfastError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
