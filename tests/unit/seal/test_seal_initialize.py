"""Initialisation: one batch, once, and no shares given up before their outcome is certain."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest
from support.local_consensus import Fault, LocalConsensus
from support.seal_rig import bootstrap, initialized, manager_of, stream, unsealed

from holdfast.cluster.raft.consensus import Applied, Conflicted, Duplicate, Role
from holdfast.cluster.seal.initialize import commit, prepare, split_counts
from holdfast.cluster.seal.records import KEYRING_KEY, SEAL_KEY, decode_config
from holdfast.cluster.seal.shares import decode
from holdfast.proto.errors import (
    AlreadyInitialized,
    Corruption,
    HoldfastError,
    InvalidArgument,
    NoLeader,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)
from holdfast.storage.batch import Batch, Precondition, Put
from holdfast.storage.transaction import Transaction


def run(scenario: Callable[[LocalConsensus], Awaitable[None]]) -> None:
    async def in_loop() -> None:
        await scenario(LocalConsensus())

    asyncio.run(in_loop())


async def turns_until(condition: Callable[[], bool]) -> None:
    """Give the other tasks turns until something has happened."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never happened")


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ((0, 0), (5, 3)),
        ((2, 0), (2, 2)),
        ((1, 0), (1, 1)),
        ((0, 5), (5, 5)),
        ((255, 255), (255, 255)),
        ((7, 4), (7, 4)),
    ],
)
def test_counts_have_defaults(asked: tuple[int, int], given: tuple[int, int]) -> None:
    assert split_counts(*asked) == given


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ((256, 3), "secret_shares"),
        ((-1, 1), "secret_shares"),
        ((5, 6), "secret_threshold"),
        ((5, 1), "secret_threshold"),
        ((5, -1), "secret_threshold"),
    ],
)
def test_counts_out_of_range_name_the_field(asked: tuple[int, int], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        split_counts(*asked)
    assert caught.value.field == field


def test_everything_is_one_batch_that_holds_only_if_there_are_no_keys() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus)
        shares = await initialized(manager, shares=7, threshold=4)
        (batch,) = consensus.proposed
        assert [put.key for put in batch.puts[:2]] == [SEAL_KEY, KEYRING_KEY]
        assert len(batch.puts) == 3
        assert batch.preconditions == (Precondition(SEAL_KEY, 0), Precondition(KEYRING_KEY, 0))
        assert batch.request is not None
        assert len(batch.request.key) == 16
        config = decode_config(batch.puts[0].value)
        assert (config.shares, config.threshold, config.cluster_name) == (7, 4, "demo")
        assert config.created_ms == 1_800_000_000_000
        assert [decode(text).x for text in shares.texts] == [1, 2, 3, 4, 5, 6, 7]
        status = manager.status()
        assert (status.initialized, status.sealed, status.shares, status.threshold) == (True, True, 7, 4)
        assert (status.cluster_id, status.cluster_name) == (config.cluster_id, "demo")
        await manager.close()

    run(scenario)


@pytest.mark.parametrize(("shares", "threshold"), [(1, 1), (2, 2), (5, 3)])
def test_any_threshold_of_the_shares_opens_the_cluster(shares: int, threshold: int) -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus)
        made = await initialized(manager, shares=shares, threshold=threshold)
        for subset in itertools.combinations(made.texts, threshold):
            for text in subset:
                await manager.unseal(text)
            assert not manager.sealed
            manager.seal("next subset")
        await manager.close()

    run(scenario)


def test_no_share_or_key_is_in_what_is_stored() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus)
        shares = await initialized(manager)
        stored = b"".join(key + record.value for key, record in consensus.records.items())
        for text in shares.texts:
            share = decode(text)
            assert share.core[:-1] not in stored
            assert text.encode() not in stored
        await unsealed(manager, shares)
        assert manager._keys is not None
        assert manager._keys._root_key not in stored
        await manager.close()

    run(scenario)


def test_a_second_initialisation_changes_nothing() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus)
        shares = await initialized(manager)
        with pytest.raises(AlreadyInitialized):
            await initialized(manager)
        assert len(consensus.proposed) == 1
        await unsealed(manager, shares)
        await manager.close()

    run(scenario)


