"""The seal of one node over consensus: its states, its errors, what it tells whom, and what it lets go of."""

import asyncio
import gc
import pickle
from collections.abc import Awaitable, Callable

import pytest
from support.local_consensus import LocalConsensus
from support.seal_rig import BOOTSTRAP_PATH, BOOTSTRAP_VALUE, initialized, manager_of, stream, unsealed

from holdfast.cluster.raft.consensus import Applied, Role
from holdfast.cluster.seal.records import KEYRING_KEY, SEAL_KEY, decode_config
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.shamir import combine
from holdfast.cluster.seal.shares import Shares, decode
from holdfast.cluster.seal.state import TRANSITIONS, SealEvent, SealState, SealStatus, advance
from holdfast.proto.errors import Corruption, Fatal, Sealed, ShareRejected, Uninitialized
from holdfast.storage.batch import Batch, Precondition, Put
from holdfast.storage.keyring import Keyring
from holdfast.storage.transaction import Transaction

Scenario = Callable[[LocalConsensus, SealManager, Shares], Awaitable[None]]


def on_a_sealed_node(scenario: Scenario) -> None:
    """Run a scenario on a node that was just initialised with 5 shares and threshold 3."""

    async def run() -> None:
        consensus = LocalConsensus()
        manager = await manager_of(consensus)
        try:
            await scenario(consensus, manager, await initialized(manager))
        finally:
            await manager.close()

    asyncio.run(run())


async def settle() -> None:
    """Let the tasks that listeners woke run until they wait again."""
    for _ in range(20):
        await asyncio.sleep(0)


async def rotate(consensus: LocalConsensus, shares: Shares) -> None:
    """Rotate the keyring as another node's operator would."""
    cores = [decode(text).core for text in shares.texts[: shares.threshold]]
    root_key = decode_config(consensus.records[SEAL_KEY].value).unwrap(combine(cores))
    record = consensus.records[KEYRING_KEY]
    rotated = Keyring.unwrap(record.value, root_key).rotated(stream("rotation"))
    batch = Batch(
        puts=(Put(KEYRING_KEY, rotated.wrap(root_key)),), preconditions=(Precondition(KEYRING_KEY, record.revision),)
    )
    assert isinstance(consensus.apply(batch), Applied)


def test_the_states_and_their_transitions_are_these_and_no_others() -> None:
    for state in SealState:
        for event in SealEvent:
            if (state, event) in TRANSITIONS:
                assert advance(state, event) is TRANSITIONS[state, event]
            else:
                with pytest.raises(AssertionError, match="cannot happen"):
                    advance(state, event)
    assert len(TRANSITIONS) == 3


def test_an_uninitialised_node_says_so_everywhere() -> None:
    async def run() -> None:
        consensus = LocalConsensus()
        manager = await manager_of(consensus)
        assert (manager.initialized, manager.sealed, consensus.eligible) == (False, True, False)
        with pytest.raises(Uninitialized):
            _ = manager.barrier
        with pytest.raises(Uninitialized):
            await manager.unseal("hfs1.whatever")
        manager.seal("nothing to seal")
        status = manager.reset_unseal()
        assert status == SealStatus(
            type="shamir",
            initialized=False,
            sealed=True,
            threshold=0,
            shares=0,
            progress=0,
            nonce="",
            cluster_name="demo",
            cluster_id="",
            node_id="node-1",
            last_seal_reason="",
            last_seal_time_s=None,
            role=Role.LEADER,
            leader_id="node-1",
            quorum_contact_age_s=0.0,
        )
        await manager.close()

    asyncio.run(run())


def test_shares_open_the_node_and_its_data() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        with pytest.raises(Sealed):
            _ = manager.barrier
        first = await manager.unseal(shares.texts[4])
        assert (first.sealed, first.progress, len(first.nonce)) == (True, 1, 32)
        second = await manager.unseal(shares.texts[1])
        assert (second.sealed, second.progress, second.nonce) == (True, 2, first.nonce)
        assert not consensus.eligible
        third = await manager.unseal(shares.texts[2])
        assert (third.sealed, third.progress, third.nonce) == (False, 0, "")
        assert consensus.eligible
        assert await Transaction(consensus, manager.barrier).get(BOOTSTRAP_PATH) == BOOTSTRAP_VALUE

    on_a_sealed_node(scenario)


def test_a_share_for_an_open_node_changes_nothing() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await unsealed(manager, shares)
        status = await manager.unseal(shares.texts[0])
        assert (status.sealed, status.progress) == (False, 0)

    on_a_sealed_node(scenario)


def test_shares_given_at_the_same_time_open_the_node_once() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        changes: list[bool] = []
        manager.on_change(lambda status: changes.append(status.sealed))
        await asyncio.gather(*(manager.unseal(text) for text in shares.texts))
        assert (manager.sealed, changes, manager.status().progress) == (False, [False], 0)

    on_a_sealed_node(scenario)


