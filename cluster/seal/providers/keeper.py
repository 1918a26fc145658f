"""What a node does with its providers by itself: checks them while it is unsealed, tries them while it is sealed.

A check opens the stored wrap, as an unsealing would: nothing less shows that a provider will serve when it is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from holdfast.cluster.peer.tasks import Tasks
from holdfast.cluster.raft.consensus import Consensus
from holdfast.cluster.seal.providers.contract import Health, ProviderError
from holdfast.cluster.seal.providers.health import HealthTable, ProviderStatus
from holdfast.cluster.seal.providers.records import PROVIDERS_KEY, ProviderList, ProviderRecord
from holdfast.cluster.seal.providers.wraps import ProviderWraps
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.state import SealStatus
from holdfast.proto.errors import FailedPrecondition, Fatal, NotFound, Unavailable

CHECKS_AT_ONCE = 2
"""Each is a process that starts; they must not starve the node."""

_log = structlog.stdlib.get_logger(__name__)


class ProviderKeeper:
    """The driver. interval_s: between two checks of a provider, give or take a quarter. wall_clock: Unix time in
    seconds. clock: monotonic seconds. on_unsealed: told the name and the type of a provider that opened the node; must
    not block. on_fatal: told of damaged records; the process must end then."""

    def __init__(
        self,
        wraps: ProviderWraps,
        seal: SealManager,
        consensus: Consensus,
        *,
        interval_s: float,
        wall_clock: Callable[[], float],
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        on_unsealed: Callable[[str, str], None],
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        self._wraps = wraps
        self._seal = seal
        self._consensus = consensus
        self._interval_s = interval_s
        self._wall_clock = wall_clock
        self._clock = clock
        self._random_bytes = random_bytes
        self._on_unsealed = on_unsealed
        self._on_fatal = on_fatal
        self._table = HealthTable()
        self._wake = asyncio.Event()
        self._tasks = Tasks()
        self._checks: list[asyncio.Task[None]] = []
        self._turns = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._undo: list[Callable[[], None]] = []

    @property
    def statuses(self) -> Sequence[ProviderStatus]:
        """Every provider as this node sees it, in the order in which they are tried."""
        return self._table.statuses

    def start(self) -> None:
        """Check from now on. Call once, when the seal was loaded."""
        assert not self._undo, "started twice"
        self._undo = [self._consensus.subscribe(self._applied), self._seal.on_change(self._changed)]
        self._tasks.spawn(self._keep_checking(), name="seal providers")

    async def stop(self) -> None:
        """Check no more. May be called again, and without `start`. Calls under way are ended."""
        for undo in self._undo:
            undo()
        self._undo = []
        await self._tasks.cancel_all()

    async def test(self, name: str) -> ProviderStatus:
        """Check one provider now. Raises NotFound."""
        record = (await self._refresh()).find(name)
        if record is None:
            raise NotFound("there is no such seal provider: `holdfast operator seal-provider list` shows them")
        await self._check(record)
        status = self._table.find(name)
        if status is None:
            raise NotFound("the seal provider was removed meanwhile")
        return status

    async def unseal(self, wanted: Callable[[], bool]) -> None:
        """Try the providers, one after the other, until one opens the node. wanted: whether it is still to be opened.

        What a provider does wrong is told in its status. Raises Fatal for damaged records, Unavailable when the node is
        stopping."""
        for record in (await self._refresh()).providers:
            if not wanted():
                return
            began_s = self._clock()
            try:
                root_key = await self._wraps.recover(record)
                if not wanted():
                    return
                await self._seal.unseal_with_root_key(root_key)
            except ProviderError as error:
                self._tell(record, error.health, error.message, began_s)
            except FailedPrecondition:
                self._tell(record, Health.WRONG_KEY, "the root key in its wrap does not open the keyring", began_s)
            else:
                self._tell(record, Health.HEALTHY, "", began_s)
                _log.warning("unsealed_by_provider", provider=record.name, type=record.type)
                self._on_unsealed(record.name, record.type)
                return

    async def _keep_checking(self) -> None:
        while True:
            self._wake.clear()
            try:
                providers = await self._refresh()
                if not self._seal.sealed:
                    await self._check_all(providers)
            except Unavailable:
                pass  # the node was sealed meanwhile, or is stopping
            except Fatal as error:
                self._on_fatal(error)
                return
            share = int.from_bytes(self._random_bytes(2), "big") / 2**16
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s * (0.75 + share / 2)):
                    await self._wake.wait()

    async def _refresh(self) -> ProviderList:
        providers = await self._wraps.stored()
        self._table.keep(providers)
        self._wraps.keep(providers)
        return providers

    async def _check_all(self, providers: ProviderList) -> None:
        """Check every provider, until the node is sealed: then nothing that opens a wrap may come in any more."""
        self._checks = [asyncio.create_task(self._check_in_turn(record)) for record in providers.providers]
        try:
            if self._checks:
                await asyncio.wait(self._checks)
            for check in self._checks:
                if not check.cancelled() and (error := check.exception()) is not None:
                    raise error
        finally:
            await self._end_checks()

    async def _end_checks(self) -> None:
        for check in self._checks:
            check.cancel()
        if self._checks:
            await asyncio.wait(self._checks)

    async def _check_in_turn(self, record: ProviderRecord) -> None:
        async with self._turns:
            await self._check(record)

    async def _check(self, record: ProviderRecord) -> None:
        began_s = self._clock()
        try:
            await self._wraps.check(record)
        except ProviderError as error:
            if (await self._wraps.stored()).find(record.name) == record:  # else it was renewed or removed meanwhile
                self._tell(record, error.health, error.message, began_s)
        else:
            self._tell(record, Health.HEALTHY, "", began_s)

    def _tell(self, record: ProviderRecord, health: Health, message: str, began_s: float) -> None:
        duration_s = self._clock() - began_s
        if not self._table.tell(record, health, message, now_s=self._wall_clock(), duration_s=duration_s):
            return
        tell = _log.info if health is Health.HEALTHY else _log.warning
        tell("seal_provider_health", provider=record.name, type=record.type, health=health.value, message=message)

    def _applied(self, _index: int, keys: Sequence[bytes]) -> None:
        if PROVIDERS_KEY in keys:
            self._wake.set()

    def _changed(self, status: SealStatus) -> None:
        if not status.sealed:
            self._wake.set()
            return
        for check in self._checks:
            check.cancel()
