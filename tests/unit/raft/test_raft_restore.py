"""The entry that replaces the state: carried out alike on every node, by a log that goes on as ever."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from support.raft_cluster import LoopCluster, until, until_async
from support.raft_rig import put

from holdfast.cluster.raft import restoring
from holdfast.cluster.raft.consensus import Applied, Conflicted
from holdfast.cluster.raft.entries import Entry, Kind, Position, encode_batch, follow, join_batches
from holdfast.cluster.raft.node import RaftNode
from holdfast.cluster.raft.restoring import Restoration
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.proto.errors import Conflict, Corruption, NotLeader
from holdfast.storage.batch import Batch, Precondition, Put, RequestRecord
from holdfast.storage.home import StateHome
from holdfast.storage.keys import cluster_key
from holdfast.storage.memoryhome import MemoryHome
from holdfast.storage.rockshome import RocksHome

WAIT_S = 20.0
SEAL = cluster_key("seal/shamir")
HIDDEN = b"c\x00\x11" + b"x" * 17
FILE = ((HIDDEN, b"hidden then"), (SEAL, b"seal then"), (b"l1", b"token then"), (b"s1", b"then"))
SHA256 = hashlib.sha256(b"file").digest()


def prepare(node: RaftNode, records: Sequence[tuple[bytes, bytes]] = FILE, sha256: bytes = SHA256) -> None:
    content = node.stage_content()
    store = content.open()
    list(restoring.fill(store, sorted(records)))
    store.close()
    node.prepare_content(sha256, content)


def run(story: Callable[[LoopCluster], Awaitable[None]]) -> None:
    async def play() -> None:
        cluster = LoopCluster("abc")
        await cluster.start_all()
        try:
            await story(cluster)
            assert not cluster.fatal
        finally:
            await cluster.stop()

    asyncio.run(play())


async def filled(cluster: LoopCluster) -> RaftNode:
    leader = await cluster.leader()
    puts = tuple(Put(key, b"now") for key in (SEAL, HIDDEN, b"s1", b"s2"))
    await leader.propose(Batch(puts=puts, request=RequestRecord(b"id", b"answer")), timeout_s=WAIT_S)
    await cluster.everywhere(b"s2", b"now")
    return leader


async def equal_everywhere(cluster: LoopCluster) -> dict[bytes, bytes]:
    leader = await cluster.leader()
    await leader.propose(put(b"s9", b"end"), timeout_s=WAIT_S)
    await cluster.everywhere(b"s9", b"end")
    await until(lambda: len({node.status().applied_index for node in cluster.nodes.values()}) == 1)
    contents = [dict(home.store.scan(b"")) for _, home in cluster.stores.values()]
    assert all(content == contents[0] for content in contents)
    return {key[1:]: value[8:] for key, value in contents[0].items() if key[:1] == b"d"}


@pytest.mark.parametrize("replace_keys", [False, True])
def test_the_state_is_that_of_the_file_everywhere_and_the_seal_as_the_entry_says(replace_keys: bool) -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await filled(cluster)
        told: list[bool] = []
        for node in cluster.nodes.values():
            node.on_replaced(told.append)
            prepare(node)
        before = leader.status()
        index = await leader.restore(Restoration(SHA256, replace_keys), timeout_s=WAIT_S)
        assert index == before.last_index + 1
        await cluster.everywhere(b"s1", b"then")
        found = await equal_everywhere(cluster)
        seal = b"seal then" if replace_keys else b"now"
        assert found == {SEAL: seal, HIDDEN: b"hidden then", b"l1": b"token then", b"s1": b"then", b"s9": b"end"}
        assert told == [replace_keys] * 3
        leader = await cluster.leader()
        assert leader.status().term > before.term, "whoever led begins anew"
        assert await leader.duplicate_of(b"id") is None, "a retry must be done again"

    run(story)


def test_what_was_read_before_is_no_ground_for_a_write_after() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await filled(cluster)
        read = await leader.get(b"s1")
        assert read is not None
        for node in cluster.nodes.values():
            prepare(node, [*FILE, (b"s2", b"now")])
        index = await leader.restore(Restoration(SHA256, replace_keys=False), timeout_s=WAIT_S)
        leader = await cluster.leader()
        for key in (b"s1", b"s2", SEAL):
            late = Batch(puts=(Put(key, b"late"),), preconditions=(Precondition(key, read.revision),))
            assert isinstance(await leader.propose(late, timeout_s=WAIT_S), Conflicted)
            record = await leader.get(key)
            assert record is not None
            assert record.revision == index
        passed_over = await leader.scan(b"", 100)
        assert [record.revision for _, record in passed_over] == [index] * len(passed_over), "or no rewrite ever fits"
        assert isinstance(await leader.propose(put(b"s1", b"new", revision=index), timeout_s=WAIT_S), Applied)

    run(story)


def test_a_write_that_waits_while_the_state_is_replaced_is_not_done() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await filled(cluster)
        for node in cluster.nodes.values():
            prepare(node)
        restore = asyncio.ensure_future(leader.restore(Restoration(SHA256, replace_keys=False), timeout_s=WAIT_S))
        await asyncio.sleep(0)
        write = asyncio.ensure_future(leader.propose(put(b"s5", b"late"), timeout_s=WAIT_S))
        await restore
        with pytest.raises(NotLeader):
            await write
        assert b"s5" not in await equal_everywhere(cluster)

    run(story)


def test_a_node_without_the_content_waits_asks_and_goes_on() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await filled(cluster)
        without = next(node for node in cluster.nodes.values() if node is not leader)
        wanted: list[bytes] = []  # should it be elected, it hands over to one that has the content
        without.on_content_wanted = wanted.append
        for node in cluster.nodes.values():
            if node is not without:
                prepare(node)
        await leader.restore(Restoration(SHA256, replace_keys=False), timeout_s=WAIT_S)
        await (await cluster.leader()).propose(put(b"s7", b"after"), timeout_s=WAIT_S)
        await until(lambda: wanted == [SHA256])
        assert await without.get(b"s7") is None
        assert without.content_wanted() == SHA256
        assert without.content_in_log(SHA256)
        prepare(without)
        await cluster.everywhere(b"s7", b"after")
        await equal_everywhere(cluster)

    run(story)


def test_a_node_that_loses_power_before_it_applies_the_entry_comes_to_it_again() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await filled(cluster)
        name, slow = next((name, node) for name, node in cluster.nodes.items() if node is not leader)
        slow.on_content_wanted = lambda _sha256: None
        for node in cluster.nodes.values():
            if node is not slow:
                prepare(node)
        await leader.restore(Restoration(SHA256, replace_keys=False), timeout_s=WAIT_S)
        await until(lambda: slow.content_wanted() == SHA256)
        await cluster.kill(name)
        again = await cluster.start(name)
        await until(lambda: again.content_wanted() == SHA256)
        prepare(again)
        await cluster.everywhere(b"s1", b"then")
        await equal_everywhere(cluster)

    run(story)


def test_a_precondition_that_does_not_hold_changes_nothing_anywhere() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await filled(cluster)
        for node in cluster.nodes.values():
            prepare(node)
        record = await leader.get(SEAL)
        assert record is not None
        stale = Restoration(SHA256, replace_keys=False, preconditions=(Precondition(SEAL, record.revision - 1),))
        with pytest.raises(Conflict, match="nothing was restored"):
            await leader.restore(stale, timeout_s=WAIT_S)
        assert (await equal_everywhere(cluster))[b"s1"] == b"now"
        held = Restoration(SHA256, replace_keys=False, preconditions=(Precondition(SEAL, record.revision),))
        await leader.restore(held, timeout_s=WAIT_S)
        await cluster.everywhere(b"s1", b"then")

    run(story)


def test_what_is_not_prepared_is_not_put_into_the_log() -> None:
    async def story(cluster: LoopCluster) -> None:
        leader = await filled(cluster)
        last = leader.status().last_index
        with pytest.raises(Conflict):
            await leader.restore(Restoration(SHA256, replace_keys=False), timeout_s=WAIT_S)
        follower = next(node for node in cluster.nodes.values() if node is not leader)
        prepare(follower)
        with pytest.raises(NotLeader):
            await follower.restore(Restoration(SHA256, replace_keys=False), timeout_s=WAIT_S)
        assert leader.status().last_index == last

    run(story)


def test_a_member_that_comes_over_the_entry_by_a_snapshot_learns_that_the_keys_were_replaced() -> None:
    async def story(cluster: LoopCluster) -> None:
        from holdfast.cluster.raft.timing import Limits, Timing

        cluster.limits = Limits(log_tail=5, log_lag=10, trim_step=5)
        cluster.timing = Timing(away_s=0.2, snapshot_retry_s=0.2)
        for name in "abc":
            await cluster.kill(name)
        await cluster.start_all()
        leader = await filled(cluster)
        name, away = next((name, node) for name, node in cluster.nodes.items() if node is not leader)
        told: list[bool] = []
        away.on_replaced(told.append)
        cluster.network.isolate(name)
        for node in cluster.nodes.values():
            prepare(node)
        await leader.restore(Restoration(SHA256, replace_keys=True), timeout_s=WAIT_S)
        others = [node for node in cluster.nodes.values() if node is not away]
        await until(lambda: any(node.status().ready for node in others))
        leader = next(node for node in others if node.status().ready)
        restored = leader.status().applied_index
        n = 0
        while leader._running().log.base.index <= restored + 5:
            await leader.propose(put(b"s%d" % (n % 9), b"%100d" % n), timeout_s=WAIT_S)
            n += 1
        cluster.network.isolate()
        await until_async(lambda: _has(away, SEAL, b"seal then"))
        assert told == [True]

    run(story)


async def _has(node: RaftNode, key: bytes, value: bytes) -> bool:
    record = await node.get(key)
    return record is not None and record.value == value


# A crash at each step

STEPS = ["closed", "set aside", "renamed", "durable", "opened"]


class Died(Exception):
    """The process ended here."""


def log_of(*kinds: tuple[Kind, bytes]) -> list[Entry]:
    entries: list[Entry] = []
    for kind, payload in kinds:
        previous: Entry | Position = entries[-1] if entries else Position()
        entries.append(follow(previous, term=1, cluster_time_ms=0, kind=kind, payload=payload))
    return entries


def staged(home: StateHome) -> object:
    content = home.stage()
    store = content.open()
    list(restoring.fill(store, sorted(FILE)))
    store.close()
    return content


@pytest.mark.parametrize("step", ["", *STEPS])
def test_a_crash_at_any_step_leaves_the_old_state_or_the_new_one(tmp_path: Path, step: str) -> None:
    def dies(now: str) -> None:
        if now == step:
            raise Died

    batch = Batch(puts=(Put(SEAL, b"now"), Put(b"s1", b"now"), Put(b"s2", b"now")))
    first, restore = log_of(
        (Kind.BATCHES, join_batches([encode_batch(batch)])),
        (Kind.RESTORE, restoring.encode(Restoration(SHA256, replace_keys=False))),
    )
    home = RocksHome.open(tmp_path / "state", on_step=dies)
    machine = StateMachine(home.store)
    machine.apply([first])
    machine.sync()
    content = staged(home)
    if step:
        with pytest.raises(Died):
            restoring.exchange(content, machine=machine, home=home, entry=restore)  # type: ignore[arg-type]
    home.close()
    again = RocksHome.open(tmp_path / "state")
    machine = StateMachine(again.store)
    assert machine.applied.index in (1, 2)
    if machine.applied.index == 1:
        old = machine.get(b"s1")
        assert old is not None
        assert old.value == b"now"
        restoring.exchange(staged(again), machine=machine, home=again, entry=restore)  # type: ignore[arg-type]
    records = {key: machine.get(key) for key in (SEAL, b"s1", b"s2", b"l1")}
    values = {key: None if record is None else record.value for key, record in records.items()}
    assert values == {SEAL: b"now", b"s1": b"then", b"s2": None, b"l1": b"token then"}
    again.close()
    assert not [p.name for p in tmp_path.iterdir() if p.name in ("state.staged", "state.receiving")]


def test_memory_and_rocksdb_restore_to_the_same(tmp_path: Path) -> None:
    batch = Batch(puts=(Put(SEAL, b"now"), Put(b"s1", b"now")), request=RequestRecord(b"id", b"answer"))
    entries = log_of(
        (Kind.BATCHES, join_batches([encode_batch(batch)])),
        (Kind.RESTORE, restoring.encode(Restoration(SHA256, replace_keys=False))),
    )
    homes: list[StateHome] = [MemoryHome(), RocksHome.open(tmp_path / "state")]
    found = []
    for home in homes:
        machine = StateMachine(home.store)
        machine.apply(entries[:1])
        restoring.exchange(staged(home), machine=machine, home=home, entry=entries[1])  # type: ignore[arg-type]
        found.append((list(home.store.scan(b"")), machine.state_digest, machine.applied))
        home.close()
    assert found[0] == found[1]


def test_content_that_is_gone_by_the_time_it_is_needed_is_no_empty_state(tmp_path: Path) -> None:
    home = RocksHome.open(tmp_path / "state")
    content = home.stage()
    machine = StateMachine(home.store)
    restore = log_of((Kind.RESTORE, restoring.encode(Restoration(SHA256, replace_keys=True))))
    with pytest.raises(Corruption, match="not complete"):
        restoring.exchange(content, machine=machine, home=home, entry=restore[0])
    home.close()