@pytest.mark.parametrize("mistake", ["mistyped", "not_a_share", "repeated", "other_set"])
def test_a_refused_share_is_told_by_its_kind_and_costs_no_progress(mistake: str) -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        other = await manager_of(LocalConsensus(), seed="another cluster")
        foreign = (await initialized(other)).texts[1]
        await other.close()
        text = shares.texts[1]
        wrong = {
            "mistyped": text[:-1] + ("A" if text[-1] != "A" else "B"),
            "not_a_share": "hello",
            "repeated": shares.texts[0],
            "other_set": foreign,
        }[mistake]
        await manager.unseal(shares.texts[0])
        with pytest.raises(ShareRejected) as caught:
            await manager.unseal(wrong)
        assert caught.value.details == {"kind": mistake}
        assert wrong not in str(caught.value)
        assert manager.status().progress == 1

    on_a_sealed_node(scenario)


def test_a_reset_forgets_the_shares_given() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await manager.unseal(shares.texts[0])
        assert manager.reset_unseal().progress == 0
        await manager.unseal(shares.texts[0])
        assert manager.status().progress == 1

    on_a_sealed_node(scenario)


def test_sealing_takes_the_keys_from_requests_under_way_too() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await unsealed(manager, shares)
        barrier = manager.barrier
        manager.seal("an operator sealed it")
        with pytest.raises(Sealed):
            barrier.encrypt(b"s", b"value")
        with pytest.raises(Sealed):
            _ = manager.barrier
        status = manager.status()
        assert (status.sealed, status.initialized) == (True, True)
        assert (status.last_seal_reason, status.last_seal_time_s) == ("an operator sealed it", 1_800_000_000.0)
        assert not consensus.eligible

    on_a_sealed_node(scenario)


def test_sealing_a_sealed_node_forgets_shares_and_keeps_the_first_reason() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await unsealed(manager, shares)
        manager.seal("first")
        await manager.unseal(shares.texts[0])
        manager.seal("second")
        status = manager.status()
        assert (status.last_seal_reason, status.progress, status.nonce) == ("first", 0, "")
        await unsealed(manager, shares)

    on_a_sealed_node(scenario)


def test_no_object_on_the_heap_refers_to_a_key_or_share_after_sealing() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        config = decode_config(consensus.records[SEAL_KEY].value)
        await unsealed(manager, shares)
        assert manager._keys is not None
        root_key = manager._keys._root_key
        await manager.unseal(shares.texts[0])
        manager.seal("test")
        gc.collect()
        assert manager._keys is None
        assert manager._progress is not None
        assert manager._progress._given == {}
        holders = [holder for holder in gc.get_referrers(root_key) if holder is not globals()]
        assert not [holder for holder in holders if type(holder).__module__.startswith("holdfast")]
        assert config.wrapped_root_key  # what is stored stays

    on_a_sealed_node(scenario)


def test_listeners_hear_each_change_of_state_when_it_is_complete() -> None:
    async def run() -> None:
        consensus = LocalConsensus()
        manager = await manager_of(consensus)
        heard: list[tuple[bool, bool, bool]] = []
        unsubscribe = manager.on_change(
            lambda status: heard.append((status.initialized, status.sealed, consensus.eligible))
        )
        shares = await initialized(manager)
        await unsealed(manager, shares)
        manager.seal("test")
        assert heard == [(True, True, False), (True, False, True), (True, True, False)]
        unsubscribe()
        await unsealed(manager, shares)
        assert len(heard) == 3
        await manager.close()

    asyncio.run(run())


def test_a_node_learns_that_the_cluster_was_initialised_elsewhere_and_opens_with_the_same_shares() -> None:
    async def run() -> None:
        leader, follower = LocalConsensus("node-1"), LocalConsensus("node-2", role=Role.FOLLOWER, leader_id="node-1")
        leader.attach(follower)
        there, here = await manager_of(leader), await manager_of(follower, seed="here")
        shares = await initialized(there)
        await settle()
        assert (here.initialized, here.sealed) == (True, True)
        assert here.status().cluster_id == there.status().cluster_id
        await unsealed(here, shares)
        assert await Transaction(follower, here.barrier).get(BOOTSTRAP_PATH) == BOOTSTRAP_VALUE
        assert there.sealed
        await there.close()
        await here.close()

    asyncio.run(run())


def test_a_restarted_node_comes_up_sealed_and_opens() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await unsealed(manager, shares)
        restarted = consensus.restarted()
        again = await manager_of(restarted, seed="again")
        assert (again.initialized, again.sealed, restarted.eligible) == (True, True, False)
        assert again.status().last_seal_reason == ""
        await unsealed(again, shares)
        assert await Transaction(restarted, again.barrier).get(BOOTSTRAP_PATH) == BOOTSTRAP_VALUE
        await again.close()

    on_a_sealed_node(scenario)


