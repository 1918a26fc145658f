"""A cluster of real node processes on loopback: for the demonstration, the benchmarks, the chaos harness and tests.

Each node has its own process, data folder, TLS certificate and ports. Nothing here is a stand-in: the processes are
`holdfastd`, started with the configuration files that an operator would write.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from holdfast.client import Client, ClientConfig, errors
from holdfast.client.results import InitResult

LOOPBACK = "127.0.0.1"
MANIFEST = "cluster.json"
PORTS = range(12_000, 32_000)
"""Where the ports of local clusters are drawn from."""

READY_S = 30.0
"""How long a new cluster may take to elect a leader and to replicate its keys, in seconds."""

T = TypeVar("T")


class LocalClusterError(Exception):
    """A local cluster could not be made or started; the message says what to do."""


def daemon_command() -> list[str]:
    """How to run `holdfastd` with the Python that runs this process.

    The module is named only as a string: the client does not import the node."""
    return [sys.executable, "-m", "holdfast.server.main"]


def free_ports(count: int) -> list[int]:
    """Ports free on loopback at the time of the call, all different. They are below those that systems give to outgoing
    connections, which could take one before the node does."""
    with contextlib.ExitStack() as stack:
        chosen: list[int] = []
        while len(chosen) < count:
            sock = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):  # taken: draw again
                sock.bind((LOOPBACK, PORTS.start + secrets.randbelow(len(PORTS))))
                chosen.append(int(sock.getsockname()[1]))
        return chosen


def _run_daemon(*arguments: str) -> None:
    result = subprocess.run([*daemon_command(), *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode != 0:
        raise LocalClusterError(f"holdfastd {' '.join(arguments)} failed: {result.stderr.strip()}")


@dataclass
class LocalNode:
    """One node process and where its parts are."""

    node_id: str
    directory: Path
    api_port: int
    cluster_port: int
    metrics_port: int
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def api_address(self) -> str:
        """host:port of the client port."""
        return f"{LOOPBACK}:{self.api_port}"

    @property
    def cluster_address(self) -> str:
        """host:port of the peer-to-peer port."""
        return f"{LOOPBACK}:{self.cluster_port}"

    @property
    def metrics_address(self) -> str:
        """host:port of the metrics port."""
        return f"{LOOPBACK}:{self.metrics_port}"

    @property
    def data_dir(self) -> Path:
        """Where the node keeps its data."""
        return self.directory / "data"

    @property
    def config_file(self) -> Path:
        """The node's configuration."""
        return self.directory / "node.yaml"

    @property
    def log_file(self) -> Path:
        """Where the node's log lines go."""
        return self.directory / "node.log"

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self.process is not None and self.process.poll() is None

    def start(self, extra_environment: dict[str, str] | None = None) -> None:
        """Start the process; returns at once."""
        if self.running:
            raise LocalClusterError(f"{self.node_id} is running already")
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [*daemon_command(), "--config", str(self.config_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(extra_environment or {})},
                start_new_session=True,  # a Ctrl-C at the terminal is for the one who runs the cluster
            )

        (self.directory / "pid").write_text(f"{self.process.pid}\n")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this node's process, and to no other."""
        if self.process is not None and self.running:
            self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until the process is gone."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self, timeout_s: float = 20.0) -> int:
        """SIGTERM, and wait for the graceful end; kill -9 if it takes longer. Returns the exit code."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the process to end; its exit code."""
        return self.process.wait(timeout_s) if self.process is not None else 0

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the node's log."""
        if not self.log_file.exists():
            return ""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])


