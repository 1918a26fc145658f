"""Names, ports and peers, with real sockets and certificates; and what nodes say of themselves."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.peers import Certs, closed_port, eventually, node, run

from holdfast.cluster.peer.tls import Kind, load_contexts
from holdfast.server.certs import create_ca, issue_node
from holdfast.server.diagnose.asking import Answer
from holdfast.server.diagnose.cluster import judge_clock, judge_seal
from holdfast.server.diagnose.finding import Finding, Peer
from holdfast.server.diagnose.network import check_client_port, check_peer, check_port, resolve

TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certs:
    return Certs(tmp_path_factory.mktemp("certs"))


def look(
    certs: Certs, address: str, *, as_node: str = "node-1", folder: Path | None = None, join: bool = True
) -> Finding:
    context = load_contexts(certs.tls(as_node, folder), as_node).clients[Kind.CALL]
    return check_peer(Peer("node-2", address, address), context, TIMEOUT_S, join=join)


def look_at_running(
    certs: Certs, as_id: str, *, as_node: str = "node-1", folder: Path | None = None, known: bool = True
) -> Finding:
    """At a real peer port whose certificate is `as_id`'s."""

    async def main() -> Finding:
        async with node(certs, as_id, allow=lambda *_: known) as other:
            return await asyncio.to_thread(look, certs, other.network.address, as_node=as_node, folder=folder)

    return run(main)


def test_a_member_passes(certs: Certs) -> None:
    finding = look_at_running(certs, "node-2")
    assert (finding.result, finding.check) == ("pass", "peer.node-2.cluster")


def test_another_node_at_the_address_fails(certs: Certs) -> None:
    finding = look_at_running(certs, "node-3")
    assert finding.result == "fail"
    assert "is node-3, not node-2" in finding.detail


def test_a_peer_that_does_not_know_this_node_warns(certs: Certs) -> None:
    finding = look_at_running(certs, "node-2", known=False)
    assert finding.result == "warn"
    assert "raft join" in finding.remedy


def test_a_peer_that_refuses_this_nodes_certificate_fails(certs: Certs) -> None:
    for folder in (certs.foreign, certs.expired):
        finding = look_at_running(certs, "node-2", as_node="node-2", folder=folder)
        assert finding.result == "fail"
        assert "does not accept this node's certificate" in finding.detail


def test_a_look_does_not_take_the_place_of_a_running_nodes_session(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1") as one, node(certs, "node-2") as two:
            two.network.set_peers({"node-1": one.network.address})
            one.network.set_peers({"node-2": two.network.address})
            await eventually(lambda: one.connected("node-2") and two.connected("node-1"))
            before = set(two.network._incoming.sessions.values())
            finding = await asyncio.to_thread(look, certs, two.network.address, join=False)
            assert finding.result == "pass"
            assert set(two.network._incoming.sessions.values()) == before
            assert one.connected("node-2")

    run(main)


def test_nobody_at_the_address_fails(certs: Certs) -> None:
    assert "refused" in look(certs, closed_port()).detail.lower()


@contextmanager
def tls_server(folder: Path, node_id: str) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{node_id}.crt", folder / f"{node_id}.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(TIMEOUT_S)


@pytest.mark.parametrize(("ip", "result"), [("127.0.0.1", "pass"), ("127.0.0.9", "fail")])
def test_a_client_port_must_have_a_certificate_for_its_address(tmp_path: Path, ip: str, result: str) -> None:
    create_ca(tmp_path, "demo")
    issue_node(tmp_path, "node-2", ip_addresses=[ip])
    with tls_server(tmp_path, "node-2") as address:
        finding = check_client_port(Peer("node-2", address, address), tmp_path / "ca.crt", TIMEOUT_S)
    assert finding.result == result


def test_names_that_resolve_and_one_that_does_not() -> None:
    assert ("127.0.0.1", 80) in resolve("localhost:80") or ("::1", 80) in resolve("localhost:80")
    assert isinstance(resolve("no-such-host.invalid:80"), str)


def test_ports_that_are_free_taken_or_unexpectedly_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = f"127.0.0.1:{listener.getsockname()[1]}"
        assert check_port("api.bind", taken, running=False).result == "fail"
        assert check_port("api.bind", taken, running=True).result == "pass"
    free = closed_port()
    assert check_port("api.bind", free, running=False).result == "pass"
    assert check_port("api.bind", free, running=True).result == "warn"


@pytest.mark.parametrize(
    ("answer", "result", "word"),
    [
        (Answer(initialized=True, sealed=False, leader_id="node-2"), "pass", "node-2 leads"),
        (Answer(initialized=True, sealed=False), "warn", "no leader"),
        (Answer(initialized=True, sealed=True), "warn", "sealed"),
        (Answer(), "warn", "no keys yet"),
        (Answer(problem="it is away"), "warn", "it is away"),
        (Answer(initialized=True, sealed=False, leader_id="x", providers=("kms (timeout)",)), "warn", "kms"),
    ],
)
def test_what_nodes_say_of_their_seal(answer: Answer, result: str, word: str) -> None:
    finding = judge_seal("node-2", answer)
    assert finding.result == result
    assert word in finding.detail


@pytest.mark.parametrize(("ahead", "result"), [(0.2, "pass"), (-1.2, "pass"), (1.6, "warn"), (-90.0, "warn")])
def test_clocks_that_differ_by_more_than_the_way_there_accounts_for_warn(ahead: float, result: str) -> None:
    assert judge_clock("node-2", Answer(clock_ahead_s=ahead, uncertainty_s=0.5)).result == result
