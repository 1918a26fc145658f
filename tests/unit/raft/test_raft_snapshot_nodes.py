"""Snapshots between RaftNodes over in-process links: members that were away for long, that join late, that die while
they receive, and leaders that change in the middle of a transfer."""

import asyncio
from collections.abc import Awaitable, Callable

from support.raft_cluster import LoopCluster, until
from support.raft_rig import member, put

from holdfast.cluster.raft.node import RaftNode
from holdfast.cluster.raft.timing import Limits, Timing
from holdfast.storage.batch import Batch, Put
from holdfast.storage.keys import cluster_key

WAIT_S = 20.0
SMALL = Limits(log_tail=5, log_lag=10, trim_step=5, snapshot_chunk_bytes=300, snapshot_window_bytes=900)
QUICK = Timing(away_s=0.2, snapshot_retry_s=0.2, snapshot_keep_s=1.0)


def run(story: Callable[[LoopCluster], Awaitable[None]], *, timing: Timing = QUICK) -> None:
    async def play() -> None:
        cluster = LoopCluster("abc", limits=SMALL, timing=timing)
        await cluster.start_all()
        try:
            await story(cluster)
            assert not cluster.fatal
        finally:
            await cluster.stop()

    asyncio.run(play())


async def one_away(cluster: LoopCluster) -> str:
    """Kill a follower and write until the log no longer reaches back to it."""
    leader = await cluster.leader()
    away = next(name for name, node in cluster.nodes.items() if node is not leader)
    await cluster.kill(away)
    await asyncio.sleep(QUICK.away_s)
    await write_until_trimmed(leader)
    return away


async def write_until_trimmed(leader: RaftNode) -> None:
    last = leader.status().last_index
    n = 0
    while leader._running().log.base.index <= last + 20:
        await leader.propose(put(b"k%d" % (n % 20), b"%1000d" % n), timeout_s=WAIT_S)
        n += 1


async def same_everywhere(cluster: LoopCluster) -> None:
    leader = await cluster.leader()
    done = await leader.propose(put(b"end", b"end"), timeout_s=WAIT_S)
    await cluster.everywhere(b"end", b"end")
    await until(lambda: len({node.status().applied_index for node in cluster.nodes.values()}) == 1)
    digests = {node._running().machine.state_digest for node in cluster.nodes.values()}
    assert len(digests) == 1, done
    contents = [dict(home.store.scan(b"")) for _, home in cluster.stores.values()]
    assert all(content == contents[0] for content in contents)


def test_a_member_that_was_away_returns_by_a_snapshot() -> None:
    async def story(cluster: LoopCluster) -> None:
        away = await one_away(cluster)
        await cluster.start(away)
        await same_everywhere(cluster)
        assert cluster.stores[away][1].installs == 1
        assert cluster.nodes[away]._running().log.base.index > 20

    run(story)


def test_a_restart_after_an_install_finds_state_and_log_together() -> None:
    async def story(cluster: LoopCluster) -> None:
        away = await one_away(cluster)
        await cluster.start(away)
        await same_everywhere(cluster)
        await cluster.kill(away)
        await cluster.start(away)
        await same_everywhere(cluster)
        assert cluster.stores[away][1].installs == 0, "it was not needed again"

    run(story)


def test_a_node_joins_long_after_the_log_was_trimmed_and_votes() -> None:
    async def story(cluster: LoopCluster) -> None:
        await write_until_trimmed(await cluster.leader())
        await cluster.start("d", initial=())
        await (await cluster.leader()).add_member(member("d"), timeout_s=WAIT_S)
        await until(lambda: "d" in cluster.nodes["d"]._running().log.configurations.voters)
        await same_everywhere(cluster)
        assert cluster.stores["d"][1].installs == 1

    run(story)


