"""`make bench-requests`: put and get against real nodes over TLS, one request at a time and many at once.

The load runs in a process of its own, through the client that applications use. Figures depend on the machine and on
what else it does; compare runs made together.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from holdfast.benchmarks.measure import Figures, figures, table
from holdfast.client import AsyncClient, ClientConfig, errors
from holdfast.client.local import LocalCluster

VALUE = {"username": "admin", "password": "p" * 200}


@click.command("requests")
@click.option("--nodes", default=3, show_default=True, help="How many nodes.")
@click.option("--operations", default=1000, show_default=True, help="Operations of each one-at-a-time run.")
@click.option("--seconds", default=5.0, show_default=True, help="Length of each many-at-once run.")
@click.option("--clients", default=50, show_default=True, help="Requests under way at once in those.")
@click.option("--format", "output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def requests(nodes: int, operations: int, seconds: float, clients: int, output: str) -> None:
    """Measure put and get: p50, p95, p99 and throughput.

    Example: python -m holdfast.benchmarks requests --operations 2000 --clients 100
    """
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder,
        LocalCluster.create(Path(folder), nodes) as cluster,
    ):
        cluster.start()
        cluster.wait_listening()
        made = cluster.initialize(shares=1, threshold=1)
        for node in cluster.nodes:
            cluster.unseal(node, made.shares)
        cluster.wait_serving()
        idle_mib = [resident_mib(node.process.pid) for node in cluster.nodes if node.process is not None]
        rows = asyncio.run(run(cluster, made.root_token, operations, seconds, clients))
        load_mib = [resident_mib(node.process.pid) for node in cluster.nodes if node.process is not None]
    if output == "json":
        memory = {"idle_mib": idle_mib, "after_load_mib": load_mib}
        print(json.dumps({"nodes": nodes, "runs": [dataclasses.asdict(row) for row in rows], "memory": memory}))
        return
    print(table(rows))
    print(f"\nresident memory of each node, MiB: idle {idle_mib}, after the load {load_mib}")
    print(
        f"{nodes} nodes, {os.cpu_count()} cores, Python {sys.version.split()[0]}, load 1 min {os.getloadavg()[0]:.1f}"
    )


async def run(cluster: LocalCluster, token: str, operations: int, seconds: float, clients: int) -> list[Figures]:
    """All runs, on the leader and on a follower."""
    config = ClientConfig(addresses=cluster.addresses, ca_file=cluster.ca_file, token=token)
    async with AsyncClient(config) as probe:
        await probe.kv.put("bench/warm-up", VALUE)
        leader = (await probe.sys.leader()).leader_address
    follower = next(address for address in cluster.addresses if address != leader)
    rows = []
    async with (
        AsyncClient(dataclasses.replace(config, addresses=leader)) as on_leader,
        AsyncClient(dataclasses.replace(config, addresses=follower)) as on_follower,
    ):
        for place, client in (("leader", on_leader), ("follower", on_follower)):
            rows.append(await one_at_a_time(f"put, one at a time, {place}", put(client), operations))
            rows.append(await one_at_a_time(f"get, one at a time, {place}", get(client), operations))
        for place, client in (("leader", on_leader), ("follower", on_follower)):
            rows.append(await many_at_once(f"put, {clients} at once, {place}", put(client), clients, seconds))
            rows.append(await many_at_once(f"get, {clients} at once, {place}", get(client), clients, seconds))
    return rows


Work = Callable[[int], Awaitable[object]]


def put(client: AsyncClient) -> Work:
    """Writes a new version of one of 1,000 secrets."""
    return lambda number: client.kv.put(f"bench/app-{number % 1000}/db", VALUE)


def get(client: AsyncClient) -> Work:
    """Reads one secret, linearizably."""
    return lambda _number: client.kv.get("bench/warm-up")


async def one_at_a_time(name: str, work: Work, operations: int) -> Figures:
    """Each operation begins when the one before has ended."""
    latencies = []
    failures = 0
    began = time.perf_counter()
    for number in range(operations):
        start = time.perf_counter()
        try:
            await work(number)
            latencies.append(time.perf_counter() - start)
        except errors.HoldfastError:
            failures += 1
    return figures(name, latencies, failures, time.perf_counter() - began)


async def many_at_once(name: str, work: Work, clients: int, seconds: float) -> Figures:
    """`clients` workers, each with one operation under way, for `seconds` seconds."""
    latencies: list[float] = []
    failures = 0
    counter = iter(range(1 << 62))
    began = time.perf_counter()

    async def worker() -> None:
        nonlocal failures
        while (start := time.perf_counter()) - began < seconds:
            try:
                await work(next(counter))
                latencies.append(time.perf_counter() - start)
            except errors.HoldfastError:
                failures += 1

    await asyncio.gather(*(worker() for _ in range(clients)))
    return figures(name, latencies, failures, time.perf_counter() - began)


def resident_mib(pid: int) -> int:
    """The resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024
