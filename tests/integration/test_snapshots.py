"""Real nodes whose log is trimmed while a member is away: it returns by a snapshot, a node joins late by one, and a
receiver that is killed in the middle of it starts again."""

import time
from collections.abc import Iterator

import pytest
from support.running import Running, Writer, assert_nothing_lost, eventually, running_cluster
from support.trimmed import away_until_trimmed, events, prepare, with_small_tail

from holdfast.client import ClientConfig
from holdfast.client.local import LocalNode, free_ports

WRITES = 3200


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with running_cluster(prepare=prepare) as cluster:
        yield cluster


def reads_everything(running: Running, node: LocalNode, name: str) -> None:
    with running.client(node.api_address) as client:
        for n in range(WRITES - 400, WRITES):
            assert client.kv.get(f"{name}/{n % 400}").data is not None


@pytest.mark.timeout(600)
def test_a_node_that_was_away_for_3000_writes_returns_by_a_snapshot(running: Running) -> None:
    away = away_until_trimmed(running, "first", writes=WRITES)
    before = len(events(away, "snapshot_installed"))
    running.restart([away])
    eventually(lambda: len(events(away, "snapshot_installed")) > before, "the snapshot is installed")
    reads_everything(running, away, "first")
    assert sorted(p.name for p in away.data_dir.glob("state*")) == ["state"]


@pytest.mark.timeout(600)
def test_a_fourth_node_joins_after_the_log_was_trimmed(running: Running) -> None:
    ports = free_ports(3)
    joining = LocalNode("node-4", running.cluster.directory / "node-4", *ports)
    running.cluster.add_node_files(joining, founding=False)
    with_small_tail(joining)
    joining.start()
    running.cluster.nodes.append(joining)
    running.cluster.wait_listening()
    with running.client() as client:
        client.raft.join(joining.node_id, cluster_address=joining.cluster_address, api_address=joining.api_address)
    eventually(lambda: events(joining, "snapshot_installed"), "the snapshot is installed")
    running.unseal(joining)

    def votes() -> bool:
        with running.client() as client:
            return any(peer.voter for peer in client.raft.list_peers().peers if peer.node_id == "node-4")

    eventually(votes, "the node that joined votes")
    reads_everything(running, joining, "first")


@pytest.mark.timeout(600)
def test_a_receiver_killed_in_the_middle_is_served_again_and_nothing_is_lost(running: Running) -> None:
    away = away_until_trimmed(running, "second", writes=WRITES, size=6000)
    config = ClientConfig(
        addresses=[node.api_address for node in running.cluster.nodes if node is not away],
        ca_file=running.cluster.ca_file, token=running.token, timeout_s=60,
    )  # fmt: skip
    writer = Writer(config, "meanwhile")
    writer.start()
    installed = len(events(away, "snapshot_installed"))
    for _ in range(3):
        begun = len(events(away, "snapshot_reception_begins"))
        away.start()
        eventually(lambda begun=begun: len(events(away, "snapshot_reception_begins")) > begun, "a reception begins")
        time.sleep(0.2)
        away.kill()
    running.restart([away])
    eventually(lambda: len(events(away, "snapshot_installed")) > installed, "the snapshot is installed")
    writer.stop()
    reads_everything(running, away, "second")
    assert not writer.failures
    with running.client() as client:
        assert assert_nothing_lost(client, writer) > 0
    leftovers = {p.name for p in away.data_dir.glob("state.*")} - {"state.replaced"}
    assert not leftovers
