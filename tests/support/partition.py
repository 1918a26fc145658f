"""A cluster whose nodes reach each other through relays that can be cut: partitions, without touching the network."""

import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml
from support.running import Running, running_cluster

from holdfast.client.local import LOOPBACK, LocalCluster, LocalNode


class CuttableRelay:
    """Passes TCP sessions on to a port of this machine, until it is cut: then it ends them and takes no others."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._cut = False
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Nothing gets through any more."""
        with self._lock:
            self._cut = True
            for sock in self._sockets:
                _shut(sock)

    def heal(self) -> None:
        """Whoever dials again gets through."""
        with self._lock:
            self._cut = False

    def close(self) -> None:
        """End everything."""
        self.cut()
        _shut(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                inbound, _ = self._listener.accept()
            except OSError:
                return
            try:
                outbound = socket.create_connection((LOOPBACK, self._target_port), timeout=2)
            except OSError:
                inbound.close()
                continue
            outbound.settimeout(None)
            with self._lock:
                self._sockets |= {inbound, outbound}
                if self._cut:
                    _shut(inbound)
                    _shut(outbound)
            left = [2]
            for source, sink in ((inbound, outbound), (outbound, inbound)):
                threading.Thread(target=self._pump, args=(source, sink, left), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, left: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        _shut(source)
        _shut(sink)
        with self._lock:
            left[0] -= 1
            if left[0] == 0:
                for sock in (source, sink):
                    self._sockets.discard(sock)
                    sock.close()


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class Partition:
    """The relays in front of the nodes' peer ports. A node that nothing reaches hears no leader and gets no votes or
    acknowledgements: that isolates it, whatever it sends."""

    def __init__(self) -> None:
        self._relays: dict[str, CuttableRelay] = {}

    def prepare(self, cluster: LocalCluster, seal: Mapping[str, Any]) -> None:
        """Put the relays into the nodes' configurations, and a seal section. Before the nodes start."""
        self._relays = {node.node_id: CuttableRelay(node.cluster_port) for node in cluster.nodes}
        for node in cluster.nodes:
            config = yaml.safe_load(node.config_file.read_text())
            config["cluster"]["advertise"] = self._address(node.node_id)
            for member in config["cluster"]["initial_members"]:
                member["cluster_address"] = self._address(member["node_id"])
            config["seal"] = dict(seal)
            node.config_file.write_text(yaml.safe_dump(config))

    def isolate(self, nodes: Iterable[LocalNode]) -> None:
        """Each of these nodes is alone."""
        for node in nodes:
            self._relays[node.node_id].cut()

    def heal(self) -> None:
        """Everyone reaches everyone."""
        for relay in self._relays.values():
            relay.heal()

    def close(self) -> None:
        """End the relays."""
        for relay in self._relays.values():
            relay.close()

    def _address(self, node_id: str) -> str:
        return f"{LOOPBACK}:{self._relays[node_id].port}"


@contextlib.contextmanager
def partitionable_cluster(count: int, seal: Mapping[str, Any]) -> Iterator[tuple[Running, Partition]]:
    """A running, unsealed cluster that can be parted. seal: the section of node.yaml."""
    partition = Partition()
    try:
        with running_cluster(count, prepare=lambda cluster: partition.prepare(cluster, seal)) as running:
            yield running, partition
    finally:
        partition.close()
