"""A running cluster for integration tests: real processes, initialised and unsealed, and writers to put load on it."""

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.client import Client, ClientConfig, errors
from holdfast.client.local import LocalCluster, LocalNode

DEADLINE_S = 60.0


@dataclass
class Running:
    """A cluster with the keys that initialising it gave."""

    cluster: LocalCluster
    shares: Sequence[str]
    token: str

    def client(self, *addresses: str, timeout_s: float = 30.0) -> Client:
        return self.cluster.client(*addresses, token=self.token, timeout_s=timeout_s)

    def unseal(self, node: LocalNode) -> None:
        self.cluster.unseal(node, self.shares)

    def restart(self, nodes: Sequence[LocalNode]) -> None:
        for node in nodes:
            node.start()
        LocalCluster(self.cluster.directory, nodes).wait_listening()  # others may be down on purpose
        for node in nodes:
            self.unseal(node)


@contextlib.contextmanager
def running_cluster(count: int = 3, prepare=lambda _cluster: None) -> Iterator[Running]:
    """A cluster in a temporary folder, removed at the end. `prepare` may change its files before it starts."""
    directory = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
    try:
        with LocalCluster.create(directory, count) as cluster:
            prepare(cluster)
            cluster.start()
            cluster.wait_listening()
            made = cluster.initialize()
            running = Running(cluster, made.shares, made.root_token)
            for node in cluster.nodes:
                running.unseal(node)
            cluster.wait_serving()
            yield running
    finally:
        shutil.rmtree(directory)


def eventually(condition, what: str, deadline_s: float = DEADLINE_S, *, every_s: float = 0.05):
    """Wait until `condition()` is truthy; its value. Errors of the cluster count as not yet."""
    end = time.monotonic() + deadline_s
    last: Exception | None = None
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except errors.HoldfastError as problem:
            last = problem
        time.sleep(every_s)
    raise AssertionError(f"{what}: not within {deadline_s:.0f} s (last error: {last!r})")


@dataclass
class Writer(threading.Thread):
    """Puts new versions of its own secrets, one after the other, with the client's retries, until it is stopped.

    acknowledged: for each path, the values in the order of their acknowledged versions.
    failures: errors that reached the application. gaps_s: how long each put took, the slowest last when sorted.
    """

    config: ClientConfig
    name_: str
    paths: int = 5
    acknowledged: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    unknown: dict[str, list[int]] = field(default_factory=dict)
    failures: list[errors.HoldfastError] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self._stopped = threading.Event()

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        value = 0
        with Client(self.config) as client:
            while not self._stopped.is_set():
                path = f"load/{self.name_}-{value % self.paths}"
                began = time.monotonic()
                try:
                    written = client.kv.put(path, {"value": value})
                    self.acknowledged.setdefault(path, []).append((written.version, value))
                except errors.HoldfastError as problem:
                    self.failures.append(problem)
                    self.unknown.setdefault(path, []).append(value)
                self.latencies_s.append(time.monotonic() - began)
                value += 1

    def stop(self) -> None:
        self._stopped.set()
        self.join(timeout=90)
        assert not self.is_alive()


def assert_nothing_lost(client: Client, writer: Writer) -> int:
    """Every acknowledged write is there, under the version it was acknowledged with, and versions have no gaps."""
    checked = 0
    for path, writes in writer.acknowledged.items():
        metadata = client.kv.get_metadata(path)
        versions = [version for version, _ in writes]
        possible = len(writer.unknown.get(path, []))
        assert versions == sorted(set(versions)), f"a version was given twice: {versions}"
        assert len(writes) <= metadata.current_version <= len(writes) + possible, (path, metadata.current_version)
        if not possible:
            assert versions == list(range(1, len(versions) + 1)), f"versions are not contiguous: {versions}"
        kept = {version.version for version in metadata.versions}
        assert kept == set(range(max(1, metadata.oldest_version), metadata.current_version + 1))
        for version, value in writes:
            if version in kept:
                assert client.kv.get(path, version=version).data == {"value": value}, (path, version)
                checked += 1
    return checked
