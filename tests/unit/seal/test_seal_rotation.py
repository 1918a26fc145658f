"""Rotation of the keyring: nobody is ever without the key of what is stored, and no write slips under an old one."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from support.local_consensus import Fault, LocalConsensus
from support.seal_rig import BOOTSTRAP_PATH, BOOTSTRAP_VALUE, initialized, manager_of, stream, unsealed

from holdfast.cluster.raft.consensus import Applied, Conflicted
from holdfast.cluster.seal.records import KEYRING_KEY
from holdfast.cluster.seal.rotation import drop_terms, key_term, rotate
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.shares import Shares
from holdfast.proto.errors import Conflict, Corruption, NotLeader, OutcomeUnknown, Sealed
from holdfast.storage import envelope
from holdfast.storage.batch import Batch, Precondition, Put
from holdfast.storage.keyring import Keyring
from holdfast.storage.transaction import Transaction

NOW_MS = 1_800_000_000_000
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


async def turn(consensus: LocalConsensus, manager: SealManager, seed: str = "rotation") -> None:
    await rotate(consensus, manager, random_bytes=stream(seed), now_ms=NOW_MS)


async def put(consensus: LocalConsensus, manager: SealManager, path: str, value: bytes) -> None:
    transaction = Transaction(consensus, manager.barrier)
    transaction.put(path, value)
    assert isinstance(await consensus.propose(transaction.batch(), timeout_s=1), Applied)


def test_a_rotation_makes_a_term_that_encrypts_from_then_on_and_keeps_the_old_one_readable() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await turn(consensus, manager)
        shown = key_term(manager)
        assert (shown.term, shown.installed_ms, shown.terms, shown.oldest) == (2, NOW_MS, 2, 1)
        await put(consensus, manager, "shared/new", b"value")
        barrier = manager.barrier
        record = consensus.records[barrier.physical("shared/new")]
        assert envelope.term_of(record.value) == 2
        assert await Transaction(consensus, barrier).get(BOOTSTRAP_PATH) == BOOTSTRAP_VALUE
        restarted = consensus.restarted()
        again = await manager_of(restarted, seed="again")
        await unsealed(again, shares)
        assert await Transaction(restarted, again.barrier).get("shared/new") == b"value"
        await again.close()

    on_an_open_node(scenario)


def test_a_reader_finds_the_key_of_a_record_that_was_applied_together_with_its_keyring() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        follower = consensus.restarted()
        lagging = await manager_of(follower, seed="follower")
        await unsealed(lagging, shares)
        barrier = lagging.barrier
        before = len(consensus.proposed)
        await turn(consensus, manager)
        await turn(consensus, manager, "second")
        await put(consensus, manager, "shared/new", b"value")
        for batch in consensus.proposed[before:]:  # without a turn of the event loop: the follower's task sleeps on
            follower.apply(batch)
        assert barrier.keyring.terms == (1,)
        assert await Transaction(follower, barrier).get("shared/new") == b"value"
        assert lagging.barrier.keyring.active_term == 3
        await lagging.close()

    on_an_open_node(scenario)


def test_a_write_that_was_encrypted_before_a_rotation_and_applied_after_it_changes_nothing() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        transaction = Transaction(consensus, manager.barrier)
        transaction.put("shared/late", b"old term")
        late = transaction.batch()
        await turn(consensus, manager)
        assert await consensus.propose(late, timeout_s=1) == Conflicted(KEYRING_KEY)
        assert await Transaction(consensus, manager.barrier).get("shared/late") is None

    on_an_open_node(scenario)


def test_a_transaction_that_began_before_a_rotation_writes_under_the_new_term() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        transaction = Transaction(consensus, manager.barrier)
        assert await transaction.get(BOOTSTRAP_PATH) == BOOTSTRAP_VALUE
        await turn(consensus, manager)
        transaction.put("shared/new", b"value")
        assert isinstance(await consensus.propose(transaction.batch(), timeout_s=1), Applied)
        key = manager.barrier.physical("shared/new")
        assert envelope.term_of(consensus.records[key].value) == 2

    on_an_open_node(scenario)


def test_rotations_at_the_same_time_make_a_term_each() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await asyncio.gather(*(turn(consensus, manager, f"rotation {n}") for n in range(4)))
        assert key_term(manager).term == 5

    on_an_open_node(scenario)


@pytest.mark.parametrize(
    ("fault", "error", "term"),
    [
        (Fault.NOT_LEADER, NotLeader, 1),
        (Fault.LOST_PROPOSAL, OutcomeUnknown, 1),
        (Fault.LOST_REPLY, OutcomeUnknown, 2),
    ],
)
def test_a_rotation_that_fails_leaves_one_whole_keyring(fault: Fault, error: type[Exception], term: int) -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        consensus.fail_next(fault)
        with pytest.raises(error):
            await turn(consensus, manager)
        await manager.refresh()
        assert key_term(manager).term == term
        await put(consensus, manager, "shared/new", b"value")
        assert await Transaction(consensus, manager.barrier).get("shared/new") == b"value"

    on_an_open_node(scenario)


def test_a_sealed_node_rotates_nothing() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        manager.seal("test")
        before = consensus.records[KEYRING_KEY]
        with pytest.raises(Sealed):
            await turn(consensus, manager)
        assert consensus.records[KEYRING_KEY] == before

    on_an_open_node(scenario)


def test_a_dropped_term_is_gone_and_only_while_its_proof_stands() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await turn(consensus, manager)
        await put(consensus, manager, BOOTSTRAP_PATH, b"under the new term")
        key = manager.barrier.physical(BOOTSTRAP_PATH)
        proof = Precondition(key, consensus.records[key].revision)
        with pytest.raises(Conflict):
            await drop_terms(
                consensus, manager, {1}, random_bytes=stream("drop"), guard=Precondition(key, proof.revision - 1)
            )
        assert manager.barrier.keyring.terms == (1, 2)
        await drop_terms(consensus, manager, {1}, random_bytes=stream("drop"), guard=proof)
        assert manager.barrier.keyring.terms == (2,)
        assert await Transaction(consensus, manager.barrier).get(BOOTSTRAP_PATH) == b"under the new term"

    on_an_open_node(scenario)


def test_a_record_whose_term_no_stored_keyring_has_is_damage() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        key = manager.barrier.physical(BOOTSTRAP_PATH)
        value = consensus.records[key].value
        consensus.corrupt(key, value[:1] + (9).to_bytes(4, "big") + value[5:])
        with pytest.raises(Corruption, match="key term 9"):
            await Transaction(consensus, manager.barrier).get(BOOTSTRAP_PATH)

    on_an_open_node(scenario)


def test_a_keyring_of_another_tree_is_not_taken_up() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        foreign = manager.with_root_key(Keyring.generate(stream("foreign")).wrap)
        consensus.apply(Batch(puts=(Put(KEYRING_KEY, foreign),)))
        with pytest.raises(Corruption, match="another cluster"):
            await manager.refresh()

    on_an_open_node(scenario)
