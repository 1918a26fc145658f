"""What three nodes promise together: every node reads what any node wrote, a sealed node still counts for the quorum,
leadership moves on request, and a write is done once however often it is sent."""

import dataclasses
import json
import ssl
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from support.running import Running, eventually, running_cluster

from holdfast.client import errors
from holdfast.client.results import HealthState
from holdfast.proto.v1 import kv_pb2, kv_pb2_grpc


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with running_cluster() as cluster:
        yield cluster


def test_every_node_reads_at_once_what_any_node_wrote(running: Running) -> None:
    clients = [running.client(node.api_address) for node in running.cluster.nodes]
    try:
        for round_ in range(30):
            writer = clients[round_ % 3]
            version = writer.kv.put("shared", {"round": round_}).version
            for reader in clients:
                secret = reader.kv.get("shared")
                assert (secret.version, secret.data) == (version, {"round": round_})
    finally:
        for client in clients:
            client.close()


def test_every_kind_of_value_survives_the_round_trip_through_every_node(running: Running) -> None:
    data = {
        "big": 2**80, "negative": -(2**63) - 1, "float": 0.1, "nested": {"list": [1, None, True, {"ü": "✓"}]},
        "empty": {}, "text": "line\nbreak\u0000\u2028", "": "an empty name",
    }  # fmt: skip
    for node in running.cluster.nodes:
        with running.client(node.api_address) as client:
            client.kv.put("exact", data)
            assert client.kv.get("exact").data == data


def test_check_and_set_lets_exactly_one_of_many_writers_win(running: Running) -> None:
    with running.client() as client:
        client.kv.put("contended", {"n": 0})

    def contend(number: int) -> int:
        with running.client(running.cluster.nodes[number % 3].api_address) as client:
            try:
                client.kv.put("contended", {"n": number}, cas=1)
            except errors.Conflict:
                return 0
            return 1

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(contend, range(1, 13))) == 1
    with running.client() as client:
        assert client.kv.get_metadata("contended").current_version == 2


def test_concurrent_writers_of_one_secret_leave_contiguous_versions(running: Running) -> None:
    def write(number: int) -> int:
        with running.client(running.cluster.nodes[number % 3].api_address) as client:
            return client.kv.put("hot", {"n": number}).version

    with ThreadPoolExecutor(12) as pool:
        versions = sorted(pool.map(write, range(60)))
    assert versions == list(range(1, 61))


def test_a_write_sent_again_under_its_request_id_is_done_once_at_any_node(running: Running) -> None:
    metadata = [("x-holdfast-token", running.token), ("x-holdfast-request-id", "ab" * 16 + "-1")]
    request = kv_pb2.PutRequest(path="once", data=b'{"a": 1}')
    credentials = grpc.ssl_channel_credentials(running.cluster.ca_file.read_bytes())
    for attempt, node in enumerate([*running.cluster.nodes, *running.cluster.nodes]):
        with grpc.secure_channel(node.api_address, credentials) as channel:
            stub = kv_pb2_grpc.KvServiceStub(channel)
            sent = [*metadata, ("x-holdfast-request-age-ms", str(attempt))]
            assert stub.Put(request, metadata=sent, timeout=10).metadata.version == 1
            with pytest.raises(grpc.RpcError) as caught:
                stub.Put(kv_pb2.PutRequest(path="once", data=b'{"a": 2}'), metadata=sent, timeout=10)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with running.client() as client:
        assert client.kv.get("once").data == {"a": 1}
        assert client.kv.get_metadata("once").current_version == 1


def test_a_sealed_node_replicates_and_keeps_the_quorum(running: Running) -> None:
    leader = running.cluster.wait_serving()
    sealed, lost = [node for node in running.cluster.nodes if node is not leader]
    with running.client(sealed.api_address) as client:
        client.sys.seal()
        with pytest.raises(errors.Sealed):
            client.kv.get("shared")
        assert client.sys.health().state is HealthState.SEALED
    lost.kill()
    with running.client(leader.api_address) as client:
        client.kv.put("written-with-a-sealed-voter", {"a": 1})
    running.restart([lost])
    running.unseal(sealed)
    with running.client(sealed.api_address) as client:
        assert client.kv.get("written-with-a-sealed-voter").data == {"a": 1}


def test_a_leader_that_is_sealed_hands_over_to_an_unsealed_node(running: Running) -> None:
    leader = running.cluster.wait_serving()
    with running.client(leader.api_address) as client:
        client.sys.seal()
    others = [node.api_address for node in running.cluster.nodes if node is not leader]
    with running.client(*others) as client:
        client.kv.put("after-the-leader-was-sealed", {"a": 1})
    assert running.cluster.wait_serving() is not leader
    running.unseal(leader)


def test_step_down_moves_leadership_and_loses_no_write(running: Running) -> None:
    before = running.cluster.wait_serving()
    with running.client() as client:
        client.kv.put("stepping", {"n": 1})
        new_leader = client.sys.step_down()
        assert new_leader != before.node_id
        client.kv.put("stepping", {"n": 2}, cas=1)
        assert client.kv.get("stepping").data == {"n": 2}


def test_without_quorum_nothing_is_acknowledged_or_read_and_the_error_says_so(running: Running) -> None:
    survivor, *rest = running.cluster.nodes
    for node in rest:
        node.kill()
    with running.client(survivor.api_address, timeout_s=5) as client:
        with pytest.raises((errors.Unavailable, errors.OutcomeUnknown)):
            client.kv.put("without-quorum", {"a": 1})
        with pytest.raises(errors.Unavailable):
            client.kv.get("shared")
        assert client.kv.get("shared", stale=True).data is not None, "stale reads are answered when asked for"
    running.restart(rest)
    with running.client() as client:
        eventually(lambda: client.kv.get("shared"), "the cluster serves again")


def test_list_peers_shows_every_member_and_one_leader(running: Running) -> None:
    def whole() -> bool:
        for node in running.cluster.nodes:
            with running.client(node.api_address) as client:
                peers = client.raft.list_peers().peers
            if sum(peer.leader for peer in peers) != 1 or not all(peer.voter and peer.connected for peer in peers):
                return False
            assert {peer.node_id for peer in peers} == {node.node_id for node in running.cluster.nodes}
        return True

    eventually(whole, "all members are connected")


def test_metrics_are_served_over_tls_and_name_no_secret(running: Running) -> None:
    context = ssl.create_default_context(cafile=str(running.cluster.ca_file))
    for node in running.cluster.nodes:
        with urllib.request.urlopen(f"https://{node.metrics_address}/metrics", context=context, timeout=10) as reply:
            text = reply.read().decode()
        assert "holdfast_sealed" in text
        assert "shared" not in text.replace("shared_memory", "")


def test_logs_are_json_lines(running: Running) -> None:
    for node in running.cluster.nodes:
        for line in node.log_file.read_text().splitlines():
            entry = json.loads(line)
            assert {"level", "event", "timestamp"} <= set(entry), line


def test_results_are_values(running: Running) -> None:
    with running.client() as client:
        first, second = client.kv.get("shared"), client.kv.get("shared")
    assert dataclasses.asdict(first) == dataclasses.asdict(second)
    assert "round" not in repr(first)
