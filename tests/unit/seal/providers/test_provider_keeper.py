"""What a node does with its providers by itself: checks while unsealed, attempts while sealed."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs
from support.local_consensus import LocalConsensus
from support.providers import Vaults, entries, eventually, spec
from support.seal_rig import Clock, initialized, manager_of, stream, unsealed

from holdfast.cluster.seal.providers.contract import Health, ProviderError
from holdfast.cluster.seal.providers.health import HealthTable
from holdfast.cluster.seal.providers.keeper import ProviderKeeper
from holdfast.cluster.seal.providers.records import PROVIDERS_KEY
from holdfast.cluster.seal.providers.wraps import ProviderWraps
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.shares import Shares
from holdfast.proto.errors import Fatal, NotFound
from holdfast.storage.batch import Batch, Put

NEVER_S = 3600.0


class Rig:
    seal: SealManager
    shares: Shares

    def __init__(self, vaults: Vaults) -> None:
        self.consensus = LocalConsensus()
        self.vaults = vaults
        self.fatal: list[Fatal] = []
        self.unsealed: list[tuple[str, str]] = []
        self.wall = Clock(1000.0)

    async def load(self, interval_s: float = NEVER_S) -> None:
        self.seal = await manager_of(self.consensus)
        self.shares = await initialized(self.seal)
        await unsealed(self.seal, self.shares)
        self.wraps = ProviderWraps(
            self.seal, self.consensus, node_id="node-1", credentials=entries("a", "b").get, wall_clock=self.wall,
            random_bytes=stream("wraps"), calls=self.vaults,
        )  # fmt: skip
        await self.wraps.add(spec("a", 1), timeout_s=5)
        await self.wraps.add(spec("b", 2), timeout_s=5)
        self.keeper = ProviderKeeper(
            self.wraps, self.seal, self.consensus, interval_s=interval_s, wall_clock=self.wall,
            clock=asyncio.get_running_loop().time, random_bytes=stream("keeper"),
            on_unsealed=lambda name, kind: self.unsealed.append((name, kind)), on_fatal=self.fatal.append,
        )  # fmt: skip
        self.keeper.start()

    async def until(self, name: str, health: Health) -> None:
        await eventually(lambda: (name, health) in [(status.name, status.health) for status in self.keeper.statuses])


def on_rig(
    story: Callable[[Rig], Awaitable[None]],
    *,
    interval_s: float = NEVER_S,
    timeout_s: float = 30.0,
) -> None:
    async def run() -> None:
        rig = Rig(Vaults(timeout_s))
        await rig.load(interval_s)
        try:
            await story(rig)
        finally:
            await rig.keeper.stop()
            await rig.keeper.stop()
            await rig.seal.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_an_unsealed_node_checks_again_and_again_and_tells_only_what_changed() -> None:
    async def story(rig: Rig) -> None:
        await rig.until("a", Health.HEALTHY)
        with capture_logs() as logs:
            rig.wall.now_s = 2000.0
            rig.vaults["a"].failing = ProviderError(Health.REFUSED, "the token was revoked")
            await rig.until("a", Health.REFUSED)
            asked = len(rig.vaults["a"].calls)
            await eventually(lambda: len(rig.vaults["a"].calls) >= asked + 5)
            rig.vaults["a"].failing = None
            await rig.until("a", Health.HEALTHY)
        a, b = rig.keeper.statuses
        assert (a.succeeded_s, b.health) == (2000.0, Health.HEALTHY)
        told = [(log["provider"], log["health"]) for log in logs if log["event"] == "seal_provider_health"]
        assert told == [("a", "refused"), ("a", "healthy")]

    on_rig(story, interval_s=0.02)


def test_a_dead_provider_s_last_success_stays() -> None:
    async def story(rig: Rig) -> None:
        await rig.until("a", Health.HEALTHY)
        rig.wall.now_s = 5000.0
        rig.vaults["a"].failing = ProviderError(Health.UNREACHABLE, "down")
        status = await rig.keeper.test("a")
        assert (status.health, status.message) == (Health.UNREACHABLE, "down")
        assert (status.checked_s, status.succeeded_s) == (5000.0, 1000.0)
        with pytest.raises(NotFound):
            await rig.keeper.test("c")

    on_rig(story)


def test_a_sealed_node_tries_them_in_order_until_one_opens_it() -> None:
    async def story(rig: Rig) -> None:
        await rig.until("b", Health.HEALTHY)
        rig.seal.seal("test")
        rig.vaults["a"].calls.clear()
        rig.vaults["b"].calls.clear()
        await rig.keeper.unseal(lambda: rig.seal.sealed)
        assert not rig.seal.sealed
        assert (rig.vaults["a"].calls[0], rig.vaults["b"].calls[:1]) in (("unwrap", []), ("unwrap", ["unwrap"]))
        rig.seal.seal("test")
        rig.vaults["a"].failing = ProviderError(Health.UNREACHABLE, "down")
        with capture_logs() as logs:
            await rig.keeper.unseal(lambda: rig.seal.sealed)
        assert not rig.seal.sealed
        assert [log["provider"] for log in logs if log["event"] == "unsealed_by_provider"] == ["b"]
        assert rig.unsealed == [("a", "age"), ("b", "age")]
        assert rig.keeper.statuses[0].health is Health.UNREACHABLE

    on_rig(story)


def test_when_all_are_dead_or_wrong_the_node_stays_sealed_and_says_why_and_shares_open_it() -> None:
    async def story(rig: Rig) -> None:
        await rig.until("b", Health.HEALTHY)
        rig.seal.seal("test")
        rig.vaults["a"].key ^= 1
        rig.vaults["b"].failing = ProviderError(Health.TIMEOUT, "silence")
        await rig.keeper.unseal(lambda: rig.seal.sealed)
        assert rig.seal.sealed
        assert [status.health for status in rig.keeper.statuses] == [Health.WRONG_KEY, Health.TIMEOUT]
        await unsealed(rig.seal, rig.shares)
        assert not rig.fatal

    on_rig(story)


def test_a_wrap_of_another_root_key_opens_no_node_and_ends_none() -> None:
    async def story(rig: Rig) -> None:
        renewal = await rig.wraps.renewed(b"another root key of 32 bytes....")
        await rig.consensus.propose(Batch(puts=renewal.puts, preconditions=renewal.preconditions), timeout_s=5)
        rig.seal.seal("test")
        await rig.keeper.unseal(lambda: rig.seal.sealed)
        assert rig.seal.sealed
        assert {status.health for status in rig.keeper.statuses} == {Health.WRONG_KEY}
        assert not rig.fatal

    on_rig(story)


def test_an_answer_that_comes_when_the_node_is_not_to_be_opened_any_more_opens_nothing() -> None:
    async def story(rig: Rig) -> None:
        await rig.until("b", Health.HEALTHY)
        rig.seal.seal("test")
        gate = rig.vaults["a"].gate = asyncio.Event()
        wanted = True
        attempt = asyncio.create_task(rig.keeper.unseal(lambda: wanted))
        rig.vaults["a"].calls.clear()
        await eventually(lambda: bool(rig.vaults["a"].calls))
        wanted = False
        gate.set()
        await attempt
        assert rig.seal.sealed

    on_rig(story)


def test_a_provider_that_hangs_neither_keeps_the_next_from_its_turn_nor_the_node_from_stopping() -> None:
    async def story(rig: Rig) -> None:
        await rig.until("b", Health.HEALTHY)
        rig.seal.seal("test")
        rig.vaults["a"].gate = asyncio.Event()
        await rig.keeper.unseal(lambda: rig.seal.sealed)
        assert not rig.seal.sealed
        assert rig.keeper.statuses[0].health is Health.TIMEOUT

    on_rig(story, timeout_s=0.5)


def test_what_is_added_is_checked_at_once_and_what_is_removed_is_told_of_no_more() -> None:
    async def story(rig: Rig) -> None:
        await rig.until("b", Health.HEALTHY)
        await rig.wraps.remove("a", timeout_s=5)
        await eventually(lambda: [status.name for status in rig.keeper.statuses] == ["b"])
        await rig.wraps.add(spec("a", 3), timeout_s=5)
        await rig.until("a", Health.HEALTHY)
        assert [status.name for status in rig.keeper.statuses] == ["b", "a"]

    on_rig(story)


def test_a_damaged_record_ends_the_node() -> None:
    async def story(rig: Rig) -> None:
        await rig.until("b", Health.HEALTHY)
        await rig.consensus.propose(Batch(puts=(Put(PROVIDERS_KEY, b"\x01\xc1"),)), timeout_s=5)
        await eventually(lambda: bool(rig.fatal))

    on_rig(story)


def test_the_table_drops_what_is_told_of_a_provider_that_was_replaced() -> None:
    async def story(rig: Rig) -> None:
        providers = await rig.wraps.stored()
        table = HealthTable()
        table.keep(providers)
        record = providers.providers[0]
        assert table.tell(record, Health.HEALTHY, "", now_s=1.0, duration_s=0.1)
        assert not table.tell(record, Health.HEALTHY, "", now_s=2.0, duration_s=0.1)
        await rig.wraps.remove("a", timeout_s=5)
        await rig.wraps.add(spec("a", 7), timeout_s=5)
        table.keep(await rig.wraps.stored())
        assert not table.tell(record, Health.REFUSED, "late", now_s=3.0, duration_s=0.1)
        status = table.find("a")
        assert status is not None
        assert (status.health, status.priority) == (Health.UNCHECKED, 7)

    on_rig(story)


def test_checks_under_way_end_at_once_when_the_node_is_sealed() -> None:
    async def story(rig: Rig) -> None:
        await rig.until("b", Health.HEALTHY)
        vault = rig.vaults["a"]
        vault.gate = asyncio.Event()
        asked = len(vault.calls)
        rig.keeper._wake.set()
        await eventually(lambda: len(vault.calls) > asked)
        (check,) = [check for check in rig.keeper._checks if not check.done()]
        rig.seal.seal("test")
        await asyncio.wait({check})
        assert check.cancelled()
        vault.gate.set()
        await unsealed(rig.seal, rig.shares)
        asked = len(vault.calls)
        await eventually(lambda: len(vault.calls) > asked)

    on_rig(story)
