"""Restoring a snapshot into three real nodes: every node has the state as of the snapshot, whoever is killed."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.running import Running, eventually, running_cluster

from holdfast.client import LocalError, errors
from holdfast.client.local import LocalNode


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with running_cluster() as cluster:
        yield cluster


def fill(running: Running, value: int, *, count: int = 40, size: int = 10) -> None:
    with running.client() as client:
        for n in range(count):
            client.kv.put(f"restore/{n}", {"value": value, "fill": "x" * size})


def values(running: Running, node: LocalNode, *, count: int = 40) -> set[int]:
    with running.client(node.api_address) as client:
        return {client.kv.get(f"restore/{n}").data["value"] for n in range(count)}


def is_everywhere(running: Running, value: int) -> None:
    for node in running.cluster.nodes:
        eventually(lambda node=node: values(running, node) == {value}, f"{node.node_id} has the snapshot's values")


def all_equal(running: Running) -> None:
    """The replicas say the same of all they have applied."""
    with running.client() as client:
        client.kv.put("restore/after", {"value": 1})
        for node in running.cluster.nodes:
            with running.client(node.api_address) as one:
                assert one.kv.get("restore/after").data == {"value": 1}

    def same() -> bool:
        with running.client() as client:
            peers = client.raft.list_peers()
        return all(peer.match_index == peers.commit_index for peer in peers.peers)

    eventually(same, "all members hold the whole log")


def saved(running: Running, path: Path) -> Path:
    with running.client() as client:
        client.snapshots.save(path)
    return path


@pytest.mark.timeout(300)
def test_the_state_of_the_snapshot_is_back_on_every_node(running: Running, tmp_path: Path) -> None:
    fill(running, 1)
    file = saved(running, tmp_path / "one.hfsnap")
    fill(running, 2)
    with running.client() as client:
        client.kv.put("restore/new", {"value": 2})
        done = client.snapshots.restore(file)
        assert not done.keys_replaced
        assert sorted(done.prepared) == ["node-1", "node-2", "node-3"]
        is_everywhere(running, 1)
        with pytest.raises(errors.NotFound):
            client.kv.get("restore/new")
    all_equal(running)
    with running.client() as client:
        assert client.kv.get_metadata("restore/0").current_version == 1


@pytest.mark.timeout(300)
def test_a_restart_of_all_nodes_after_a_restore_keeps_it(running: Running, tmp_path: Path) -> None:
    fill(running, 3)
    file = saved(running, tmp_path / "three.hfsnap")
    fill(running, 4)
    with running.client() as client:
        client.snapshots.restore(file)
    for node in running.cluster.nodes:
        node.kill()
    running.restart(running.cluster.nodes)
    running.cluster.wait_serving()
    is_everywhere(running, 3)
    all_equal(running)


@pytest.mark.timeout(300)
def test_a_flipped_byte_is_refused_by_the_client_and_by_the_node_before_anything_changes(
    running: Running, tmp_path: Path
) -> None:
    fill(running, 5)
    file = saved(running, tmp_path / "five.hfsnap")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(bytes(data))
    fill(running, 6)
    with running.client() as client:
        with pytest.raises(LocalError, match="damaged"):
            client.snapshots.restore(file)
        with pytest.raises(errors.InvalidArgument, match="damaged"):
            client.snapshots._send_file(file, force=False, progress=lambda _done, _size: None)
    is_everywhere(running, 6)
    assert not [p for node in running.cluster.nodes for p in node.data_dir.glob("restore/*.partial")]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("who", ["a follower", "the leader", "all"])
def test_whoever_is_killed_while_the_state_is_replaced_it_is_the_old_or_the_new_one_everywhere(
    running: Running, tmp_path: Path, who: str
) -> None:
    fill(running, 7, size=20_000, count=60)
    file = saved(running, tmp_path / "seven.hfsnap")
    fill(running, 8, size=20_000, count=60)
    leader = running.cluster.wait_serving()
    followers = [node for node in running.cluster.nodes if node is not leader]
    victims = {"a follower": followers[:1], "the leader": [leader], "all": list(running.cluster.nodes)}[who]
    outcome: list[object] = []

    def restore() -> None:
        with running.client() as client:
            try:
                outcome.append(client.snapshots.restore(file))
            except errors.HoldfastError as error:
                outcome.append(error)

    restoring = threading.Thread(target=restore, daemon=True)
    restoring.start()
    watched = victims[0]
    eventually(lambda: list(watched.data_dir.glob("state.staged")) or not restoring.is_alive(), "it is being prepared")
    time.sleep(random.Random(who).random() * 0.3)
    for node in victims:
        node.kill()
    if who == "a follower":
        restoring.join(120)
    running.restart(victims)
    running.cluster.wait_serving()
    restoring.join(120)
    assert outcome
    with running.client() as client:
        client.kv.put("restore/settled", {"value": 0})
    found = values(running, running.cluster.nodes[0], count=60)
    assert found in ({7}, {8}), "never a mix"
    if not isinstance(outcome[0], errors.HoldfastError):
        assert found == {7}, "a restore that was confirmed holds"
    for node in running.cluster.nodes:
        eventually(lambda node=node: values(running, node, count=60) == found, f"{node.node_id} has the same")
    all_equal(running)


@pytest.mark.timeout(300)
def test_a_node_that_was_away_fetches_the_snapshot_when_it_is_back(running: Running, tmp_path: Path) -> None:
    fill(running, 9)
    file = saved(running, tmp_path / "nine.hfsnap")
    fill(running, 10)
    leader = running.cluster.wait_serving()
    away = next(node for node in running.cluster.nodes if node is not leader)
    away.kill()
    with running.client() as client:
        done = client.snapshots.restore(file)
    assert done.unprepared == (away.node_id,)
    running.restart([away])
    is_everywhere(running, 9)
    all_equal(running)


@pytest.mark.timeout(300)
def test_writes_that_begin_after_a_restore_under_load_are_never_lost(running: Running, tmp_path: Path) -> None:
    fill(running, 20)
    file = saved(running, tmp_path / "twenty.hfsnap")
    stopped = threading.Event()
    acknowledged: list[tuple[float, str]] = []

    def write(writer: int) -> None:
        with running.client(timeout_s=30) as client:
            n = 0
            while not stopped.is_set():
                began, path = time.monotonic(), f"during/{writer}-{n}"
                n += 1
                try:
                    client.kv.put(path, {"n": n})
                except errors.HoldfastError:
                    continue
                acknowledged.append((began, path))

    writers = [threading.Thread(target=write, args=(n,), daemon=True) for n in range(4)]
    for thread in writers:
        thread.start()
    eventually(lambda: len(acknowledged) > 50, "writes are acknowledged")
    before = [path for _, path in list(acknowledged)]
    with running.client() as client:
        client.snapshots.restore(file)
        restored = time.monotonic()
        eventually(lambda: sum(began > restored for began, _ in list(acknowledged)) > 50, "writes go on")
        stopped.set()
        for thread in writers:
            thread.join(60)
        kept = {f"during/{name}" for name in client.kv.list("during")}
        assert not kept & set(before), "what was written before is gone"
        assert {path for began, path in acknowledged if began > restored} <= kept
    assert all(node.running for node in running.cluster.nodes)
    is_everywhere(running, 20)
    all_equal(running)


@pytest.mark.timeout(600)
def test_a_snapshot_of_another_cluster_needs_force_and_brings_its_own_shares(running: Running, tmp_path: Path) -> None:
    file = tmp_path / "foreign.hfsnap"
    with running_cluster(1) as other:
        fill(other, 11)
        saved(other, file)
    fill(running, 12)
    with running.client() as client:
        with pytest.raises(errors.FailedPrecondition, match="another cluster"):
            client.snapshots.restore(file)
        is_everywhere(running, 12)
        assert not client.sys.seal_status().sealed
        done = client.snapshots.restore(file, force=True)
    assert done.keys_replaced
    for node in running.cluster.nodes:
        with running.client(node.api_address) as one:
            status = eventually(lambda one=one: one.sys.seal_status(), "the node answers")
            eventually(lambda one=one: one.sys.seal_status().sealed, f"{node.node_id} is sealed")
            assert status.node_id == node.node_id
            with pytest.raises(errors.ShareRejected):
                one.sys.unseal(running.shares[0])
    foreign = Running(running.cluster, other.shares, other.token)
    for node in running.cluster.nodes:
        foreign.unseal(node)
    running.cluster.wait_serving()
    is_everywhere(foreign, 11)
    all_equal(foreign)
    with running.client() as client, pytest.raises(errors.Unauthenticated):
        client.kv.get("restore/0")
    for node in running.cluster.nodes:
        node.kill()
    foreign.restart(running.cluster.nodes)
    is_everywhere(foreign, 11)
