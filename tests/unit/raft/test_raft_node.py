"""RaftNodes driven by asyncio: one alone, three over in-process links, and everything that ends a wait."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from support.raft_cluster import LoopCluster, until
from support.raft_rig import Alone, member, members, put

from holdfast.cluster.raft.consensus import Applied, Conflicted, Duplicate, Role
from holdfast.cluster.raft.messages import TimeoutNow
from holdfast.cluster.raft.node import RaftNode, _late_transfer
from holdfast.cluster.raft.timing import Limits
from holdfast.proto.errors import (
    AlreadyExists,
    Conflict,
    Diverged,
    FailedPrecondition,
    InvalidArgument,
    NoLeader,
    NotFound,
    NotLeader,
    OutcomeUnknown,
    StorageFailed,
    Unavailable,
)
from holdfast.storage.batch import Batch, Put
from holdfast.storage.keys import frame

WAIT_S = 20.0


def run(story: Callable[[LoopCluster], Awaitable[None]], initial: str, *, limits: Limits | None = None) -> None:
    """Play a story on a fresh cluster."""

    async def play() -> None:
        cluster = LoopCluster(initial, limits=limits)
        await cluster.start_all()
        try:
            await story(cluster)
        finally:
            await cluster.stop()

    asyncio.run(play())


async def followers_of(cluster: LoopCluster) -> list[RaftNode]:
    leader = await cluster.leader()
    return [node for node in cluster.nodes.values() if node is not leader]


def test_a_single_voter_leads_at_once_and_keeps_records() -> None:
    async def story(cluster: LoopCluster) -> None:
        node = await cluster.leader()
        first = await node.propose(put(b"k", b"1", request=b"r"), timeout_s=WAIT_S)
        assert isinstance(first, Applied)
        assert await node.propose(put(b"k", b"2", request=b"r"), timeout_s=WAIT_S) == Duplicate(b"response to r")
        assert await node.propose(put(b"k", b"2", revision=0), timeout_s=WAIT_S) == Conflicted(b"k")
        record = await node.get(b"k")
        assert record is not None
        assert (record.value, record.revision) == (b"1", first.revision)
        assert await node.duplicate_of(b"r") == b"response to r"
        assert await node.duplicate_of(b"s") is None
        assert await node.read_barrier(timeout_s=WAIT_S) >= first.revision

    run(story, "a")


def test_children_are_listed_from_the_local_state() -> None:
    async def story(cluster: LoopCluster) -> None:
        node = await cluster.leader()
        key = b"s" + frame(b"one") + frame(b"two")
        await node.propose(Batch(puts=(Put(key, b"v"), Put(b"s" + frame(b"x"), b"v"))), timeout_s=WAIT_S)
        assert await node.children(b"s", b"", 10) == [(frame(b"x"), True, False), (frame(b"one"), False, True)]

    run(story, "a")


def test_listeners_hear_of_changes_and_roles_until_they_unsubscribe() -> None:
    async def story(cluster: LoopCluster) -> None:
        node = await cluster.leader()
        changes: list[tuple[int, list[bytes]]] = []
        stop = node.subscribe(lambda index, keys: changes.append((index, list(keys))))
        outcome = await node.propose(put(b"k", b"1"), timeout_s=WAIT_S)
        assert isinstance(outcome, Applied)
        assert changes == [(outcome.revision, [b"k"])]
        stop()
        await node.propose(put(b"k", b"2"), timeout_s=WAIT_S)
        assert len(changes) == 1

    run(story, "a")


def test_three_nodes_agree_and_every_one_reads_what_was_written() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        for n in range(20):
            await leader.propose(put(b"k", b"%d" % n), timeout_s=WAIT_S)
            for node in cluster.nodes.values():
                await node.read_barrier(timeout_s=WAIT_S)
                record = await node.get(b"k")
                assert record is not None
                assert record.value == b"%d" % n
        for follower in await followers_of(cluster):
            with pytest.raises(NotLeader):
                await follower.propose(put(b"k", b"x"), timeout_s=WAIT_S)

    run(story, "abc")


def test_many_writers_share_entries() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        before = leader.status().last_index
        outcomes = await asyncio.gather(
            *(leader.propose(put(b"k%d" % n, b"v"), timeout_s=WAIT_S) for n in range(200))
        )  # fmt: skip
        assert all(isinstance(outcome, Applied) for outcome in outcomes)
        assert leader.status().last_index - before < 20

    run(story, "abc")


def test_a_dead_leader_is_replaced_and_comes_back_with_everything() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        await leader.propose(put(b"before", b"1"), timeout_s=WAIT_S)
        dead = leader.status().node_id
        await cluster.kill(dead)
        successor = await cluster.leader()
        await successor.propose(put(b"after", b"2"), timeout_s=WAIT_S)
        await cluster.start(dead)
        await cluster.everywhere(b"before", b"1")
        await cluster.everywhere(b"after", b"2")

    run(story, "abc")


def test_all_nodes_lose_power_at_once_and_keep_what_was_acknowledged() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        for n in range(30):
            await leader.propose(put(b"k%d" % n, b"v%d" % n), timeout_s=WAIT_S)
        for node_id in "abc":
            await cluster.kill(node_id)
        await cluster.start_all()
        await cluster.leader()
        for n in range(30):
            await cluster.everywhere(b"k%d" % n, b"v%d" % n)

    run(story, "abc")


def test_an_isolated_leader_steps_down_and_says_what_it_does_not_know() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        cluster.network.isolate(leader.status().node_id)
        with pytest.raises(OutcomeUnknown):
            await leader.propose(put(b"k", b"lost?"), timeout_s=WAIT_S)
        assert leader.status().role is not Role.LEADER
        with pytest.raises(NoLeader):
            await leader.read_barrier(timeout_s=0.05)
        await until(lambda: leader.status().quorum_contact_age_s > 0.3)
        others = [node for node in cluster.nodes.values() if node is not leader]
        await until(lambda: any(node.status().ready for node in others))
        cluster.network.isolate()
        await until(lambda: leader.status().leader_id not in ("", leader.status().node_id))

    run(story, "abc")


def test_without_a_quorum_a_write_times_out_with_an_unknown_outcome() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        cluster.network.isolate("a", "b", "c")
        with pytest.raises(OutcomeUnknown):
            await leader.propose(put(b"k", b"v"), timeout_s=0.01)

    run(story, "abc")


def test_leadership_is_transferred_on_request() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        writes = [asyncio.ensure_future(leader.propose(put(b"k%d" % n, b"v"), timeout_s=WAIT_S)) for n in range(5)]
        await asyncio.gather(*writes)
        target = (await followers_of(cluster))[0].status().node_id
        assert await leader.transfer_leadership(target, timeout_s=WAIT_S) == target
        assert (await cluster.leader()).status().node_id == target
        with pytest.raises(NotLeader):
            await leader.transfer_leadership(timeout_s=WAIT_S)
        with pytest.raises(FailedPrecondition):
            await cluster.nodes[target].transfer_leadership("nobody", timeout_s=WAIT_S)

    run(story, "abc")


def test_an_ineligible_leader_hands_over_to_an_eligible_member_and_keeps_leading_without_one() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        for node in await followers_of(cluster):
            node.set_eligible(eligible=False)
        await until(lambda: sum(peer.eligible for peer in leader.status().peers) == 1)
        leader.set_eligible(eligible=False)
        assert isinstance(await leader.propose(put(b"k", b"v"), timeout_s=WAIT_S), Applied)
        follower = (await followers_of(cluster))[0]
        follower.set_eligible(eligible=True)
        await until(lambda: follower.status().ready)

    run(story, "abc")


def test_a_node_joins_as_a_learner_is_promoted_and_can_be_removed() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        await leader.propose(put(b"k", b"v"), timeout_s=WAIT_S)
        await cluster.start("d", initial=())
        index = await leader.add_member(member("d"), timeout_s=WAIT_S)
        assert index <= leader.status().last_index

        def promoted() -> bool:
            return [p.member.voter for p in leader.status().peers if p.member.node_id == "d"] == [True]

        await until(promoted)
        await cluster.everywhere(b"k", b"v")
        with pytest.raises(AlreadyExists):
            await leader.add_member(member("d"), timeout_s=WAIT_S)
        await settled(lambda: leader.remove_member("d", timeout_s=WAIT_S))
        assert [p.member.node_id for p in leader.status().peers] == ["a", "b", "c"]
        with pytest.raises(NotFound):
            await leader.remove_member("d", timeout_s=WAIT_S)
        await until(lambda: len(cluster.nodes["d"].status().peers) == 3)

    run(story, "abc")


async def settled(change: Callable[[], Awaitable[int]]) -> int:
    """Repeat a membership change while the one before is being committed."""
    while True:
        try:
            return await change()
        except Conflict:
            await asyncio.sleep(0.005)


def test_a_leader_removes_itself_and_steps_down() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        gone = leader.status().node_id
        await leader.remove_member(gone, timeout_s=WAIT_S)
        others = [node for node in cluster.nodes.values() if node is not leader]
        await until(lambda: any(node.status().ready for node in others))
        assert leader.status().role is not Role.LEADER
        assert all(p.member.node_id != gone for node in others for p in node.status().peers)

    run(story, "abc")


def test_the_last_voter_cannot_be_removed() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        with pytest.raises(FailedPrecondition):
            await leader.remove_member("a", timeout_s=WAIT_S)

    run(story, "a")


def test_batches_that_a_replica_could_not_apply_are_refused() -> None:
    async def story(cluster: LoopCluster) -> None:
        node = await cluster.leader()
        for batch in (
            Batch(puts=(Put(b"k", b"1"), Put(b"k", b"2"))),
            Batch(puts=(Put(b"k", b"1"),), deletes=(b"k",)),
            Batch(puts=(Put(b"", b"1"),)),
            Batch(deletes=(b"k" * 4001,)),
            Batch(puts=(Put(b"k", bytes(2 * 1024 * 1024)),)),
            put(b"k", b"v", request=b"r" * 65),
        ):
            with pytest.raises(InvalidArgument):
                await node.propose(batch, timeout_s=WAIT_S)
        large = Batch(puts=(Put(b"k", bytes(2 * 1024 * 1024 - 100)),))
        assert isinstance(await node.propose(large, timeout_s=WAIT_S), Applied)

    run(story, "a")


def test_a_failed_sync_ends_the_node_and_every_wait() -> None:
    async def story(cluster: LoopCluster) -> None:
        node = await cluster.leader()
        cluster.stores["a"][0].fail_next_sync = True
        with pytest.raises(StorageFailed):
            await node.propose(put(b"k", b"v"), timeout_s=WAIT_S)
        assert isinstance(cluster.fatal["a"], StorageFailed)
        for call in (
            node.propose(put(b"k", b"v"), timeout_s=WAIT_S),
            node.read_barrier(timeout_s=WAIT_S),
            node.get(b"k"),
        ):
            with pytest.raises(StorageFailed):
                await call

    run(story, "a")


def test_stopping_resolves_every_wait() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        cluster.network.isolate("a", "b", "c")
        waits = [
            asyncio.ensure_future(leader.propose(put(b"k", b"v"), timeout_s=WAIT_S)),
            asyncio.ensure_future(leader.read_barrier(timeout_s=WAIT_S)),
            asyncio.ensure_future(leader.remove_member("a", timeout_s=WAIT_S)),
        ]
        await asyncio.sleep(0)
        await leader.stop()
        results = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(result) for result in results] == [OutcomeUnknown, NoLeader, OutcomeUnknown]
        with pytest.raises(Unavailable):
            await leader.propose(put(b"k", b"v"), timeout_s=WAIT_S)

    run(story, "abc")


def test_a_cancelled_waiter_leaves_nothing_behind() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        write = asyncio.ensure_future(leader.propose(put(b"k", b"v"), timeout_s=WAIT_S))
        read = asyncio.ensure_future(leader.read_barrier(timeout_s=WAIT_S))
        await asyncio.sleep(0)
        write.cancel()
        read.cancel()
        await asyncio.gather(write, read, return_exceptions=True)
        assert isinstance(await leader.propose(put(b"k", b"w"), timeout_s=WAIT_S), Applied)

    run(story, "abc")


def test_nodes_configured_with_different_members_fail_stop_and_say_why() -> None:
    async def play() -> None:
        cluster = LoopCluster("ab")
        await cluster.start("a")
        await cluster.start("b", initial=members("abc"))
        try:
            await until(lambda: bool(cluster.fatal))
            error = next(iter(cluster.fatal.values()))
            assert isinstance(error, Diverged)
            assert "initial_members" in error.message
        finally:
            await cluster.stop()

    asyncio.run(play())


def test_the_log_is_kept_for_a_member_that_was_heard_not_long_ago() -> None:
    limits = Limits(log_tail=5, trim_step=5)

    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        away = (await followers_of(cluster))[0].status().node_id
        await cluster.kill(away)
        for n in range(40):
            await leader.propose(put(b"k%d" % n, b"v"), timeout_s=WAIT_S)
        assert leader._running().log.base.index < 10
        await cluster.start(away)
        await until(lambda: all(node._running().log.base.index > 20 for node in cluster.nodes.values()))
        for node_id in "abc":
            await cluster.kill(node_id)
        await cluster.start_all()
        await cluster.leader()
        await cluster.everywhere(b"k0", b"v")
        await cluster.everywhere(b"k39", b"v")
        assert all(home.installs == 0 for _, home in cluster.stores.values())

    run(story, "abc", limits=limits)


def test_a_node_that_hears_its_leader_stays_when_another_member_was_recovered_apart() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        await leader.propose(put(b"k", b"1"), timeout_s=WAIT_S)
        one, other = await followers_of(cluster)
        await one.read_barrier(timeout_s=WAIT_S)
        for node in (leader, one):
            assert not node.judge(other.status().node_id, b"recovery")
            assert node.judge(other.status().node_id, b"")
        assert cluster.fatal == {}
        await leader.propose(put(b"k", b"2"), timeout_s=WAIT_S)

    run(story, "abc")


def test_a_node_whose_own_leader_shows_that_it_was_given_up_ends_for_good() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        await leader.propose(put(b"k", b"1"), timeout_s=WAIT_S)
        one = (await followers_of(cluster))[0]
        await one.read_barrier(timeout_s=WAIT_S)
        told: list[bytes] = []
        one._on_left_behind = told.append
        assert not one.judge(leader.status().node_id, b"recovery")
        assert told == [b"recovery"]
        assert isinstance(cluster.fatal[one.status().node_id], Diverged)
        assert not one.judge(leader.status().node_id, b"")

    run(story, "abc")


def test_a_transfer_that_may_still_happen_has_an_unknown_outcome() -> None:
    leadership = Alone("abc")
    leadership.lead()
    machine = leadership.machine
    assert machine.leadership is not None
    machine.transfer("c")
    assert isinstance(_late_transfer(machine.leadership), Unavailable), "c has not caught up and was not asked"
    machine.transfer("b")
    leadership.tick()
    assert leadership.take(TimeoutNow, "b")
    leadership.acknowledge("b")
    leadership.advance(0.2)
    assert isinstance(_late_transfer(machine.leadership), OutcomeUnknown)
    assert isinstance(_late_transfer(None), OutcomeUnknown)
