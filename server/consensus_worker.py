"""A node's consensus and nothing above it, told over stdin what to do: for the benchmark runner.

`python -m holdfast.server.consensus_worker --config node.yaml` opens the journal, the state and the peer port as a node
does and takes part in the cluster; there is no gRPC, no seal and no key. Each line of stdin is one order in JSON, each
line of stdout its answer; the end of stdin ends the process. The load runs in the event loop of the consensus module,
where a node's front end runs too. What it writes is random bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random  # noqa: TID251 - a composition root, as node.py is
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import click
import msgspec
import structlog

from holdfast.cluster.peer.network import PeerNetwork
from holdfast.cluster.peer.tls import PeerTls
from holdfast.cluster.raft.consensus import Applied, Member
from holdfast.cluster.raft.node import RaftNode
from holdfast.proto.errors import Fatal, HoldfastError
from holdfast.server.config import NodeConfig, load
from holdfast.server.exits import EXIT_FATAL
from holdfast.server.process import DataFolder, harden, settle_garbage_collector
from holdfast.server.runner import run_loop
from holdfast.storage.batch import Batch, Put
from holdfast.storage.keys import KeyClass, frame
from holdfast.storage.rocksdb import RocksStore
from holdfast.storage.rockshome import RocksHome

LINE_BYTES_MAX = 1024 * 1024
TIMEOUT_S = 5.0
"""How long one write or read may take before it counts as failed."""

PROBE_PAUSE_S = 0.001
VALUES = 64
"""How many different values are written; random, so that nothing compresses."""


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """do: status, write, read, probe, or events. at_once: operations under way at the same time. operations, seconds:
    the run ends with whichever is reached first; 0 for no limit. keys: how many different keys are written. gone: the
    node whose successor a probe is about."""

    do: str
    at_once: int = 1
    operations: int = 0
    seconds: float = 0.0
    value_bytes: int = 256
    keys: int = 10_000
    gone: str = ""


class Worker:
    """The running consensus module and the load that is put on it. Times are of CLOCK_MONOTONIC, in seconds, which
    all processes of a machine share."""

    def __init__(self, raft: RaftNode, events: list[tuple[float, str]]) -> None:
        self._raft = raft
        self._events = events
        self._count = 0

    async def obey(self, order: Order) -> dict[str, Any]:
        """Do one thing and tell how it went."""
        if order.do == "status":
            return msgspec.to_builtins(self._raft.status(), str_keys=True)  # type: ignore[no-any-return]
        if order.do == "write":
            values = [secrets.token_bytes(order.value_bytes) for _ in range(VALUES)]
            return await self._load(order, lambda number: self._write(number % order.keys, values[number % VALUES]))
        if order.do == "read":
            return await self._load(order, lambda _: self._raft.read_barrier(timeout_s=TIMEOUT_S))
        if order.do == "probe":
            return {"acknowledged_at_s": await self._probe(order.seconds, order.gone)}
        if order.do == "events":
            return {"events": self._events}
        raise ValueError(f"no such order: {order.do}")

    async def _write(self, number: int, value: bytes) -> None:
        # Values of different sizes have keys of their own, so that a state stays as large as it was made.
        key = KeyClass.SHARED.value + frame(len(value).to_bytes(4, "big") + number.to_bytes(20, "big"))
        outcome = await self._raft.propose(Batch(puts=(Put(key, value),)), timeout_s=TIMEOUT_S)
        assert isinstance(outcome, Applied)

    async def _load(self, order: Order, work: Callable[[int], Awaitable[object]]) -> dict[str, Any]:
        """`at_once` loops, each with one operation under way. samples: (ended at, latency) of each that succeeded."""
        samples: list[tuple[float, float]] = []
        failures = 0
        left = order.operations or sys.maxsize
        began = time.monotonic()
        until = began + order.seconds if order.seconds else float("inf")

        async def loop() -> None:
            nonlocal failures, left
            while left > 0 and (start := time.monotonic()) < until:
                left -= 1
                self._count += 1
                try:
                    await work(self._count)
                    ended = time.monotonic()
                    samples.append((ended, ended - start))
                except HoldfastError:
                    failures += 1
                    await asyncio.sleep(PROBE_PAUSE_S)

        await asyncio.gather(*(loop() for _ in range(order.at_once)))
        return {"samples": samples, "failures": failures, "wall_s": time.monotonic() - began}

    async def _probe(self, seconds: float, gone: str) -> float | None:
        """When this node first acknowledged a write; None when another succeeded the node that is gone, or nobody did
        within `seconds`."""
        value = secrets.token_bytes(64)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            status = self._raft.status()
            if status.leader_id not in ("", gone, status.node_id):
                return None
            try:
                await self._write(0, value)
                return time.monotonic()
            except HoldfastError:
                await asyncio.sleep(PROBE_PAUSE_S)
        return None


async def run(config: NodeConfig) -> int:
    """Take part and obey until stdin ends. Returns the process's exit code."""
    events = _remember_events()
    with contextlib.ExitStack() as held:
        data = Path(config.data_dir)
        held.enter_context(DataFolder(data))
        journal = RocksStore.open(data / "journal")
        held.callback(journal.close)
        state = RocksHome.open(data / "state")
        held.callback(state.close)
        tls = config.cluster.tls
        network = PeerNetwork(
            node_id=config.node_id,
            bind=config.cluster.bind,
            tls=PeerTls(Path(tls.cert_file), Path(tls.key_file), Path(tls.ca_file)),
        )
        fatal: asyncio.Future[Fatal] = asyncio.get_running_loop().create_future()
        members = [
            Member(node_id=m.node_id, cluster_address=m.cluster_address, api_address=m.api_address)
            for m in config.cluster.initial_members
        ]
        raft = RaftNode(
            member=next(member for member in members if member.node_id == config.node_id),
            initial_members=members,
            journal_store=journal,
            state=state,
            links=network,
            clock=time.monotonic,
            rng=random.SystemRandom(),
            on_fatal=lambda error: None if fatal.done() else fatal.set_result(error),
            limits=config.raft.limits,
        )
        raft.set_eligible(eligible=True)
        await network.start()
        await raft.start()
        settle_garbage_collector()
        serving = asyncio.ensure_future(_serve(Worker(raft, events)))
        waiting: set[asyncio.Future[Any]] = {serving, fatal}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if fatal.done():
            return EXIT_FATAL
        serving.result()
        await raft.stop()
        await network.stop()
    return 0


def _remember_events() -> list[tuple[float, str]]:
    """Of snapshots: (seconds, event), for the runner to know when one was under way. All else goes to stderr."""
    events: list[tuple[float, str]] = []

    def remember(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if str(event["event"]).startswith("snapshot_"):
            events.append((time.monotonic(), str(event["event"])))
        return event

    structlog.configure(
        processors=[remember, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    return events


async def _serve(worker: Worker) -> None:
    orders = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    _answer({"ready": True})
    while line := await orders.readline():
        _answer(await worker.obey(msgspec.json.decode(line, type=Order)))


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


@click.command()
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), required=True, help="A node.yaml.")
def main(config: Path) -> None:
    """Run the consensus of one node for a benchmark. Nobody else has a use for it."""
    harden()
    sys.exit(run_loop(run(load(config))))


if __name__ == "__main__":
    main()
