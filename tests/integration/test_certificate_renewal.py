"""A node's certificate is renewed while it serves: SIGHUP, no restart."""

import signal
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest
from cryptography import x509
from support.running import Running, eventually, running_cluster

from holdfast.client.local import daemon_command


@pytest.fixture
def served() -> Iterator[Running]:
    with running_cluster(1) as running:
        yield running


def shown(served: Running, port: int) -> int:
    """The serial number of the certificate that a port shows to a node."""
    certs = served.cluster.certs_dir
    context = ssl.create_default_context(cafile=served.cluster.ca_file)
    context.load_cert_chain(certs / "node-1.crt", certs / "node-1.key")
    context.set_alpn_protocols(["holdfast-raft/1"] if port == served.cluster.nodes[0].cluster_port else ["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        der = connection.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def expiry(served: Running) -> dict[str, float]:
    context = ssl.create_default_context(cafile=served.cluster.ca_file)
    address = served.cluster.nodes[0].metrics_address
    with urllib.request.urlopen(f"https://{address}/metrics", context=context, timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    name = "holdfast_certificate_expiry_timestamp_seconds"
    return {line.split('"')[1]: float(line.split()[1]) for line in lines if line.startswith(name + "{")}


def test_a_renewed_certificate_is_shown_on_every_port_without_a_restart(served: Running) -> None:
    node, certs = served.cluster.nodes[0], served.cluster.certs_dir
    ports = (node.api_port, node.cluster_port, node.metrics_port)
    (first,) = {shown(served, port) for port in ports}
    before = expiry(served)
    assert set(before) == {"api", "cluster"}
    with served.client() as client:
        client.kv.put("a/b", {"k": "v"})
        renew = subprocess.run(
            [*daemon_command(), "certs", "renew", str(certs), "node-1", "--days", "30"],
            capture_output=True,
            check=False,
        )
        assert renew.returncode == 0, renew.stderr
        assert [shown(served, port) for port in ports] == [first] * 3, "nothing changes before the signal"
        node.signal(signal.SIGHUP)
        eventually(lambda: first not in [shown(served, port) for port in ports], "every port shows the new one")
        assert client.kv.get("a/b").data == {"k": "v"}, "the client's connection lives on"
    assert expiry(served)["api"] < before["api"]
    with served.client() as client:
        assert client.kv.get("a/b").data == {"k": "v"}

    renewed = (certs / "node-1.crt").read_bytes()
    second = shown(served, node.api_port)
    (certs / "node-1.crt").write_bytes((certs / "ca.crt").read_bytes())
    node.signal(signal.SIGHUP)
    eventually(lambda: "certificates_not_reloaded" in node.log_tail(), "the log says why not")
    (certs / "node-1.crt").write_bytes(renewed)
    assert [shown(served, port) for port in ports] == [second] * 3
    assert node.running
