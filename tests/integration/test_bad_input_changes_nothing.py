"""Wrong, repeated and foreign shares, damaged records, wrong certificates, strangers, oversized and malformed
requests: each gets its own clear error, and nothing is lost or changed."""

import contextlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support.running import Running, eventually, running_cluster

from holdfast.client import TlsFailed, errors
from holdfast.client.local import LocalCluster, daemon_command
from holdfast.proto.v1 import kv_pb2, kv_pb2_grpc

NOT_A_MEMBER = b"\x00\x00\x00\x01\x01"
KNOWN = {"username": "admin", "port": 5432}


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with running_cluster() as cluster:
        with cluster.client() as client:
            client.kv.put("known", KNOWN)
        yield cluster


@pytest.fixture(autouse=True)
def nothing_is_lost(running: Running) -> Iterator[None]:
    yield
    with running.client() as client:
        assert client.kv.get("known").data == KNOWN
        assert client.kv.get_metadata("known").current_version == 1


def other_cluster_shares(tmp_path: Path) -> list[str]:
    with running_cluster(1) as other:
        return list(other.shares)


def test_shares_that_are_wrong_are_told_at_once_and_the_right_ones_still_unseal(
    running: Running, tmp_path: Path
) -> None:
    node = running.cluster.nodes[2]
    foreign = other_cluster_shares(tmp_path)
    first, second, third, *_ = running.shares
    with running.client(node.api_address) as client:
        client.sys.seal()
        with pytest.raises(errors.Sealed, match="unseal"):
            client.kv.get("known")
        middle = len(first) // 2
        mistyped = first[:middle] + ("A" if first[middle] != "A" else "B") + first[middle + 1 :]
        for wrong, why in (
            ("nonsense", "not a share|share"),
            (mistyped, "mistyped|checksum"),
            (first[:-5], "share"),
        ):
            with pytest.raises((errors.ShareRejected, errors.InvalidArgument), match=why) as caught:
                client.sys.unseal(wrong)
            assert wrong not in str(caught.value)
            assert client.sys.seal_status().progress == 0
        assert client.sys.unseal(first).progress == 1
        with pytest.raises(errors.ShareRejected, match="already"):
            client.sys.unseal(first)
        with pytest.raises(errors.ShareRejected, match=r"set|cluster"):
            client.sys.unseal(foreign[1])
        assert client.sys.seal_status().progress == 1
        assert client.sys.unseal(second).sealed, "two shares are too few"
        assert client.sys.unseal(reset=True).progress == 0
        client.sys.unseal(second)
        client.sys.unseal(first)
        assert not client.sys.unseal(third).sealed
        eventually(lambda: client.kv.get("known").data == KNOWN, "the node serves again")


def test_a_second_initialisation_is_refused(running: Running) -> None:
    for node in running.cluster.nodes:
        with running.client(node.api_address) as client, pytest.raises(errors.AlreadyInitialized, match="unseal"):
            client.sys.init(shares=1, threshold=1)


@pytest.mark.parametrize(
    ("path", "field"),
    [("", "path"), ("a//b", "path"), ("a/../b", "path"), ("a\x00b", "path"), ("x" * 2000, "path")],
)
def test_malformed_paths_name_the_field(running: Running, path: str, field: str) -> None:
    with running.client() as client, pytest.raises(errors.InvalidArgument) as caught:
        client.kv.put(path, {"a": 1})
    assert caught.value.field == field


def raw_stub(running: Running, node: int = 0, limit: int = 64 << 20) -> tuple[grpc.Channel, kv_pb2_grpc.KvServiceStub]:
    channel = grpc.secure_channel(
        running.cluster.nodes[node].api_address,
        grpc.ssl_channel_credentials(running.cluster.ca_file.read_bytes()),
        options=[("grpc.max_send_message_length", limit)],
    )
    return channel, kv_pb2_grpc.KvServiceStub(channel)


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b'"text"', b"\xff\xfe", b'{"a": NaN}', b'{"a": 1e999}', b"null"])
def test_malformed_data_is_refused_by_field(running: Running, data: bytes) -> None:
    channel, stub = raw_stub(running)
    with channel, pytest.raises(grpc.RpcError) as caught:
        stub.Put(kv_pb2.PutRequest(path="known", data=data), timeout=10, metadata=[("x-holdfast-token", running.token)])
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "data" in caught.value.details()


@pytest.mark.parametrize(("megabytes", "node"), [(1.1, 0), (1.1, 1), (1.1, 2), (40, 0)])
def test_oversized_requests_are_refused(running: Running, megabytes: float, node: int) -> None:
    channel, stub = raw_stub(running, node)
    data = b'{"a": "' + b"x" * int(megabytes * 1024 * 1024) + b'"}'
    with channel, pytest.raises(grpc.RpcError) as caught:
        stub.Put(kv_pb2.PutRequest(path="known", data=data), timeout=20, metadata=[("x-holdfast-token", running.token)])
    assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)


def test_the_largest_allowed_secret_is_kept_exactly(running: Running) -> None:
    data = {"blob": "x" * (1024 * 1024 - 12)}
    for node in running.cluster.nodes:
        with running.client(node.api_address) as client:
            client.kv.put("largest", data)
            assert client.kv.get("largest").data == data


