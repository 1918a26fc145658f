"""Autopilot on real nodes: what it shows, a configuration that survives the leader, a dead node that is removed."""

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from support.running import Running, eventually, running_cluster

from holdfast.client import errors


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with running_cluster(4) as cluster:
        yield cluster


def test_every_member_is_healthy_and_one_may_fail(running: Running) -> None:
    with running.client() as client:

        def settled() -> bool:
            state = client.raft.autopilot_state()
            return state.healthy and state.failure_tolerance == 1

        eventually(settled, "all four are healthy")
        state = client.raft.autopilot_state()
    assert state.voters == ("node-1", "node-2", "node-3", "node-4")
    assert [server.leader for server in state.servers].count(True) == 1
    assert all(server.last_term > 0 for server in state.servers)


def test_a_configuration_is_checked_and_survives_a_change_of_the_leader(running: Running) -> None:
    with running.client() as client:
        assert client.raft.autopilot_config().server_stabilization_time == timedelta(seconds=10)
        with pytest.raises(errors.InvalidArgument):
            client.raft.set_autopilot_config(cleanup_dead_servers=True)
        with pytest.raises(errors.InvalidArgument):
            client.raft.set_autopilot_config(dead_server_last_contact_threshold=timedelta(seconds=59))
        told = client.raft.set_autopilot_config(
            cleanup_dead_servers=True, min_quorum=3, dead_server_last_contact_threshold=timedelta(minutes=1)
        )
        client.sys.step_down()
        assert eventually(client.raft.autopilot_config, "there is a leader") == told
        assert told.max_trailing_logs == 1000


@pytest.mark.timeout(400)
def test_a_dead_node_is_removed_and_the_three_others_go_on(running: Running) -> None:
    leader = running.cluster.wait_serving()
    dead = next(node for node in running.cluster.nodes if node is not leader)
    dead.kill()
    addresses = [node.api_address for node in running.cluster.nodes if node is not dead]
    with running.client(*addresses) as client:
        eventually(lambda: not client.raft.autopilot_state().healthy, "the dead node is seen")
        eventually(lambda: len(client.raft.list_peers().peers) == 3, "the dead node is removed", deadline_s=240)
        assert dead.node_id not in {peer.node_id for peer in client.raft.list_peers().peers}
        client.kv.put("after/removal", {"n": 1})
        assert client.kv.get("after/removal").data == {"n": 1}
        state = client.raft.autopilot_state()
    assert (len(state.voters), state.failure_tolerance, state.healthy) == (3, 1, True)
    said = [json.loads(line) for node in running.cluster.nodes for line in node.log_file.read_text().splitlines()]
    assert any(line["event"] == "dead_server_removed" and line["member"] == dead.node_id for line in said)
