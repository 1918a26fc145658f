"""Several nodes: a dead, paused, sealed or leaderless one is left, and a write repeated elsewhere happens once."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from support.fake_server import TOKEN, AfterServing, FakeNode, three_nodes

from holdfast.client import Client, ClientConfig, TlsFailed, errors
from holdfast.client.session import RequestIds


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[FakeNode]]:
    with three_nodes(tmp_path / "ca") as nodes:
        yield nodes


def config_for(nodes: list[FakeNode]) -> ClientConfig:
    return ClientConfig(addresses=[node.address for node in nodes], token=TOKEN, ca_file=nodes[0].ca_file)


def no_wait(_seconds: float) -> None:
    return None


@pytest.fixture
def client(nodes: list[FakeNode]) -> Iterator[Client]:
    with Client(config_for(nodes), sleep=no_wait) as client:
        yield client


def served_by(nodes: list[FakeNode]) -> list[str]:
    return [call.node for call in nodes[0].cluster.calls]


def test_the_first_address_serves_until_it_fails_and_then_the_one_that_answered(
    nodes: list[FakeNode], client: Client
) -> None:
    client.kv.put("a", {"n": 1})
    nodes[0].stop()
    client.kv.put("a", {"n": 2})
    client.kv.get("a")
    nodes[0].start()
    client.kv.get("a")
    assert served_by(nodes) == ["node-1", "node-2", "node-2", "node-2"]


def test_a_write_whose_answer_was_lost_is_repeated_under_its_id_and_happens_once(
    nodes: list[FakeNode], client: Client
) -> None:
    nodes[0].faults.append(AfterServing("?"))
    nodes[1].faults.append(grpc.StatusCode.INTERNAL)
    assert client.kv.put("a", {"n": 1}).version == 1
    assert client.kv.put("a", {"n": 2}).version == 2
    calls = nodes[0].cluster.calls
    assert [call.node for call in calls] == ["node-1", "node-2", "node-3", "node-3"]
    ids = [call.metadata["x-holdfast-request-id"] for call in calls]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert ids[0].split("-")[0] == ids[3].split("-")[0]
    ages = [int(call.metadata["x-holdfast-request-age-ms"]) for call in calls]
    assert ages[0] == 0 < ages[1] <= ages[2]
    assert ages[3] == 0


def test_a_paused_node_is_left_for_the_next_one(nodes: list[FakeNode]) -> None:
    release = threading.Event()
    nodes[0].faults.append(lambda: release.wait() and None)
    with Client(replace(config_for(nodes), attempt_timeout_s=0.2)) as client:
        assert client.kv.put("a", {"n": 1}).version == 1
    release.set()
    assert served_by(nodes) == ["node-1", "node-2"]


def test_a_node_killed_during_a_write_is_left_and_the_write_happens_once(nodes: list[FakeNode], client: Client) -> None:
    server = nodes[0]._server
    assert server is not None
    nodes[0].faults.append(lambda: server.stop(0) and None)
    client.kv.put("a", {"n": 1})
    assert client.kv.get_metadata("a").current_version == 1


def test_a_sealed_node_is_passed_over_and_when_all_are_sealed_the_error_comes_at_once(
    nodes: list[FakeNode], client: Client
) -> None:
    nodes[0].sealed = nodes[1].sealed = True
    client.kv.put("a", {})
    assert served_by(nodes) == ["node-1", "node-2", "node-3"]
    nodes[2].sealed = True
    with pytest.raises(errors.Sealed):
        client.kv.get("a")


def test_a_node_that_has_not_caught_up_is_passed_over(nodes: list[FakeNode], client: Client) -> None:
    nodes[0].faults.append(errors.Uninitialized("the cluster has no keys yet."))
    client.kv.put("a", {})
    assert served_by(nodes) == ["node-1", "node-2"]
    for node in nodes:
        node.faults.append(errors.Uninitialized("the cluster has no keys yet."))
    with pytest.raises(errors.Uninitialized):
        client.kv.get("a")


@pytest.mark.parametrize(
    "answer",
    [
        errors.Unauthenticated("the token is revoked."),
        errors.PermissionDenied("not any more."),
        errors.Uninitialized("the cluster has no keys yet."),
        errors.HoldfastError("internal error."),
    ],
)
def test_a_write_that_may_have_happened_is_not_denied_by_what_its_repetition_meets(
    nodes: list[FakeNode], client: Client, answer: errors.HoldfastError
) -> None:
    nodes[0].faults.append(AfterServing("?"))
    for node in nodes:
        node.faults.append(answer)
    with pytest.raises(errors.OutcomeUnknown, match=answer.message.rstrip(".")):
        client.kv.put("a", {"n": 1})
    assert nodes[0].cluster.calls


def test_an_election_is_waited_for(nodes: list[FakeNode]) -> None:
    waits: list[float] = []
    for node in nodes:
        node.faults.extend([errors.NoLeader("an election is under way.", retry_after_ms=300)] * 2)
    with Client(config_for(nodes), sleep=waits.append) as client:
        client.kv.put("a", {})
    assert len(waits) == 6
    assert all(wait >= 0.3 for wait in waits)


def test_what_concerns_one_node_goes_to_no_other(nodes: list[FakeNode], client: Client) -> None:
    nodes[1].sealed = True
    nodes[0].stop()
    client.kv.put("a", {})
    for call in (client.sys.seal_status, client.sys.health, client.sys.seal):
        with pytest.raises(errors.Unavailable, match="nothing listens"):
            call()
    assert not nodes[2].sealed


def test_initialising_is_not_repeated_when_it_may_have_happened(nodes: list[FakeNode], client: Client) -> None:
    nodes[0].cluster.initialized = False
    nodes[0].faults.append(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(errors.OutcomeUnknown):
        client.sys.init()
    assert nodes[0].cluster.methods() == ["Init"]


def test_a_refused_request_is_not_repeated(nodes: list[FakeNode], client: Client) -> None:
    client.token = "hvs.other"
    with pytest.raises(errors.Unauthenticated):
        client.kv.put("a", {})
    assert served_by(nodes) == ["node-1"]


def test_when_nobody_listens_the_error_names_an_address_and_comes_after_the_retries(tmp_path: Path) -> None:
    with three_nodes(tmp_path / "ca") as nodes:
        config = replace(config_for(nodes), max_retries=2)
    waits: list[float] = []
    with Client(config, sleep=waits.append) as client, pytest.raises(errors.Unavailable, match=r"127\.0\.0\.1:"):
        client.kv.put("a", {})
    assert len([wait for wait in waits if wait]) == 2


def test_a_node_with_a_strangers_certificate_gets_no_token(nodes: list[FakeNode], tmp_path: Path) -> None:
    with FakeNode(tmp_path / "other-ca") as stranger:
        config = replace(config_for(nodes), addresses=[stranger.address, nodes[0].address])
        with Client(config, sleep=no_wait) as client:
            client.kv.put("a", {})
        with Client(replace(config, addresses=stranger.address)) as client, pytest.raises(TlsFailed, match="-ca-cert"):
            client.kv.get("a")
        assert stranger.cluster.calls == []


def test_a_certificate_for_another_name_is_refused(nodes: list[FakeNode]) -> None:
    config = replace(config_for(nodes[:1]), tls_server_name="node-9")
    with Client(config) as client, pytest.raises(TlsFailed, match="tls-server-name"):
        client.kv.get("a")
    with Client(replace(config, tls_server_name="node-1")) as client:
        client.kv.put("a", {})


def test_reads_carry_no_request_id_and_say_when_they_may_be_stale(nodes: list[FakeNode], client: Client) -> None:
    client.kv.put("a", {})
    client.kv.get("a", stale=True)
    client.kv.get("a")
    _, stale, fresh = (call.metadata for call in nodes[0].cluster.calls)
    assert stale["x-holdfast-consistency"] == "stale"
    assert "x-holdfast-consistency" not in fresh
    assert "x-holdfast-request-id" not in fresh


def test_threads_share_a_client_and_no_two_writes_have_the_same_id(nodes: list[FakeNode], client: Client) -> None:
    threads = [threading.Thread(target=client.kv.put, args=(f"a/{number}", {})) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = {call.metadata["x-holdfast-request-id"] for call in nodes[0].cluster.calls}
    assert len(ids) == 16
    assert len(list(client.kv.list("a"))) == 16


def test_a_forked_child_names_its_writes_differently() -> None:
    process = [1]
    randomness = iter([b"\x01" * 16, b"\x02" * 16])
    ids = RequestIds(lambda count: next(randomness), lambda: process[0])
    assert [ids.next(), ids.next()] == [f"{'01' * 16}-1", f"{'01' * 16}-2"]
    process[0] = 2
    assert [ids.next(), ids.next()] == [f"{'02' * 16}-1", f"{'02' * 16}-2"]