def test_a_certificate_of_another_authority_is_refused_by_clients_and_by_peers(
    running: Running, tmp_path: Path
) -> None:
    foreign = LocalCluster(tmp_path, [])
    daemon = [*daemon_command(), "certs"]
    subprocess.run([*daemon, "create-ca", str(foreign.certs_dir)], check=True, capture_output=True)
    issue = ["issue", str(foreign.certs_dir), "node-1", "--dns", "localhost", "--ip", "127.0.0.1"]
    subprocess.run([*daemon, *issue], check=True, capture_output=True)
    with foreign.client(running.cluster.nodes[0].api_address) as client, pytest.raises(TlsFailed, match="CA"):
        client.sys.health()
    node = running.cluster.nodes[1]
    context = ssl.create_default_context(cafile=str(running.cluster.ca_file))
    context.check_hostname = False
    context.set_alpn_protocols(["holdfast-raft/1"])
    context.load_cert_chain(foreign.certs_dir / "node-1.crt", foreign.certs_dir / "node-1.key")
    assert_closed_by_peer(node.cluster_port, context)


def assert_closed_by_peer(
    port: int, context: ssl.SSLContext | None, greeting: bytes = b"\x00\x00\x00\x05hello"
) -> None:
    """The node ends the session and sends no byte of content."""
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        try:
            if context is not None:
                session = stack.enter_context(context.wrap_socket(session))
            session.sendall(greeting)
            received = session.recv(4096)
        except (ssl.SSLError, ConnectionError):
            return
        # Without TLS a node answers with a TLS alert record (type 21) at most; to a certificate that names no member,
        # with the one byte that says so.
        allowed = received[:1] == b"\x15" if context is None else received == NOT_A_MEMBER
        assert received == b"" or allowed, received[:20]


@pytest.mark.parametrize(
    "greeting", [b"\x00" * 64, b"\x00\x00\x00\x0dc__builtin__\nx", b"'readonly'", b"GET / HTTP/1.1\r\n\r\n"]
)
def test_a_stranger_on_the_peer_port_gets_nothing(running: Running, greeting: bytes) -> None:
    for node in running.cluster.nodes:
        assert_closed_by_peer(node.cluster_port, None, greeting)
        anonymous = ssl.create_default_context(cafile=str(running.cluster.ca_file))
        anonymous.check_hostname = False
        anonymous.set_alpn_protocols(["holdfast-raft/1"])
        assert_closed_by_peer(node.cluster_port, anonymous, greeting)


def test_a_certificate_of_the_cluster_that_names_no_member_is_refused(running: Running) -> None:
    certs = running.cluster.certs_dir
    if not (certs / "stranger.crt").exists():
        subprocess.run(
            [*daemon_command(), "certs", "issue", str(certs), "stranger", "--ip", "127.0.0.1"],
            check=True, capture_output=True,
        )  # fmt: skip
    context = ssl.create_default_context(cafile=str(running.cluster.ca_file))
    context.check_hostname = False
    context.load_cert_chain(certs / "stranger.crt", certs / "stranger.key")
    context.set_alpn_protocols(["holdfast-raft/1"])
    for node in running.cluster.nodes:
        assert_closed_by_peer(node.cluster_port, context)


def test_a_node_with_a_damaged_record_stops_and_says_so_while_the_others_go_on(running: Running) -> None:
    node = running.cluster.nodes[1]
    with running.client() as client:
        for number in range(200):
            client.kv.put(f"filler/{number}", {"text": "x" * 500})
    node.stop()
    backup = node.directory / "backup"
    shutil.copytree(node.data_dir, backup)
    flip_bytes_of_the_state(node.data_dir)
    node.start()
    code = node.wait(60)
    assert code == 70, (code, node.log_tail())
    assert "orrupt" in node.log_tail(40)
    with running.client() as client:
        client.kv.put("filler/meanwhile", {"text": "y"})
    shutil.rmtree(node.data_dir)
    backup.rename(node.data_dir)
    running.restart([node])
    with running.client(node.api_address) as client:
        eventually(lambda: client.kv.get("filler/meanwhile").data == {"text": "y"}, "the restored node catches up")


def flip_bytes_of_the_state(data_dir: Path) -> None:
    """Damage every data file of the node's stores in its middle, as a failing disk does."""
    damaged = 0
    for path in [*data_dir.rglob("*.sst"), *data_dir.rglob("*.log")]:
        content = bytearray(path.read_bytes())
        if len(content) > 4096:
            middle = len(content) // 2
            content[middle : middle + 64] = bytes(byte ^ 0xFF for byte in content[middle : middle + 64])
            path.write_bytes(content)
            damaged += 1
    assert damaged, "there was nothing to damage"


def test_a_paused_node_serves_nothing_old_when_it_wakes(running: Running) -> None:
    """A leader is paused, the others elect a new one and write; the first answer of the old one is the new value."""
    with running.client() as client:
        client.kv.put("paused", {"value": 1})
    old = running.cluster.wait_serving()
    others = [node.api_address for node in running.cluster.nodes if node is not old]
    old.signal(signal.SIGSTOP)
    try:
        with running.client(*others) as client:
            eventually(lambda: client.kv.put("paused", {"value": 2}), "the others elect a leader")
    finally:
        old.signal(signal.SIGCONT)
    with running.client(old.api_address) as client:
        assert client.kv.get("paused").data == {"value": 2}


def test_configuration_with_an_unknown_field_is_refused_by_its_path(tmp_path: Path) -> None:
    config = tmp_path / "node.yaml"
    config.write_text(
        textwrap.dedent("""
        node_id: node-1
        data_dir: /nonexistent
        api: {bind: "127.0.0.1:1", advertise: "127.0.0.1:1", tls: {cert_file: x, key_file: y, ca_file: z, cipher: no}}
        """)
    )
    result = subprocess.run(
        [sys.executable, "-m", "holdfast.server.main", "--config", str(config)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "api.tls" in result.stderr
    assert "cipher" in result.stderr
