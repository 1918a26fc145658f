"""The audit hook: every decision and every outcome is recorded before anything follows from it.

A request is recorded twice: when it is decided whether it may be done, before it is evaluated; and when its outcome is
known, before it is answered. When devices are set up and none of them takes an entry in time, the request fails
(fail closed). One device that is slow or dead delays nobody while another one answers.

Entries hold paths and the names of members, as Vault's do, because an audit without them answers nothing. Every string
and number given or answered, the token and its accessor are keyed hashes.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec

from holdfast.core.plugin import StorageView
from holdfast.core.plugin.times import rfc3339
from holdfast.core.request import Request, Response
from holdfast.core.tokens import TokenEntry
from holdfast.proto.errors import AuditFailed, Corruption, HoldfastError

AUDIT_PREFIX = "local/audit"

KEY_BYTES = 32

DEVICE_DEADLINE_S = 2.0
"""How long a device may take over one entry, in seconds."""

PENDING_PER_DEVICE_MAX = 1024
"""How many entries may be under way to one device; above it, the device counts as failed at once."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an audit log. `error`: the wire reason; empty when there was none. `response`: the hashed answer."""

    type: Literal["request", "response"]
    time: str
    request_id: str
    operation: str
    path: str
    remote_address: str = ""
    forwarded_by: str = ""
    token: str = ""
    accessor: str = ""
    display_name: str = ""
    policies: tuple[str, ...] = ()
    data: Any = None
    error: str = ""
    response: Any = None
    warnings: int = 0

    def __repr__(self) -> str:
        return f"<AuditEntry {self.type} request_id={self.request_id!r}>"


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


class AuditBroker:
    """Takes entries to every device. on_failure: for metrics and logs; must not block."""

    def __init__(
        self,
        devices: Sequence[AuditDevice] = (),
        *,
        deadline_s: float = DEVICE_DEADLINE_S,
        on_failure: FailureListener | None = None,
    ) -> None:
        if len({device.name for device in devices}) != len(devices):
            raise ValueError("two audit devices have one name")
        self._devices = tuple(devices)
        self._deadline_s = deadline_s
        self._on_failure = on_failure
        self._pending: dict[str, set[asyncio.Task[bool]]] = {device.name: set() for device in devices}

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


class Hasher:
    """Keyed hashes of sensitive values: equal values can be told, and a guess checked by who holds the key."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def hash(self, value: str) -> str:
        """ "hmac-sha256:" and hex digits, Vault's form; empty for an empty value."""
        if not value:
            return ""
        return "hmac-sha256:" + hmac.digest(self._key, value.encode(errors="surrogatepass"), "sha256").hex()

    def scrub(self, value: Any) -> Any:
        """A JSON value with every string and number hashed; names, booleans and null stay."""
        if isinstance(value, dict):
            return {name: self.scrub(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.scrub(item) for item in value]
        return value if value is None or isinstance(value, bool) else self.hash(str(value))

    def __repr__(self) -> str:
        return "<Hasher>"


def create_key(view: StorageView, random_bytes: Callable[[int], bytes]) -> None:
    """Make the cluster's audit key. Once, at bootstrap."""
    view.put("key", random_bytes(KEY_BYTES))


async def load_hasher(view: StorageView) -> Hasher:
    """Raises Corruption when an initialised cluster has no audit key."""
    key = await view.get("key")
    if key is None or len(key) != KEY_BYTES:
        raise Corruption("the audit key is missing or damaged: restore this cluster from a snapshot")
    return Hasher(key)


class AuditTrail:
    """The entries of one request: first its decision, then its outcome, each once."""

    def __init__(self, broker: AuditBroker, request: Request, now: Callable[[], datetime]) -> None:
        self._broker = broker
        self._request = request
        self._now = now
        self._hasher: Hasher | None = None
        self._decided = False
        self.token: TokenEntry | None = None
        """The entry of the request's token, once it is known."""

    async def prepare(self, view: StorageView) -> None:
        """Load the key, while there is one to be had."""
        if self._broker.active and self._hasher is None:
            self._hasher = await load_hasher(view)

    async def decision(self, error: HoldfastError | None = None) -> None:
        """Record, before evaluation, that the request was allowed, or why not. Raises AuditFailed."""
        if self._hasher is None or self._decided:
            return
        await self._record("request", error, None)
        self._decided = True

    async def outcome(self, *, response: Response | None = None, error: HoldfastError | None = None) -> None:
        """Record, before the reply, what came of it. Raises AuditFailed."""
        if self._hasher is None:
            return
        if not self._decided:
            await self.decision(error=error)
        await self._record("response", error, response)

    async def _record(
        self, kind: Literal["request", "response"], error: HoldfastError | None, response: Response | None
    ) -> None:
        assert self._hasher is not None
        request, token = self._request, self.token
        entry = AuditEntry(
            type=kind,
            time=rfc3339(self._now()),
            request_id=request.id,
            operation=request.operation.value,
            path=request.path,
            remote_address=request.remote_address,
            forwarded_by=request.forwarded_by,
            token=self._hasher.hash(request.token),
            accessor="" if token is None else self._hasher.hash(token.accessor),
            display_name="" if token is None else token.display_name,
            policies=() if token is None else token.policies,
            data=self._hasher.scrub(request.data),
            error="" if error is None else error.reason,
            response=None if response is None else self._hasher.scrub(response.data),
            warnings=0 if response is None else len(response.warnings),
        )
        await self._broker.record(entry)