def test_all_cluster_keys_are_announced_after_an_install() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await cluster.leader()
        gone, new = cluster_key("gone"), cluster_key("new")
        await leader.propose(Batch(puts=(Put(gone, b"v"),)), timeout_s=WAIT_S)
        await cluster.everywhere(gone, b"v")
        away = next(name for name, node in cluster.nodes.items() if node is not leader)
        cluster.network.isolate(away)
        await leader.propose(Batch(puts=(Put(new, b"v"),), deletes=(gone,)), timeout_s=WAIT_S)
        await asyncio.sleep(QUICK.away_s)
        await write_until_trimmed(leader)
        announced: list[bytes] = []
        node = cluster.nodes[away]
        node.subscribe(lambda _index, keys: announced.extend(keys))
        cluster.network.isolate()
        await same_everywhere(cluster)
        assert cluster.stores[away][1].installs == 1
        assert {gone, new} <= set(announced)
        assert await node.get(gone) is None

    run(story)


def test_a_receiver_that_dies_again_and_again_is_served_in_the_end() -> None:
    slow = Timing(away_s=0.2, snapshot_retry_s=0.2, snapshot_keep_s=1.0, snapshot_bytes_per_s=20_000)

    async def story(cluster: LoopCluster) -> None:
        away = await one_away(cluster)
        for _ in range(4):
            node = await cluster.start(away)
            await until(lambda node=node: node._running()._receiver._current is not None)  # type: ignore[misc]
            await cluster.kill(away)
        await cluster.start(away)
        await same_everywhere(cluster)
        assert cluster.stores[away][1].installs == 1

    run(story, timing=slow)


def test_a_lost_session_is_taken_up_where_it_broke() -> None:
    slow = Timing(away_s=0.2, snapshot_retry_s=0.2, snapshot_keep_s=20.0, snapshot_bytes_per_s=20_000)

    async def story(cluster: LoopCluster) -> None:
        away = await one_away(cluster)
        node = await cluster.start(away)
        receiver = node._running()._receiver
        await until(lambda: receiver._current is not None and receiver._current.have > 0)
        current = receiver._current
        assert current is not None
        cluster.network.isolate(away)
        await asyncio.sleep(0.1)
        assert not current.verified
        cluster.network.isolate()
        await until(lambda: receiver._current is not current)
        assert cluster.stores[away][1].installs == 1, "the reception that was begun is the one that was installed"
        await same_everywhere(cluster)

    run(story, timing=slow)


def test_another_leader_begins_anew_with_its_own_snapshot() -> None:
    slow = Timing(away_s=0.2, snapshot_retry_s=0.2, snapshot_keep_s=1.0, snapshot_bytes_per_s=20_000)

    async def story(cluster: LoopCluster) -> None:
        away = await one_away(cluster)
        node = await cluster.start(away)
        receiver = node._running()._receiver
        await until(lambda: receiver._current is not None and receiver._current.have > 0)
        leader = await cluster.leader()
        heir = next(name for name, other in cluster.nodes.items() if other not in (leader, node))
        await leader.transfer_leadership(heir, timeout_s=WAIT_S)
        await same_everywhere(cluster)
        assert cluster.stores[away][1].installs == 1

    run(story, timing=slow)


def test_writes_go_on_while_a_snapshot_is_sent() -> None:
    slow = Timing(away_s=0.2, snapshot_retry_s=0.2, snapshot_keep_s=1.0, snapshot_bytes_per_s=20_000)

    async def story(cluster: LoopCluster) -> None:
        away = await one_away(cluster)
        leader = await cluster.leader()
        node = await cluster.start(away)
        written = 0
        while cluster.stores[away][1].installs == 0:
            await leader.propose(put(b"meanwhile", b"%d" % written), timeout_s=WAIT_S)
            written += 1
        assert written > 20
        await same_everywhere(cluster)
        assert node is cluster.nodes[away]
        assert cluster.stores[away][1].installs == 1, "the log was held for the one who receives"

    run(story, timing=slow)
