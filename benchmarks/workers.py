"""Processes that run the consensus of a node and nothing above it: started, told what to do, killed.

The module that they run is named only as a string: benchmarks do not import the node.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from holdfast.client.local import LocalCluster, LocalNode

MODULE = "holdfast.server.consensus_worker"
ANSWER_S = 120.0
"""How long a worker may take for an answer beyond the time it was told to work."""

SETTLED_S = 60.0
"""How long the group may take to elect a leader and to bring every member up."""


class WorkerLost(Exception):
    """A worker ended or did not answer; its log file says why."""


class Worker:
    """One process. Orders and answers are lines of JSON (`server/consensus_worker.py`)."""

    def __init__(self, node: LocalNode) -> None:
        self.node = node
        self._process: subprocess.Popen[bytes] | None = None
        self.started_at_s = 0.0

    @property
    def node_id(self) -> str:
        """The node's id."""
        return self.node.node_id

    def start(self) -> None:
        """Start it and wait until it takes part."""
        command = [sys.executable, "-m", MODULE, "--config", str(self.node.config_file)]
        with self.node.log_file.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self.receive()
        self.started_at_s = time.monotonic()

    def ask(self, do: str, **order: float | str) -> dict[str, Any]:
        """Give an order and wait for its answer."""
        self.send(do, **order)
        return self.receive(float(order.get("seconds", 0.0)))

    def send(self, do: str, **order: float | str) -> None:
        """Give an order; fetch the answer with `receive`."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")
        self._process.stdin.flush()

    def receive(self, seconds: float = 0.0) -> dict[str, Any]:
        """The next answer. Raises WorkerLost."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        watchdog = threading.Timer(seconds + ANSWER_S, process.kill)
        watchdog.start()
        try:
            line = process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            tail = self.node.log_tail(5)
            raise WorkerLost(f"{self.node_id} gave no answer; the end of {self.node.log_file}:\n{tail}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._close(self._process)

    def stop(self) -> None:
        """Close its stdin, on which it ends by itself; kill it when that takes long."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._close(self._process)

    def _close(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None


class Group:
    """The workers of one cluster. A context manager: at its end every process is gone."""

    def __init__(self, folder: Path, count: int, *, log_tail: int | None = None) -> None:
        """Makes certificates and configurations in `folder`. log_tail: see `raft.log_tail`."""
        cluster = LocalCluster.create(folder, count)
        for node in cluster.nodes:
            if log_tail is not None:
                config = yaml.safe_load(node.config_file.read_text())
                config["raft"] = {"log_tail": log_tail}
                node.config_file.write_text(yaml.safe_dump(config))
        self.workers = [Worker(node) for node in cluster.nodes]

    def __enter__(self) -> Group:
        try:
            for worker in self.workers:
                worker.start()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            for worker in self.workers:
                worker.stop()
        self._kill()

    def _kill(self) -> None:
        for worker in self.workers:
            worker.kill()

    def settled(self) -> Worker:
        """The leader, once it is ready and every member is connected and has the whole log."""
        leaders: list[Worker] = []

        def found() -> bool:
            leaders[:] = [worker for worker in self.workers if _leads_all(worker.ask("status"))]
            return bool(leaders)

        self.wait_for(found, "a leader with all members level")
        return leaders[0]

    def others(self, leader: Worker) -> list[Worker]:
        """Everyone but the leader."""
        return [worker for worker in self.workers if worker is not leader]

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Raises WorkerLost when it takes longer than SETTLED_S."""
        deadline = time.monotonic() + SETTLED_S
        while not condition():
            if time.monotonic() > deadline:
                raise WorkerLost(f"{what}: not within {SETTLED_S:.0f} s")
            time.sleep(0.05)


def _leads_all(status: dict[str, Any]) -> bool:
    peers = status["peers"]
    level = all(peer["match_index"] >= status["commit_index"] for peer in peers)
    connected = all(peer["connected"] or peer["member"]["node_id"] == status["node_id"] for peer in peers)
    return bool(status["ready"] and level and connected)
