"""What the leader does about keys by itself: rotation in time, the count for it, re-encryption and its end."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from support.local_consensus import Fault, LocalConsensus
from support.seal_rig import BOOTSTRAP_PATH, BOOTSTRAP_VALUE, Clock, initialized, manager_of, stream, unsealed

from holdfast.cluster.raft.consensus import Applied, Role
from holdfast.cluster.seal import key_policy, reencryption, usage
from holdfast.cluster.seal.keeper import IDLE_S, KeyKeeper
from holdfast.cluster.seal.key_policy import KeyPolicy
from holdfast.cluster.seal.reencryption import Reencryption
from holdfast.cluster.seal.rotation import key_term, rotate
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.shares import Shares
from holdfast.cluster.seal.usage import BLOCK, SLACK, EncryptionCount
from holdfast.proto.errors import FailedPrecondition, InvalidArgument, OutcomeUnknown
from holdfast.storage import envelope
from holdfast.storage.batch import MAX_BATCH_BYTES
from holdfast.storage.transaction import Transaction

Scenario = Callable[[LocalConsensus, SealManager, Shares], Awaitable[None]]


def on_an_open_node(scenario: Scenario) -> None:
    async def run() -> None:
        consensus = LocalConsensus()
        manager = await manager_of(consensus)
        try:
            shares = await initialized(manager)
            await unsealed(manager, shares)
            await scenario(consensus, manager, shares)
        finally:
            await manager.close()

    asyncio.run(run())


async def put(consensus: LocalConsensus, manager: SealManager, path: str, value: bytes) -> None:
    transaction = Transaction(consensus, manager.barrier)
    transaction.put(path, value)
    assert isinstance(await consensus.propose(transaction.batch(), timeout_s=1), Applied)


async def set_policy(consensus: LocalConsensus, manager: SealManager, policy: KeyPolicy) -> None:
    transaction = Transaction(consensus, manager.barrier)
    key_policy.store(transaction, policy)
    assert isinstance(await consensus.propose(transaction.batch(), timeout_s=1), Applied)


def keeper_of(
    consensus: LocalConsensus,
    manager: SealManager,
    clock: Clock,
    *,
    block: int = BLOCK,
    rotations: list[str] | None = None,
) -> KeyKeeper:
    return KeyKeeper(
        consensus,
        manager,
        random_bytes=stream("keeper"),
        wall_clock=clock,
        on_fatal=pytest.fail,
        on_rotation=lambda _term, why: (rotations if rotations is not None else []).append(why),
        block=block,
    )


def test_a_term_is_replaced_when_it_is_old_and_not_before() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        clock, rotations = Clock(), []
        keeper = keeper_of(consensus, manager, clock, rotations=rotations)
        await set_policy(consensus, manager, KeyPolicy(interval_s=7200, reencrypt=False))
        for hours, term in ((1, 1), (2.1, 2), (3, 2), (4.2, 3)):
            clock.now_s = 1_800_000_000.0 + hours * 3600
            await keeper.step()
            assert key_term(manager).term == term
        assert rotations == ["age", "age"]

    on_an_open_node(scenario)


def test_a_term_is_replaced_before_it_has_encrypted_too_much() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        rotations: list[str] = []
        keeper = keeper_of(consensus, manager, Clock(), rotations=rotations)
        await set_policy(consensus, manager, KeyPolicy(max_encryptions=key_policy.ENCRYPTIONS_MIN, reencrypt=False))
        barrier = manager.barrier
        while not rotations:
            barrier._encryptions += BLOCK // 4
            await keeper.step()
            assert barrier.encryptions <= key_policy.ENCRYPTIONS_MIN
        assert rotations == ["count"]
        assert key_term(manager).term == 2
        await keeper.step()
        assert await usage.reserved(Transaction(consensus, barrier), 2) == BLOCK + SLACK

    on_an_open_node(scenario)


def test_the_count_survives_leaders_and_is_only_ever_too_high() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        used = 0
        for _ in range(4):
            count = EncryptionCount(consensus, manager, block=100, slack=10)
            before = manager.barrier.encryptions
            for n in range(300):
                await put(consensus, manager, "shared/x", b"%d" % n)
                total = await count.step()
                assert used + manager.barrier.encryptions - before <= total
            used += manager.barrier.encryptions - before
            consensus.set_role(Role.LEADER)  # another term of leadership
        assert await usage.reserved(Transaction(consensus, manager.barrier), 1) < used + 4 * 300

    on_an_open_node(scenario)


def test_the_count_goes_on_over_a_seal_that_does_not_end_the_leadership() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        count, used, total = EncryptionCount(consensus, manager, block=100, slack=10), 0, 0
        for _ in range(4):
            for n in range(120):
                total = await count.step()
                await put(consensus, manager, "shared/x", b"%d" % n)
            used += manager.barrier.encryptions
            manager.seal("test")
            await unsealed(manager, shares)
        assert used <= total

    on_an_open_node(scenario)


def test_a_keyring_that_is_full_is_emptied_by_re_encryption_before_it_rotates(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        for module in ("holdfast.storage.keyring", "holdfast.cluster.seal.keeper"):
            monkeypatch.setattr(f"{module}.TERMS_MAX", 3)
        clock, rotations = Clock(), []
        keeper = keeper_of(consensus, manager, clock, rotations=rotations)
        await set_policy(consensus, manager, KeyPolicy(interval_s=3600, reencrypt=False))
        for _ in range(2):
            clock.now_s += 3601
            await keeper.step()
        clock.now_s += 3601
        with pytest.raises(FailedPrecondition):
            await keeper.step()
        await set_policy(consensus, manager, KeyPolicy(interval_s=3600, keep_terms=1))
        while (at := await reencryption.load(Transaction(consensus, manager.barrier))) is None or not at.finished_ms:
            await keeper.step()
        consensus.cluster_time_ms += reencryption.REQUESTS_GONE_MS
        await keeper.step()
        assert rotations == ["age"] * 3
        assert manager.barrier.keyring.terms == (3, 4)

    on_an_open_node(scenario)


def test_a_reservation_that_is_lost_is_made_again() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        count = EncryptionCount(consensus, manager, block=100, slack=10)
        for fault in (Fault.LOST_PROPOSAL, Fault.LOST_REPLY):
            consensus.fail_next(fault)
            with pytest.raises(OutcomeUnknown):
                await count.step()
        assert await count.step() == 220

    on_an_open_node(scenario)


def test_after_a_rotation_everything_comes_under_the_new_term_and_the_old_one_goes() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        for number in range(300):
            await put(consensus, manager, f"shared/{number}", b"%d" % number)
        await put(consensus, manager, "shared/large", b"x" * (MAX_BATCH_BYTES - 200))
        await set_policy(consensus, manager, KeyPolicy(keep_terms=1))
        await rotate(consensus, manager, random_bytes=stream("rotation"), now_ms=1)
        keeper = keeper_of(consensus, manager, Clock())
        while await keeper.step() != IDLE_S:
            pass
        at = await reencryption.load(Transaction(consensus, manager.barrier))
        assert at is not None
        assert at.finished_ms
        assert at.rewritten >= 300
        assert manager.barrier.keyring.terms == (1, 2), "request ids from before are still remembered"
        consensus.cluster_time_ms += reencryption.REQUESTS_GONE_MS
        await keeper.step()
        assert manager.barrier.keyring.terms == (2,)
        restarted = consensus.restarted()
        again = await manager_of(restarted, seed="again")
        await unsealed(again, shares)
        transaction = Transaction(restarted, again.barrier)
        for number in range(300):
            assert await transaction.get(f"shared/{number}") == b"%d" % number
        assert await transaction.get("shared/large") == b"x" * (MAX_BATCH_BYTES - 200)
        assert await transaction.get(BOOTSTRAP_PATH) == BOOTSTRAP_VALUE
        await again.close()

    on_an_open_node(scenario)


def test_a_write_that_comes_in_between_is_not_undone_by_the_re_encryption() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await put(consensus, manager, "shared/x", b"old")
        await rotate(consensus, manager, random_bytes=stream("rotation"), now_ms=1)
        work = Reencryption(consensus, manager, random_bytes=stream("work"), now_ms=lambda: 1)
        await work.step(KeyPolicy())
        step = asyncio.ensure_future(work.step(KeyPolicy()))
        late = consensus.propose

        async def racing(batch, *, timeout_s: float):
            consensus.propose = late  # type: ignore[method-assign]
            await put(consensus, manager, "shared/x", b"new")
            return await late(batch, timeout_s=timeout_s)

        consensus.propose = racing  # type: ignore[method-assign]
        assert await step == 0
        while await work.step(KeyPolicy()) is not None:
            pass
        assert await Transaction(consensus, manager.barrier).get("shared/x") == b"new"

    on_an_open_node(scenario)


def test_the_next_leader_goes_on_where_the_last_one_was() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        for number in range(50):
            await put(consensus, manager, f"shared/{number}", b"v")
        await rotate(consensus, manager, random_bytes=stream("rotation"), now_ms=1)
        first = Reencryption(consensus, manager, random_bytes=stream("a"), now_ms=lambda: 1, page=10)
        for _ in range(3):
            await first.step(KeyPolicy())
        before = await reencryption.load(Transaction(consensus, manager.barrier))
        assert before is not None
        assert 0 < before.rewritten < 50
        second = Reencryption(consensus, manager, random_bytes=stream("b"), now_ms=lambda: 1, page=10)
        while await second.step(KeyPolicy()) is not None:
            pass
        after = await reencryption.load(Transaction(consensus, manager.barrier))
        assert after is not None
        assert after.rewritten > before.rewritten
        assert after.scanned <= len(consensus.records) + 1
        assert {envelope.term_of(r.value) for k, r in consensus.records.items() if k[:1] == b"s"} == {2}

    on_an_open_node(scenario)


def test_a_policy_that_forbids_it_leaves_old_data_as_it_is() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await rotate(consensus, manager, random_bytes=stream("rotation"), now_ms=1)
        work = Reencryption(consensus, manager, random_bytes=stream("work"), now_ms=lambda: 1)
        assert await work.step(KeyPolicy(reencrypt=False)) is None
        key = manager.barrier.physical(BOOTSTRAP_PATH)
        assert envelope.term_of(consensus.records[key].value) == 1
        await work.step(KeyPolicy())
        await work.step(KeyPolicy(reencrypt=False))  # a pass under way stops too
        assert envelope.term_of(consensus.records[key].value) == 1
        await work.step(KeyPolicy())
        assert envelope.term_of(consensus.records[key].value) == 2

    on_an_open_node(scenario)


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE])
def test_a_node_that_does_not_lead_or_is_sealed_does_nothing(role: Role) -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        keeper = keeper_of(consensus, manager, Clock())
        before = len(consensus.proposed)
        consensus.set_role(role, leader_id="node-2")
        assert await keeper.step() == IDLE_S
        consensus.set_role(Role.LEADER)
        manager.seal("test")
        assert await keeper.step() == IDLE_S
        assert len(consensus.proposed) == before

    on_an_open_node(scenario)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"interval_s": 5}, "interval"),
        ({"max_encryptions": 2**31 + 1}, "max_encryptions"),
        ({"max_encryptions": 5}, "max_encryptions"),
        ({"rate": 0}, "rate"),
        ({"keep_terms": 0}, "keep_terms"),
    ],
)
def test_a_policy_out_of_range_is_refused(change: dict[str, int], field: str) -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        transaction = Transaction(consensus, manager.barrier)
        with pytest.raises(InvalidArgument) as refused:
            key_policy.store(transaction, msgspec.structs.replace(KeyPolicy(), **change))
        assert refused.value.field == field
        assert not transaction.writes

    on_an_open_node(scenario)