class LocalCluster:
    """Nodes node-1 to node-N in one folder, with a certificate authority of their own.

    Use as a context manager to have the processes stopped at the end."""

    def __init__(self, directory: Path, nodes: Sequence[LocalNode]) -> None:
        self.directory = directory
        self.nodes = list(nodes)

    @classmethod
    def create(cls, directory: Path, count: int, *, ports: Sequence[int] = ()) -> LocalCluster:
        """Make folders, certificates and configurations for `count` nodes.

        ports: three for each node (client, cluster, metrics); free ones are chosen when empty.
        """
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        chosen = list(ports) or free_ports(3 * count)
        assert len(chosen) == 3 * count
        nodes = []
        for number, (api, peer, metrics) in enumerate(zip(chosen[::3], chosen[1::3], chosen[2::3], strict=True), 1):
            nodes.append(LocalNode(f"node-{number}", directory / f"node-{number}", api, peer, metrics))
        cluster = cls(directory, nodes)
        _run_daemon("certs", "create-ca", str(cluster.certs_dir))
        for node in nodes:
            cluster.add_node_files(node)
        cluster._write_manifest()
        return cluster

    @classmethod
    def open(cls, directory: Path) -> LocalCluster:
        """The cluster that `create` made in this folder."""
        manifest: list[dict[str, Any]] = json.loads((directory / MANIFEST).read_text())["nodes"]
        return cls(
            directory,
            [
                LocalNode(m["node_id"], directory / m["node_id"], m["api_port"], m["cluster_port"], m["metrics_port"])
                for m in manifest
            ],
        )

    @staticmethod
    def exists(directory: Path) -> bool:
        """Whether `create` finished in this folder."""
        return (directory / MANIFEST).exists()

    @property
    def certs_dir(self) -> Path:
        """The cluster CA and the nodes' certificates."""
        return self.directory / "certs"

    @property
    def ca_file(self) -> Path:
        """The certificate that clients trust."""
        return self.certs_dir / "ca.crt"

    @property
    def addresses(self) -> list[str]:
        """Every node's client port."""
        return [node.api_address for node in self.nodes]

    def __getitem__(self, node_id: str) -> LocalNode:
        return next(node for node in self.nodes if node.node_id == node_id)

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def add_node_files(self, node: LocalNode, *, founding: bool = True) -> None:
        """Issue a node's certificate and write its configuration. A node that is not founding waits to be joined."""
        node.directory.mkdir(mode=0o700, exist_ok=True)
        _run_daemon("certs", "issue", str(self.certs_dir), node.node_id, "--dns", "localhost", "--ip", LOOPBACK)
        tls = {
            "cert_file": str(self.certs_dir.resolve() / f"{node.node_id}.crt"),
            "key_file": str(self.certs_dir.resolve() / f"{node.node_id}.key"),
            "ca_file": str(self.ca_file.resolve()),
        }
        members = [
            {"node_id": n.node_id, "cluster_address": n.cluster_address, "api_address": n.api_address}
            for n in self.nodes
        ]
        config = {
            "node_id": node.node_id,
            "cluster_name": "local",
            "data_dir": str(node.data_dir.resolve()),
            "api": {"bind": node.api_address, "advertise": node.api_address, "tls": tls},
            "cluster": {
                "bind": node.cluster_address,
                "advertise": node.cluster_address,
                "tls": tls,
                "initial_members": members if founding else [],
            },
            "metrics": {"bind": node.metrics_address},
            "log": {"level": "info", "format": "json"},
        }
        node.config_file.write_text(yaml.safe_dump(config, sort_keys=False))

    def start(self) -> None:
        """Start every node that is not running."""
        for node in self.nodes:
            if not node.running:
                node.start()

    def stop(self) -> None:
        """End every node gracefully, all at the same time."""
        for node in self.nodes:
            node.signal(signal.SIGCONT)
            node.signal(signal.SIGTERM)
        for node in self.nodes:
            node.stop()

    def destroy(self) -> None:
        """Stop the nodes and remove the folder."""
        self.stop()
        shutil.rmtree(self.directory)

    def wait_listening(self, timeout_s: float = 30.0) -> None:
        """Wait until every node's client port accepts connections.

        Raises LocalClusterError with the node's last log lines when one ends or the time is over."""
        deadline = time.monotonic() + timeout_s
        for node in self.nodes:
            while not _accepts(node.api_port):
                if not node.running:
                    raise LocalClusterError(f"{node.node_id} ended at start:\n{node.log_tail()}")
                if time.monotonic() > deadline:
                    raise LocalClusterError(f"{node.node_id} does not listen after {timeout_s} s:\n{node.log_tail()}")
                time.sleep(0.02)

    def client(self, *addresses: str, token: str = "", timeout_s: float = 30.0) -> Client:
        """A client for these addresses (by default every node's). Close it after use."""
        return Client(
            ClientConfig(addresses=addresses or self.addresses, ca_file=self.ca_file, token=token, timeout_s=timeout_s)
        )

    def initialize(self, *, shares: int = 5, threshold: int = 3) -> InitResult:
        """Make the cluster's keys, as soon as there is a leader."""
        with self.client() as client:
            return _once_available(lambda: client.sys.init(shares=shares, threshold=threshold))

    def unseal(self, node: LocalNode, shares: Sequence[str]) -> None:
        """Give a node as many of the shares as it needs, as soon as it knows that the cluster has keys."""
        with self.client(node.api_address) as client:
            status = client.sys.seal_status()
            deadline = time.monotonic() + READY_S
            while not status.initialized and time.monotonic() < deadline:
                time.sleep(0.05)
                status = client.sys.seal_status()
            for share in shares[: status.threshold]:
                if status.sealed:
                    status = client.sys.unseal(share)
        if status.sealed:
            raise LocalClusterError(f"{node.node_id} is still sealed: {status.progress} of {status.threshold} shares")

    def wait_serving(self, timeout_s: float = 30.0) -> LocalNode:
        """Wait until an unsealed node leads; that node."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if (leader := self.leader()) is not None:
                with self.client(leader.api_address, timeout_s=2) as c, contextlib.suppress(errors.HoldfastError):
                    if not c.sys.seal_status().sealed:
                        return leader
            time.sleep(0.05)
        logs = "\n".join(f"{node.node_id}:\n{node.log_tail(5)}" for node in self.nodes)
        raise LocalClusterError(f"no unsealed leader after {timeout_s:.0f} s; the nodes' last log lines:\n{logs}")

    def leader(self) -> LocalNode | None:
        """The node that says it leads, if one does."""
        for node in self.nodes:
            if node.running:
                with self.client(node.api_address, timeout_s=1) as c, contextlib.suppress(errors.HoldfastError):
                    if c.sys.leader().is_self:
                        return node
        return None

    def _write_manifest(self) -> None:
        nodes = [
            {
                "node_id": n.node_id,
                "api_port": n.api_port,
                "cluster_port": n.cluster_port,
                "metrics_port": n.metrics_port,
            }
            for n in self.nodes
        ]
        partial = self.directory / f"{MANIFEST}.partial"
        partial.write_text(json.dumps({"nodes": nodes}, indent=2))
        partial.replace(self.directory / MANIFEST)


def _once_available(call: Callable[[], T]) -> T:
    """The result of `call`, which may find the cluster still electing its first leader."""
    deadline = time.monotonic() + READY_S
    while True:
        try:
            return call()
        except errors.Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False