def test_of_two_initialisations_that_race_on_one_node_one_gets_shares_that_work() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus)
        results = await asyncio.gather(initialized(manager), initialized(manager), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        (shares,) = [result for result in results if not isinstance(result, BaseException)]
        assert [type(error) for error in errors] == [AlreadyInitialized]
        await unsealed(manager, shares)
        await manager.close()

    run(scenario)


def test_of_two_initialisations_that_race_past_every_check_the_second_is_refused_at_apply() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        # Two managers on one consensus stand for two leaders in turn: neither knows of the other.
        one, two = await manager_of(consensus, seed=1), await manager_of(consensus, seed=2)
        results = await asyncio.gather(initialized(one), initialized(two), return_exceptions=True)
        assert len(consensus.proposed) == 2
        assert isinstance(results[1], AlreadyInitialized)
        assert not isinstance(results[0], BaseException)
        await unsealed(one, results[0])
        await unsealed(two, results[0])
        await one.close()
        await two.close()

    run(scenario)


@pytest.mark.parametrize(
    ("role", "leader", "error"),
    [
        (Role.FOLLOWER, "node-2", NotLeader),
        (Role.FOLLOWER, "", NoLeader),
        (Role.CANDIDATE, "", NoLeader),
    ],
)
def test_a_node_that_does_not_lead_refuses_before_it_makes_anything(
    role: Role, leader: str, error: type[HoldfastError]
) -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus)
        consensus.set_role(role, leader_id=leader)
        with pytest.raises(error) as caught:
            await initialized(manager)
        assert caught.value.details.get("leader_id", "") == leader
        assert consensus.proposed == []
        await manager.close()

    run(scenario)


def test_a_leader_that_is_not_ready_refuses() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus)
        consensus.set_role(Role.LEADER, ready=False)
        with pytest.raises(NoLeader):
            await initialized(manager)
        await manager.close()

    run(scenario)


@pytest.mark.parametrize(("fault", "error"), [(Fault.NOT_LEADER, NotLeader), (Fault.OVERLOADED, Overloaded)])
def test_a_refused_proposal_is_told_as_it_is_and_can_be_tried_again(fault: Fault, error: type[HoldfastError]) -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus)
        consensus.fail_next(fault)
        with pytest.raises(error):
            await initialized(manager)
        assert not manager.initialized
        await unsealed(manager, await initialized(manager))
        await manager.close()

    run(scenario)


@pytest.mark.parametrize(
    "faults",
    [
        [Fault.LOST_REPLY],
        [Fault.LOST_PROPOSAL],
        [Fault.LATE],
        [Fault.LOST_PROPOSAL, Fault.OVERLOADED, Fault.NOT_LEADER, Fault.LOST_REPLY],
    ],
    ids=lambda faults: "+".join(fault.name for fault in faults),
)
def test_a_lost_outcome_is_asked_for_until_it_is_known(faults: list[Fault]) -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus)
        consensus.fail_next(*faults)
        shares = await initialized(manager)
        assert len(set(consensus.proposed)) == 1, "the same batch every time"
        assert all(isinstance(outcome, Duplicate) for outcome in consensus.deliver_late())
        await unsealed(manager, shares)
        await manager.close()

    run(scenario)


def test_a_late_copy_changes_nothing_even_when_its_request_record_has_expired() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus)
        consensus.fail_next(Fault.LATE)
        shares = await initialized(manager)
        consensus.cluster_time_ms += 10_000_000
        assert [type(outcome) for outcome in consensus.deliver_late()] == [Conflicted]
        await unsealed(manager, shares)
        await manager.close()

    run(scenario)


def test_the_own_seal_in_the_state_is_success_on_a_node_that_lost_leadership() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus)
        consensus.fail_next(Fault.LATE)
        attempt = asyncio.create_task(initialized(manager))
        await turns_until(lambda: bool(consensus._late))
        consensus.set_role(Role.FOLLOWER)
        await asyncio.sleep(0)
        assert [type(outcome) for outcome in consensus.deliver_late()] == [Applied]
        shares = await attempt
        await unsealed(manager, shares)
        await manager.close()

    run(scenario)


def test_a_leader_of_a_later_term_without_the_seal_settles_that_nothing_happened() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus)
        consensus.fail_next(Fault.LOST_PROPOSAL)
        attempt = asyncio.create_task(initialized(manager))
        await turns_until(lambda: bool(consensus.proposed))
        consensus.set_role(Role.FOLLOWER, leader_id="node-2")
        with pytest.raises(NotLeader) as caught:
            await attempt
        assert caught.value.details == {"leader_id": "node-2"}
        assert len(consensus.proposed) == 1
        await manager.close()

    run(scenario)


def test_a_read_barrier_of_the_term_in_which_the_batch_was_sent_settles_nothing() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus, outcome_wait_s=0.05)
        consensus.fail_next(Fault.LATE)
        attempt = asyncio.create_task(initialized(manager))
        await turns_until(lambda: bool(consensus._late))
        # It stepped down within its term, and the entry may still commit in it.
        consensus._role, consensus._leader_id = Role.FOLLOWER, "node-2"
        assert await consensus.read_barrier(timeout_s=1)
        with pytest.raises(OutcomeUnknown):
            await attempt
        await manager.close()

    run(scenario)