def test_a_rotated_keyring_is_taken_up_by_whoever_holds_the_barrier() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await unsealed(manager, shares)
        barrier = manager.barrier
        key = barrier.physical("shared/new")
        written_before = barrier.encrypt(key, b"old term")
        await rotate(consensus, shares)
        await settle()
        assert manager.barrier is barrier
        assert barrier.decrypt(key, written_before) == b"old term"
        assert barrier.encrypt(key, b"new term")[1:5] != written_before[1:5]
        manager.seal("test")
        with pytest.raises(Sealed):
            barrier.physical("shared/new")

    on_a_sealed_node(scenario)


def test_shares_towards_a_set_that_is_replaced_are_forgotten() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await manager.unseal(shares.texts[0])
        elsewhere = LocalConsensus()
        other = await manager_of(elsewhere, seed="after a rekey")
        await initialized(other)
        await other.close()
        consensus.apply(Batch(puts=(Put(SEAL_KEY, elsewhere.records[SEAL_KEY].value),)))
        await settle()
        assert (manager.status().progress, manager.status().nonce) == (0, "")
        with pytest.raises(ShareRejected) as caught:
            await manager.unseal(shares.texts[1])
        assert caught.value.details == {"kind": "other_set"}

    on_a_sealed_node(scenario)


def test_right_shares_over_a_damaged_keyring_are_corruption_and_open_nothing() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        stored = consensus.records[KEYRING_KEY].value
        consensus.corrupt(KEYRING_KEY, stored[:-1] + bytes((stored[-1] ^ 1,)))
        await manager.unseal(shares.texts[0])
        await manager.unseal(shares.texts[1])
        with pytest.raises(Corruption):
            await manager.unseal(shares.texts[2])
        assert (manager.sealed, consensus.eligible, manager.status().progress) == (True, False, 0)

    on_a_sealed_node(scenario)


@pytest.mark.parametrize("missing", [KEYRING_KEY, SEAL_KEY], ids=["keyring", "seal"])
def test_a_vanished_record_is_corruption(missing: bytes) -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        del consensus.records[missing]
        with pytest.raises(Corruption):
            await unsealed(manager, shares)
        assert manager.sealed

    on_a_sealed_node(scenario)


def test_a_damaged_record_at_start_is_corruption() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        restarted = consensus.restarted()
        restarted.corrupt(SEAL_KEY, b"\x01damaged")
        with pytest.raises(Corruption):
            await manager_of(restarted)

    on_a_sealed_node(scenario)


def test_a_record_that_arrives_damaged_seals_the_node_and_is_reported_as_fatal() -> None:
    async def run() -> None:
        consensus, fatal = LocalConsensus(), list[Fatal]()
        manager = await manager_of(consensus, on_fatal=fatal.append)
        await unsealed(manager, await initialized(manager))
        consensus.apply(Batch(puts=(Put(KEYRING_KEY, b"damaged"),)))
        await settle()
        assert [type(error) for error in fatal] == [Corruption]
        assert manager.sealed
        assert not consensus.eligible
        await manager.close()

    asyncio.run(run())


def test_without_a_handler_a_damaged_record_goes_to_the_event_loops_handler() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
        await unsealed(manager, shares)
        consensus.apply(Batch(puts=(Put(KEYRING_KEY, b"damaged"),)))
        await settle()
        assert [type(error) for error in told] == [Corruption]
        assert manager.sealed

    on_a_sealed_node(scenario)


def test_closing_seals_and_stops_following() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await unsealed(manager, shares)
        await manager.close()
        assert manager.sealed
        assert consensus._listeners == []
        await manager.close()

    on_a_sealed_node(scenario)


def test_whoever_kept_the_open_keys_has_none_after_sealing() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await unsealed(manager, shares)
        kept = manager._keys
        assert kept is not None
        assert len(kept._root_key) == 32
        manager.seal("test")
        assert kept._root_key == b""
        assert repr(kept) == "<OpenKeys <Barrier <Keyring closed>>>"

    on_a_sealed_node(scenario)


def test_keys_and_shares_refuse_to_be_serialised() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await unsealed(manager, shares)
        for thing in (manager._keys, shares, decode(shares.texts[0])):
            with pytest.raises(TypeError, match="never copied"):
                pickle.dumps(thing)

    on_a_sealed_node(scenario)


def test_no_repr_shows_a_key() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares) -> None:
        await unsealed(manager, shares)
        assert repr(manager) == "<SealManager unsealed>"
        assert repr(manager._keys) == "<OpenKeys <Barrier <Keyring terms=1 active=1>>>"

    on_a_sealed_node(scenario)
