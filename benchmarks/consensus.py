"""`make bench-consensus`: the consensus module alone, three processes over mutual TLS with synced RocksDB journals.

No gRPC, no encryption of values, no policy: what is measured here bounds what requests can reach. The load runs in the
event loop of the node that it is put on, as a front end would; failover is timed from kill -9 to the first write that a
survivor acknowledges to a writer that asks without pause.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from holdfast.benchmarks.machine import Machine, describe
from holdfast.benchmarks.measure import Figures, Target, figures, table, targets_table
from holdfast.benchmarks.workers import Group, Worker, WorkerLost

NODES = 3
MIB = 1024 * 1024
FILL_VALUE_BYTES = 16 * 1024
FILL_AT_ONCE = 32
AWAY_S = 6.0
"""A member is away for the log's trimming after five seconds without contact (cluster/raft/timing.py)."""

SMALL_LOG_TAIL = 100
PROBE_S = 30.0
SNAPSHOT_S = 300.0
"""How long a snapshot may take to be installed."""


@dataclass(frozen=True)
class Plan:
    """How much is measured. at_once: writers and readers of the many-at-once runs. foreground: writers while a snapshot
    is sent. state_mib: size of the state that is sent. snapshots: how often."""

    operations: int
    seconds: float
    at_once: int
    value_bytes: int
    kills: int
    foreground: int
    state_mib: int
    snapshots: int


@dataclass(frozen=True)
class Results:
    """failovers_s: one for each kill. snapshots_s: how long each snapshot took to send and install."""

    runs: list[Figures]
    failovers_s: list[float]
    snapshots_s: list[float]
    targets: list[Target]


@click.command("consensus")
@click.option("-operations", "--operations", default=2000, show_default=True, help="Writes of the one-writer run.")
@click.option("-seconds", "--seconds", default=5.0, show_default=True, help="Length of each many-at-once run.")
@click.option("-at-once", "--at-once", default=100, show_default=True, help="Writers and readers in those.")
@click.option("-value-bytes", "--value-bytes", default=256, show_default=True, help="Size of a written value.")
@click.option("-kills", "--kills", default=10, show_default=True, help="How often the leader is killed.")
@click.option("-foreground", "--foreground", default=8, show_default=True, help="Writers while a snapshot is sent.")
@click.option("-state-mib", "--state-mib", default=64, show_default=True, help="Size of the snapshot's state.")
@click.option("-snapshots", "--snapshots", default=3, show_default=True, help="How many snapshots are sent.")
@click.option(
    "-directory", "--directory", type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where the nodes keep their data; the system's temporary folder unless given.",
)  # fmt: skip
@click.option("-format", "--format", "output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def consensus(directory: Path | None, output: str, **plan: Any) -> None:
    """Measure the consensus module: writes, reads, failover, and writes while a snapshot is sent.

    \b
    Examples:
      python -m holdfast.benchmarks consensus
      python -m holdfast.benchmarks consensus -kills=20 -format=json
    """
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=directory) as folder:
        try:
            machine, results = measure(Path(folder), Plan(**plan))
        except WorkerLost as error:
            raise click.ClickException(str(error)) from None
    print(as_json(machine, results) if output == "json" else as_text(machine, results))


def measure(folder: Path, plan: Plan) -> tuple[Machine, Results]:
    """Everything, on clusters in `folder`."""
    machine = describe(folder)
    with Group(folder / "steady", NODES) as group:
        runs = steady(group, plan)
        failovers_s = failover(group, plan)
    with Group(folder / "snapshot", NODES, log_tail=SMALL_LOG_TAIL) as group:
        around, snapshots_s = snapshot(group, plan)
    machine = dataclasses.replace(machine, load_after=os.getloadavg()[0])
    return machine, Results(runs + around, failovers_s, snapshots_s, targets(runs, failovers_s, around))


def targets(runs: Sequence[Figures], failovers_s: Sequence[float], around: Sequence[Figures]) -> list[Target]:
    """The figures that have a target."""
    one, many, read = runs[0], runs[1], runs[2]
    without, during = around
    return [
        Target(f"{many.name}, per second", many.per_second, 15_000, more_is_better=True),
        Target(f"{one.name}, p50, ms", one.p50_ms, 2.0, more_is_better=False),
        Target(f"{read.name}, per second", read.per_second, 50_000, more_is_better=True),
        Target("failover, median, s", statistics.median(failovers_s), 0.6, more_is_better=False),
        Target("p95 of writes while a snapshot is sent : without", during.p95_ms / without.p95_ms, 2.0,
               more_is_better=False),
    ]  # fmt: skip


def steady(group: Group, plan: Plan) -> list[Figures]:
    """Writes one at a time and many at once, reads at the leader and at a follower."""
    leader = group.settled()
    leader.ask("write", at_once=10, operations=1000, value_bytes=plan.value_bytes)  # warm-up
    many = f"{plan.at_once} at once"
    runs = [
        _run("write, one at a time", leader, "write", plan, at_once=1, operations=plan.operations),
        _run(f"write, {many}", leader, "write", plan, at_once=plan.at_once, seconds=plan.seconds),
        _run(f"read index, {many}", leader, "read", plan, at_once=plan.at_once, seconds=plan.seconds),
        _run("read index, one at a time", leader, "read", plan, at_once=1, operations=plan.operations),
    ]
    follower = group.others(group.settled())[0]
    runs.append(
        _run(f"read index, {many}, follower", follower, "read", plan, at_once=plan.at_once, seconds=plan.seconds)
    )
    return runs


