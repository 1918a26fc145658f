"""One seed's life of a simulated cluster: clients that write and read, everything that goes wrong meanwhile, and what
must be true in the end (tests/simulation/DESIGN.md).
"""

from __future__ import annotations

from typing import Any

from support.raft_world import CLOCK_SPREAD, Process, Violation, World
from support.sim_clients import REGISTERS, Clients, Write
from support.sim_faults import Faults
from support.sim_front import Front
from support.sim_history import Model, check_clients

from holdfast.cluster.raft.timing import Limits, Timing

__all__ = ["SECONDS", "Story", "Violation"]

SECONDS = 6.0
"""How long trouble lasts in the schedules of `make check` and `make simulate`."""

CONVERGES_S = 20.0
"""How soon a cluster in which everything works again agrees on everything."""

SERVES_S = 5.0
"""How soon such a cluster answers a write and a read at every member."""

RUNS_S = 0.3
"""How long a process that was stopped must have run before it counts as running."""

SMALL = Limits(
    log_tail=8, log_lag=20, trim_step=5, trim_max=40, group_count=4, append_bytes=200, window_messages=4,
    apply_entries=3, snapshot_chunk_bytes=500, snapshot_window_bytes=2000,
)  # fmt: skip
TIMES = Timing(
    snapshot_bytes_per_s=60_000, snapshot_retry_s=0.15, snapshot_keep_s=1.0, away_s=0.4, disk_stall_s=0.6,
    state_compare_s=0.1, scrub_interval_s=0.7,
)  # fmt: skip


class Story:
    """One seed's life of a cluster."""

    def __init__(self, seed: int, *, hashed: bool = False) -> None:
        self.seed = seed
        joins = seed % 4 == 3
        initial = "abcde" if seed % 4 == 1 else "abc"
        self.fronts: dict[str, Front] = {}
        self.world = World(
            seed,
            initial=initial,
            pool="abcde" if joins else initial,
            limits=SMALL,
            timing=TIMES,
            clock_spread=CLOCK_SPREAD,
            hashed=hashed,
            on_start=self._started,
        )
        self.clients = Clients(self.world, self.fronts)
        self.faults = Faults(self.world, self.fronts, members_change=joins)
        self.world.after(0.0, self._unseal)

    @property
    def writes(self) -> list[Write]:
        """All writes."""
        return self.clients.writes

    @property
    def reads(self) -> int:
        """Linearizable reads that were answered."""
        return self.clients.reads

    def _started(self, world: World, process: Process) -> None:
        self.fronts[process.node_id] = Front(world, process)

    def _unseal(self) -> None:
        """Somebody unseals the nodes, one now and one then."""
        for front in list(self.fronts.values()):
            process = front.process
            if process.alive and front.keys.sealed and (not self.faults.active or self.world.random.random() < 0.5):
                self.world.guard(process, front.unseal)
        self.world.after(0.08, self._unseal)

    def play(self, *, seconds: float = SECONDS) -> None:
        """Let it all happen, heal, and check. Raises Violation."""
        self.world.after(0.5, self.clients.begin)
        self.world.after(1.0, self.faults.begin)
        self.world.run(seconds)
        self.clients.active = False
        self.faults.end()
        self.world.trace.note("", "everything is mended")
        self._come_together()
        self._serve()
        self._come_together()
        self.world.check_logs()
        self._check_history()

    def _come_together(self) -> None:
        if not self.world.run(CONVERGES_S, until=self._converged):
            raise Violation(f"no agreement {CONVERGES_S} s after everything was mended")

    def _converged(self) -> bool:
        leader = self.world.leader()
        if leader is None or not leader.machine.ready:
            return False
        current = leader.machine.log.configurations
        if current.current.promoting or current.index > leader.machine.commit:
            return False
        last = leader.machine.log.last_index
        return all(
            self._serves(node_id) and self.world.processes[node_id].machine.applied == last for node_id in current.peers
        )

    def _serves(self, node_id: str) -> bool:
        """Whether a node is up, has been running for a moment, and holds its keys."""
        process = self.world.processes.get(node_id)
        if process is None or process.paused_until_s > self.world.now_s - RUNS_S:
            return False
        return not self.fronts[node_id].keys.sealed

    def _serve(self) -> None:
        """A write, and a read at every member."""
        leader = self.world.leader()
        assert leader is not None
        probe = self.clients.write(b"both")
        if not self.world.run(SERVES_S, until=lambda: probe.acknowledged is not None):
            raise Violation(f"no write was taken {SERVES_S} s after everything was mended")
        for node_id in leader.machine.log.configurations.peers:
            answers = [self.clients.read(node_id, register) for register in REGISTERS]
            if not self.world.run(SERVES_S, until=lambda waited=answers: all(waited)):  # type: ignore[misc]
                raise Violation(f"{node_id} answered no read {SERVES_S} s after everything was mended")

    def _check_history(self) -> None:
        world = self.world
        model = Model(self.faults.restores)
        model.replay(world.applied)
        check_clients(self.clients, model, world.now_s)
        leader = world.leader()
        assert leader is not None
        digests = set()
        for node_id in leader.machine.log.configurations.peers:
            machine = world.processes[node_id].machine.machine
            digests.add(machine.state_digest)
            model.check_state(node_id, machine)
        if len(digests) != 1:
            raise Violation("state digests differ")

    # For whoever reads a failure

    def told(self, error: BaseException, *, last: int = 60) -> str:
        """What happened before an error, and how to see it again."""
        lines = self.world.trace.lines(last)
        return "\n".join(
            [
                f"seed {self.seed}: {type(error).__name__}: {error}",
                f"the last {len(lines)} events (virtual seconds, node, event):",
                *lines,
                f"replay it: make simulate SEEDS={self.seed}:{self.seed}",
            ]
        )


def lived(seed: int, **options: Any) -> Story:
    """A seed's life. Raises AssertionError with its trace when it breaks a promise."""
    story = Story(seed, **options)
    try:
        story.play()
    except Exception as error:
        raise AssertionError(story.told(error)) from error
    return story
