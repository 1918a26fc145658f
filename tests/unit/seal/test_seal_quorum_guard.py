"""The quorum guard on a node: what it seals, when, what it says, and that no request gets the keys before it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from support.local_consensus import LocalConsensus
from support.seal_rig import Clock, initialized, manager_of, unsealed

from holdfast.cluster.raft.consensus import Member
from holdfast.cluster.seal.quorum_guard import QuorumGuard
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.shares import Shares
from holdfast.proto.errors import Sealed

GRACE_S = 15.0


class Rig:
    """An unsealed node in contact with its quorum, by a clock of the test's own."""

    def __init__(self, consensus: LocalConsensus, seal: SealManager, shares: Shares, *, enabled: bool) -> None:
        self.consensus, self.seal, self.shares = consensus, seal, shares
        self.clock = Clock(1000.0)
        self.sealings = 0
        self.guard = QuorumGuard(
            seal, consensus, enabled=enabled, grace_s=GRACE_S, clock=self.clock, on_sealed=self.sealed
        )

    def sealed(self) -> None:
        self.sealings += 1

    def passes(self, seconds: float, *, contact: bool, steps: int = 10) -> None:
        for _ in range(steps):
            self.clock.now_s += seconds / steps
            self.consensus.quorum_contact_age_s = (
                0.0 if contact else self.consensus.quorum_contact_age_s + seconds / steps
            )
            self.guard.check()


def on_a_node(
    story: Callable[[Rig], Awaitable[None]], *, enabled: bool = True, contact: bool = True, alone: bool = False
) -> None:
    async def run() -> None:
        consensus = LocalConsensus()
        if not alone:
            consensus.members["node-2"] = Member(node_id="node-2", cluster_address="h:1", api_address="h:2")
        seal = await manager_of(consensus)
        rig = Rig(consensus, seal, await initialized(seal), enabled=enabled)
        rig.guard.start()
        if contact:
            rig.passes(1, contact=True)
        await unsealed(seal, rig.shares)
        try:
            await story(rig)
        finally:
            rig.guard.stop()
            await seal.close()

    asyncio.run(run())


def test_contact_lost_for_the_grace_seals_with_a_reason_and_is_counted_once() -> None:
    async def story(rig: Rig) -> None:
        held = rig.guard.barrier
        rig.passes(GRACE_S - 1, contact=False)
        assert not rig.seal.sealed
        rig.passes(2, contact=False)
        assert rig.seal.sealed
        assert rig.guard.lost_quorum
        assert rig.seal.status().last_seal_reason == "contact with a quorum was lost for 15 s"
        assert rig.seal.status().last_seal_time_s is not None
        with pytest.raises(Sealed):
            held.physical("shared/x")
        rig.passes(100, contact=False)
        assert rig.sealings == 1

    on_a_node(story)


def test_contact_that_comes_and_goes_within_the_grace_seals_nothing() -> None:
    async def story(rig: Rig) -> None:
        for _ in range(20):
            rig.passes(GRACE_S - 1, contact=False)
            rig.passes(1, contact=True)
        assert not rig.seal.sealed

    on_a_node(story)


def test_the_first_request_after_a_long_sleep_finds_no_keys_whatever_the_contact_claims() -> None:
    async def story(rig: Rig) -> None:
        rig.clock.now_s += GRACE_S + 1
        rig.consensus.quorum_contact_age_s = 0.0  # a message that was sent during the sleep, and read just now
        with pytest.raises(Sealed):
            _ = rig.guard.barrier
        assert rig.seal.status().last_seal_reason.startswith("this node stood still for 16.0 s")

    on_a_node(story)


def test_the_timer_seals_without_any_request() -> None:
    async def run() -> None:
        consensus = LocalConsensus()
        seal = await manager_of(consensus)
        shares = await initialized(seal)
        told = asyncio.Event()
        guard = QuorumGuard(
            seal, consensus, enabled=True, grace_s=0.1, clock=asyncio.get_running_loop().time, on_sealed=told.set
        )
        guard.start()
        await asyncio.sleep(0.05)
        await unsealed(seal, shares)
        consensus.quorum_contact_age_s = 1.0
        await asyncio.wait_for(told.wait(), 30)
        assert seal.sealed
        guard.stop()
        await seal.close()

    asyncio.run(run())


def test_a_node_without_quorum_since_its_start_is_not_sealed_until_it_had_one() -> None:
    async def story(rig: Rig) -> None:
        rig.passes(1000, contact=False, steps=100)
        assert not rig.seal.sealed
        rig.passes(1, contact=True)
        rig.passes(GRACE_S + 1, contact=False)
        assert rig.seal.sealed

    on_a_node(story, contact=False)


def test_a_node_that_people_open_without_quorum_stays_open_and_is_watched_from_the_next_contact() -> None:
    async def story(rig: Rig) -> None:
        rig.passes(GRACE_S + 1, contact=False)
        await unsealed(rig.seal, rig.shares)
        assert not rig.guard.lost_quorum
        rig.passes(1000, contact=False, steps=100)
        assert not rig.seal.sealed
        rig.passes(1, contact=True)
        rig.passes(GRACE_S + 1, contact=False)
        assert rig.seal.sealed
        assert rig.sealings == 2

    on_a_node(story)


def test_a_node_opened_just_as_contact_goes_is_sealed_after_the_grace() -> None:
    async def story(rig: Rig) -> None:
        rig.seal.seal("an operator sealed it")
        rig.passes(1, contact=False)
        await unsealed(rig.seal, rig.shares)
        rig.passes(GRACE_S, contact=False)
        assert rig.seal.sealed

    on_a_node(story)


def test_a_node_that_another_reason_sealed_keeps_that_reason() -> None:
    async def story(rig: Rig) -> None:
        rig.seal.seal("an operator sealed it")
        rig.passes(GRACE_S * 3, contact=False)
        assert rig.seal.status().last_seal_reason == "an operator sealed it"
        assert (rig.sealings, rig.guard.lost_quorum) == (0, False)

    on_a_node(story)


def test_switched_off_it_never_seals() -> None:
    async def story(rig: Rig) -> None:
        rig.passes(1, contact=True)
        rig.clock.now_s += 10 * GRACE_S
        rig.passes(GRACE_S * 3, contact=False)
        assert rig.guard.barrier is rig.seal.barrier

    on_a_node(story, enabled=False)


def test_the_only_voter_is_its_own_quorum_even_in_its_sleep() -> None:
    async def story(rig: Rig) -> None:
        rig.clock.now_s += 10 * GRACE_S
        assert rig.guard.barrier is rig.seal.barrier

    on_a_node(story, alone=True)