def failover(group: Group, plan: Plan) -> list[float]:
    """Seconds from each kill of the leader under load to the first write that a survivor acknowledges."""
    took = []
    for _ in range(plan.kills):
        leader = group.settled()
        leader.send("write", at_once=plan.foreground, seconds=60, value_bytes=plan.value_bytes)
        time.sleep(0.3)
        killed_at_s = time.monotonic()
        leader.kill()
        survivors = group.others(leader)
        for worker in survivors:
            worker.send("probe", seconds=PROBE_S, gone=leader.node_id)
        answers = [answer for worker in survivors if (answer := _probed(worker)) is not None]
        if not answers:
            raise WorkerLost(f"nobody took writes within {PROBE_S:.0f} s of the leader's end")
        took.append(min(answers) - killed_at_s)
        leader.start()
    return took


def _probed(worker: Worker) -> float | None:
    answer: float | None = worker.receive(PROBE_S)["acknowledged_at_s"]
    return answer


def snapshot(group: Group, plan: Plan) -> tuple[list[Figures], list[float]]:
    """Writes without a snapshot under way and while a member that was away is sent one, by turns: two runs, and how
    long each snapshot took to send and install."""
    leader = group.settled()
    fills = max(1, plan.state_mib * MIB // FILL_VALUE_BYTES)
    leader.ask("write", operations=fills, at_once=FILL_AT_ONCE, value_bytes=FILL_VALUE_BYTES, keys=fills)
    foreground = {"at_once": plan.foreground, "value_bytes": plan.value_bytes}
    without, during, took = _Run(), _Run(), []
    for _ in range(plan.snapshots):
        without.add(leader.ask("write", seconds=plan.seconds, **foreground))
        away = group.others(leader)[0]
        away.kill()
        leader.ask("write", at_once=1, seconds=AWAY_S)
        leader.ask("write", operations=2000, **foreground)  # the log is trimmed to its tail
        away.start()
        took.append(_while_sent(leader, away, foreground, during))
        group.settled()
    without.add(leader.ask("write", seconds=plan.seconds, **foreground))
    name = f"write, {plan.foreground} at once"
    return [without.figures(f"{name}, no snapshot"), during.figures(f"{name}, snapshot sent")], took


def _while_sent(leader: Worker, away: Worker, foreground: Mapping[str, float], run: _Run) -> float:
    """Adds the writes until `away` has installed its snapshot. Returns the seconds that took since it was back."""
    deadline = time.monotonic() + SNAPSHOT_S
    while (installed := _installed(away)) is None:
        run.add(leader.ask("write", seconds=0.5, **foreground))
        if time.monotonic() > deadline:
            raise WorkerLost(f"no snapshot was installed within {SNAPSHOT_S:.0f} s")
    run.cut(installed)
    return installed - away.started_at_s


class _Run:
    """Samples of several orders."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []
        self._failures = 0
        self._wall_s = 0.0

    def add(self, answer: dict[str, Any]) -> None:
        self._samples += [(ended, latency) for ended, latency in answer["samples"]]
        self._failures += answer["failures"]
        self._wall_s += answer["wall_s"]

    def cut(self, at_s: float) -> None:
        """Forget what ended later."""
        self._wall_s -= max(0.0, self._samples[-1][0] - at_s)
        self._samples = [sample for sample in self._samples if sample[0] <= at_s]

    def figures(self, name: str) -> Figures:
        return figures(name, [latency for _, latency in self._samples], self._failures, self._wall_s)


def _installed(worker: Worker) -> float | None:
    return next((at for at, event in worker.ask("events")["events"] if event == "snapshot_installed"), None)


def _run(name: str, worker: Worker, do: str, plan: Plan, **order: float) -> Figures:
    run = _Run()
    run.add(worker.ask(do, value_bytes=plan.value_bytes, **order))
    return run.figures(name)


def as_json(machine: Machine, results: Results) -> str:
    """Everything, for programs. Seconds end in `_s`, milliseconds in `_ms`."""
    document = {"machine": dataclasses.asdict(machine), **dataclasses.asdict(results)}
    document["targets"] = [{**dataclasses.asdict(target), "ratio": target.ratio} for target in results.targets]
    return json.dumps(document)


def as_text(machine: Machine, results: Results) -> str:
    """Tables for people."""
    ordered = sorted(results.failovers_s)
    median_s = statistics.median(ordered)
    return "\n".join(
        [
            machine.text(),
            "",
            table(results.runs),
            "",
            f"failover, {len(ordered)} kills: min {ordered[0]:.2f}, median {median_s:.2f}, max {ordered[-1]:.2f} s",
            "snapshots sent and installed in " + ", ".join(f"{took:.1f} s" for took in results.snapshots_s),
            "",
            targets_table(results.targets),
        ]
    )
