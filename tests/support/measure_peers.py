"""Measure the peer network between two processes on loopback: `python tests/support/measure_peers.py [asyncio|uvloop]`.

Prints messages a second for 256-byte Raft messages, sent in bursts as a leader does, and the round trip of a call.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import structlog
from support.peers import LOOPS, Certs, eventually

from holdfast.cluster.peer.network import PeerNetwork

MESSAGES, BURST, PAYLOAD = 300_000, 64, bytes(256)
WINDOW = 8192  # messages in flight: the receiver confirms every BURST
CALLS, WORKERS = 2000, 64


async def receiver(certs: Certs, network: PeerNetwork, sender: str) -> None:
    received = 0

    def on_message(peer: str, _: bytes) -> None:
        nonlocal received
        received += 1
        if received % BURST == 0:
            network.send(peer, received.to_bytes(8, "big"))

    network.bind(on_message=on_message, on_connected=lambda _: None, on_disconnected=lambda _: None)
    network.serve("echo", lambda _, payload: asyncio.sleep(0, payload))
    network.set_peers({"node-1": sender})
    await network.start()
    print(network.address, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await network.stop()


async def sender(directory: Path, network: PeerNetwork, loop: str) -> None:
    confirmed, up = 0, asyncio.Event()

    def on_message(_: str, payload: bytes) -> None:
        nonlocal confirmed
        confirmed = int.from_bytes(payload, "big")

    network.bind(on_message=on_message, on_connected=lambda _: up.set(), on_disconnected=lambda _: up.clear())
    await network.start()
    child = subprocess.Popen(  # noqa: ASYNC220  once, before anything is measured
        [sys.executable, __file__, loop, str(directory), network.address],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    address = await asyncio.get_running_loop().run_in_executor(None, child.stdout.readline)
    network.set_peers({"node-2": address.strip()})
    await up.wait()
    await eventually(lambda: network.stats().sessions_incoming == 1)
    start, sent = time.perf_counter(), 0
    while sent < MESSAGES:
        while sent < MESSAGES and sent - confirmed < WINDOW:
            for _ in range(BURST):
                sent += network.send("node-2", PAYLOAD)
        await asyncio.sleep(0)
    await eventually(lambda: confirmed >= MESSAGES - BURST)
    print(f"raft: {MESSAGES / (time.perf_counter() - start):,.0f} messages/s of 256 bytes")
    times: list[float] = []

    async def calls(count: int) -> None:
        for _ in range(count):
            begun = time.perf_counter()
            await network.call("node-2", "echo", PAYLOAD, timeout_s=30)
            times.append((time.perf_counter() - begun) * 1e6)

    await calls(CALLS)
    quantiles = statistics.quantiles(times[CALLS // 10 :], n=100)
    print(f"call, one at a time: p50 {quantiles[49]:.0f} µs, p99 {quantiles[98]:.0f} µs")
    start = time.perf_counter()
    await asyncio.gather(*(calls(300) for _ in range(WORKERS)))
    print(f"calls, {WORKERS} at a time: {WORKERS * 300 / (time.perf_counter() - start):,.0f}/s")
    child.communicate()
    await network.stop()


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    loop = sys.argv[1] if len(sys.argv) > 1 else "uvloop"
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        if len(sys.argv) > 2:
            certs = Certs.__new__(Certs)
            certs.good = Path(sys.argv[2]) / "good"
            network = PeerNetwork(node_id="node-2", bind="127.0.0.1:0", tls=certs.tls("node-2"))
            runner.run(receiver(certs, network, sys.argv[3]))
            return
        with tempfile.TemporaryDirectory() as folder:
            certs = Certs(Path(folder))
            network = PeerNetwork(node_id="node-1", bind="127.0.0.1:0", tls=certs.tls("node-1"))
            runner.run(sender(Path(folder), network, loop))


if __name__ == "__main__":
    main()