def test_another_clusters_seal_that_came_first_makes_the_own_shares_void() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        elsewhere = LocalConsensus()
        winner = await manager_of(elsewhere, seed="winner")
        shares = await initialized(winner)
        await winner.close()
        manager = await manager_of(consensus, seed="loser")
        consensus.fail_next(Fault.LATE)
        attempt = asyncio.create_task(initialized(manager))
        await turns_until(lambda: bool(consensus._late))
        consensus.set_role(Role.FOLLOWER)
        consensus.apply(elsewhere.proposed[0])
        with pytest.raises(AlreadyInitialized):
            await attempt
        assert [type(outcome) for outcome in consensus.deliver_late()] == [Conflicted]
        await unsealed(manager, shares)
        assert manager.status().last_seal_reason == ""
        await manager.close()

    run(scenario)


def test_an_outcome_that_stays_unknown_is_told_plainly_and_so_is_what_came_of_it() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus, outcome_wait_s=0.05)
        consensus.fail_next(Fault.LATE, *[Fault.NOT_LEADER] * 50)
        with pytest.raises(OutcomeUnknown, match=r"shares .* are lost.*empty their data folders") as caught:
            await initialized(manager)
        assert caught.value.details == {"shares": "lost"}
        assert manager.status().last_seal_reason == ""
        consensus.deliver_late()
        await manager.refresh()
        assert "nobody holds its shares" in manager.status().last_seal_reason
        with pytest.raises(AlreadyInitialized, match="nobody holds its shares"):
            await initialized(manager)
        await manager.close()

    run(scenario)


@pytest.mark.parametrize("sent", [False, True])
def test_a_node_that_stops_in_the_middle_says_what_it_knows(sent: bool) -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus)
        consensus.fail_next(Fault.LATE)
        if sent:
            attempt = asyncio.create_task(initialized(manager))
            await turns_until(lambda: bool(consensus._late))
            consensus.stopped = True
            with pytest.raises(OutcomeUnknown, match="are lost"):
                await attempt
        else:
            consensus.stopped = True
            with pytest.raises(Unavailable):
                await initialized(manager)
        await manager.close()

    run(scenario)


def test_an_attempt_after_an_unknown_one_that_never_happened_succeeds() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus, outcome_wait_s=0.05)
        consensus.fail_next(Fault.LOST_PROPOSAL, *[Fault.NOT_LEADER] * 50)
        with pytest.raises(OutcomeUnknown):
            await initialized(manager)
        consensus.faults.clear()
        await unsealed(manager, await initialized(manager))
        assert manager.status().last_seal_reason == ""
        await manager.close()

    run(scenario)


def test_a_request_cancelled_while_it_commits_leaves_its_mark_in_the_status() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus)
        consensus.fail_next(Fault.LATE)
        attempt = asyncio.create_task(initialized(manager))
        await turns_until(lambda: bool(consensus._late))
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        consensus.deliver_late()
        await manager.refresh()
        assert "nobody holds its shares" in manager.status().last_seal_reason
        await manager.close()

    run(scenario)


def test_a_bootstrap_that_fails_leaves_nothing_behind() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        async def failing(transaction: Transaction) -> None:
            await bootstrap(transaction)
            raise InvalidArgument("no")

        manager = await manager_of(consensus)
        with pytest.raises(InvalidArgument):
            await manager.initialize(shares=5, threshold=3, bootstrap=failing)
        assert (consensus.proposed, consensus.records, manager.initialized) == ([], {}, False)
        await unsealed(manager, await initialized(manager))
        await manager.close()

    run(scenario)


def test_a_keyring_without_a_seal_is_corruption() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        manager = await manager_of(consensus)
        consensus.apply(Batch(puts=(Put(KEYRING_KEY, b"left over"),)))
        with pytest.raises(Corruption):
            await initialized(manager)
        await manager.close()

    run(scenario)


def test_a_source_of_randomness_that_runs_dry_makes_nothing() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        with pytest.raises((AssertionError, ValueError)):
            await prepare(
                consensus,
                shares=5,
                threshold=3,
                cluster_name="demo",
                created_ms=0,
                bootstrap=bootstrap,
                random_bytes=lambda count: b"\x00" * (count - 1),
            )

    run(scenario)


def test_a_prepared_initialisation_shows_no_share_and_commits_once() -> None:
    async def scenario(consensus: LocalConsensus) -> None:
        made = await prepare(
            consensus,
            shares=5,
            threshold=3,
            cluster_name="demo",
            created_ms=0,
            bootstrap=bootstrap,
            random_bytes=stream("prepared"),
        )
        assert repr(made) == f"<Initialization {made.shares!r}>"
        for _ in range(2):
            await commit(consensus, made.batch, made.seal_record, wait_s=5)
        assert consensus.records[SEAL_KEY].revision == consensus.records[KEYRING_KEY].revision

    run(scenario)
