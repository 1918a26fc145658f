"""A real node whose data was altered while it was stopped: it stops by itself and says how to replace it, the others go
on, and the runbook brings the machine back."""

import json
import shutil
from collections.abc import Iterator

import pytest
from support.running import Running, eventually, running_cluster

from holdfast.client.local import LocalNode, free_ports
from holdfast.client.results import ReplicaState
from holdfast.storage.rocksdb import RocksStore

DATA = b"d"


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with running_cluster() as cluster:
        yield cluster


def state(running: Running, node: LocalNode) -> ReplicaState:
    with running.cluster.client(node.api_address) as client:
        return client.raft.replica_state()


def digests(running: Running) -> set[tuple[int, str, str]]:
    states = [state(running, node) for node in running.cluster.nodes if node.running]
    return {(each.applied_index, each.state_digest, each.log_digest) for each in states}


def write(running: Running, count: int) -> None:
    with running.client() as client:
        for n in range(count):
            client.kv.put(f"some/{n}", {"n": n})


def alter(node: LocalNode) -> None:
    """A bit of a record changes, under checksums that fit: as memory does it, or a program with a fault."""
    store = RocksStore.open(node.data_dir / "state")
    *_, (key, stored) = store.scan(DATA, DATA + b"\xff")
    store.write([(key, stored[:-1] + bytes([stored[-1] ^ 1]))])
    store.sync()
    store.close()


def test_all_replicas_show_the_same_digests_and_are_compared(running: Running) -> None:
    write(running, 20)
    eventually(lambda: len(digests(running)) == 1, "the replicas' digests are equal")
    for node in running.cluster.nodes:
        eventually(lambda node=node: state(running, node).compared_index > 20, f"{node.node_id} was compared")
        assert not state(running, node).differing


@pytest.mark.timeout(300)
def test_a_node_whose_record_was_altered_stops_and_the_others_go_on(running: Running) -> None:
    leader = running.cluster.wait_serving()
    victim = next(node for node in running.cluster.nodes if node is not leader)
    victim.stop()
    running.restart([victim])
    eventually(lambda: state(running, victim).scrubbed_index > 20, "a node reads its records when it starts")
    victim.stop()
    alter(victim)
    victim.start()
    assert victim.wait(timeout_s=60) == 70
    lines = [json.loads(line) for line in victim.log_file.read_text().splitlines()]
    last = next(line for line in reversed(lines) if line["event"].startswith("fatal error"))
    assert last["reason"] in ("CORRUPTION", "DIVERGED")
    assert "remove-peer" in last["message"]
    write(running, 5)
    assert all(node.running for node in running.cluster.nodes if node is not victim)
    with running.client() as client:
        assert client.kv.get("some/3").data == {"n": 3}

    # The runbook: remove it, and join the machine under a new node id with an empty data folder.
    with running.client() as client:
        client.raft.remove_peer(victim.node_id)
    shutil.rmtree(victim.data_dir)
    running.cluster.nodes.remove(victim)
    again = LocalNode("node-9", running.cluster.directory / "node-9", *free_ports(3))
    running.cluster.add_node_files(again, founding=False)
    again.start()
    running.cluster.nodes.append(again)
    running.cluster.wait_listening()
    with running.client() as client:
        client.raft.join(again.node_id, cluster_address=again.cluster_address, api_address=again.api_address)
    running.unseal(again)
    eventually(lambda: len(digests(running)) == 1, "the replicas' digests are equal")
    eventually(lambda: state(running, again).compared_index > 20, "the new replica was compared")
