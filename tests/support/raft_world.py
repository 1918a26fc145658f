"""A world for the consensus machine: virtual time, a seeded network, disks that forget, processes that stop.

The machines, journals and state machines are the product's own; only time, links, disks and the worker thread are
played. Everything is drawn from one seeded generator, so a seed replays exactly.
"""

from __future__ import annotations

import enum
import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from support.raft_rig import member, members
from support.sim_checks import Checks, Violation, WatchedJournal, WatchedMachine
from support.sim_contact import Contact
from support.sim_disk import Worker
from support.sim_network import Chance, Network, WorldLinks
from support.sim_trace import Trace

from holdfast.cluster.raft import membership, restoring
from holdfast.cluster.raft.consensus import Outcome, Role
from holdfast.cluster.raft.entries import Entry
from holdfast.cluster.raft.hardened import HardenedRaft
from holdfast.cluster.raft.timing import Limits, Timing
from holdfast.cluster.raft.transport import LinksTransport
from holdfast.proto.errors import Fatal, OutcomeUnknown
from holdfast.storage.memory import MemoryStore
from holdfast.storage.memoryhome import MemoryHome

__all__ = ["CLOCK_SPREAD", "Chance", "Clock", "Died", "Process", "Queue", "Violation", "World"]

CLOCK_SPREAD = 0.05
"""How much faster or slower than the world a node's clock may run: far more than a real one."""


class Died(BaseException):
    """The process lost its power in the middle of a step."""


class Clock:
    """A node's monotonic clock: its own beginning, its own speed."""

    def __init__(self, world: World, *, begins_s: float, rate: float) -> None:
        self._world = world
        self._then_s, self._own_s = world.now_s, begins_s
        self.rate = rate

    def __call__(self) -> float:
        """Seconds."""
        return self._own_s + (self._world.now_s - self._then_s) * self.rate

    def drift(self, rate: float) -> None:
        """Run at another speed from now on."""
        self._own_s, self._then_s = self(), self._world.now_s
        self.rate = rate


class Queue(enum.Enum):
    """Where something waits for a process that is stopped."""

    PEERS = "sockets of members, and the worker's pipe"
    CLIENTS = "sockets of clients"
    TIMERS = "timers that are due"


@dataclass
class Process:
    """One life of a node. sessions: by receiver, the number of the session to it. waiting: what a stopped process will
    do when it runs again."""

    node_id: str
    machine: HardenedRaft
    transport: LinksTransport
    clock: Clock
    contact: Contact
    worker: Worker
    sessions: dict[str, int] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)
    paused_until_s: float = 0.0
    waiting: dict[Queue, deque[Callable[[], None]]] = field(default_factory=lambda: {q: deque() for q in Queue})
    tick_scheduled: bool = False
    alive: bool = True


class World:
    """Nodes, network, disks and time. `pool` names all nodes that may exist, `initial` the first members.

    on_start: told of every process that begins. clock_spread: see CLOCK_SPREAD; 0 gives every node the world's time.
    """

    def __init__(
        self,
        seed: int,
        *,
        initial: str,
        pool: str,
        limits: Limits,
        timing: Timing | None = None,
        clock_spread: float = 0.0,
        hashed: bool = False,
        on_start: Callable[[World, Process], None] = lambda _world, _process: None,
    ) -> None:
        self.random = random.Random(seed)
        self.now_s = 100.0
        self.initial = initial
        self.pool = pool
        self.limits = limits
        self.timing = timing or Timing(
            snapshot_bytes_per_s=60_000, snapshot_retry_s=0.15, snapshot_keep_s=1.0, away_s=0.4,
            state_compare_s=0.1, scrub_interval_s=0.7,
        )  # fmt: skip
        self.clock_spread = clock_spread
        self.on_start = on_start
        self.trace = Trace(lambda: self.now_s, hashed=hashed)
        self.checks = Checks(self)
        self.network = Network(self)
        self.may_stop = False
        self.stopped: dict[str, Fatal] = {}
        self.death_in_install = 0.0
        self.installs = 0
        self.deaths_in_install = 0
        self.disk_delay_s = 0.0005
        self.slow_disks: dict[str, float] = {}
        self.processes: dict[str, Process] = {}
        self.stores = {node_id: (MemoryStore(), MemoryHome()) for node_id in pool}
        self.contents: dict[bytes, list[tuple[bytes, bytes]]] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        for node_id in pool:
            self.start(node_id)
        self.after(0.0, self.network.keep_sessions)

    # What the parts hold

    @property
    def chance(self) -> Chance:
        """How badly the network behaves."""
        return self.network.chance

    @chance.setter
    def chance(self, chance: Chance) -> None:
        self.network.chance = chance

    @property
    def blocked(self) -> set[tuple[str, str]]:
        """Directions in which nothing arrives."""
        return self.network.blocked

    @blocked.setter
    def blocked(self, blocked: set[tuple[str, str]]) -> None:
        self.network.blocked = blocked

    @property
    def applied(self) -> dict[int, tuple[Entry, list[Outcome]]]:
        """What was applied at each index."""
        return self.checks.applied

    @property
    def leaders(self) -> dict[int, str]:
        """Who led in each term."""
        return self.checks.leaders

    def check_logs(self) -> None:
        """See Checks.logs."""
        self.checks.logs()

    # Time

    def after(self, delay_s: float, event: Callable[[], None]) -> None:
        """Do something later."""
        self._at(self.now_s + delay_s, event)

    def _at(self, time_s: float, event: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (time_s, self._sequence, event))

    def run(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass. True when `until` came about."""
        end = self.now_s + seconds
        while self._events and self._events[0][0] <= end:
            self.now_s, _, event = heapq.heappop(self._events)
            event()
            if until():
                return True
        self.now_s = end
        return until()

    # Processes

    def start(self, node_id: str) -> None:
        """Start a node on whatever its disk holds."""
        journal_store, home = self.stores[node_id]
        links = WorldLinks(self.network)
        transport = LinksTransport(links)
        known = membership.initial(members(self.initial)) if node_id in self.initial else None
        box: list[Process] = []
        worker = Worker(self, node_id)
        clock = Clock(self, begins_s=self.now_s, rate=1.0)
        if self.clock_spread:
            clock = Clock(self, begins_s=1000.0 * self.random.random(), rate=self.clock_rate())
        self.trace.note(node_id, "starts")
        machine = HardenedRaft(
            node_id,
            journal=WatchedJournal(self.checks, node_id, journal_store, initial=known),
            machine=WatchedMachine(self.checks, node_id, home.store),
            home=home,
            transport=transport,
            clock=clock,
            rng=random.Random(self.random.getrandbits(32)),
            run_job=worker.run,
            wake=lambda: self._wake(box[0]) if box else None,
            on_applied=lambda _index, _keys: None,
            on_content_wanted=lambda sha256: self.after(
                0.3 * self.random.random(), lambda: self.guard(box[0], lambda: self.provide(box[0], sha256))
            ),
            timing=self.timing,
            limits=self.limits,
        )
        machine.eligible = True
        process = Process(node_id, machine, transport, clock, Contact(node_id, self.pool, self.now_s), worker)
        home.on_step = lambda step: self._install_step(node_id, step)
        box.append(process)
        worker.process = process
        links.attach(process)
        self.processes[node_id] = process
        self.checks.voter_sets.add(machine.log.configurations.voters)
        self.on_start(self, process)
        self.after(self.random.random() * 0.01, lambda: self._timer(process))

    def clock_rate(self) -> float:
        """How fast a clock may run."""
        return 1.0 + self.clock_spread * (2.0 * self.random.random() - 1.0)

    def crash(self, node_id: str) -> None:
        """A loss of power: what was not synced may be lost, whole writes at a time; all of it where a sync failed."""
        process = self.processes.pop(node_id)
        process.alive = False
        self.trace.note(node_id, "loses power")
        process.machine.fail_all(lambda: OutcomeUnknown("the process ended"))
        for peer in sorted(self.processes):
            self.network.session_down(process.node_id, peer)
        journal_store, home = self.stores[node_id]
        keeps = 0 if self._disk_failed(node_id) else 1
        self.stores[node_id] = (
            journal_store.crash(unsynced_kept=keeps * self.random.randint(0, journal_store.unsynced_writes)),
            home.crash(unsynced_kept=keeps * self.random.randint(0, home.store.unsynced_writes)),
        )

    def _install_step(self, node_id: str, step: str) -> None:
        """Between the steps of an install the power may go."""
        self.installs += 1
        if step == "after":
            self.trace.count("snapshot installed", node_id)
        if self.random.random() < self.death_in_install:
            self.deaths_in_install += 1
            self.trace.count("death in an install", node_id)
            raise Died

    def pause(self, node_id: str, seconds: float) -> None:
        """Stop the process for a while, as SIGSTOP does. What arrives meanwhile waits, and is read when it resumes."""
        process = self.processes[node_id]
        process.paused_until_s = max(process.paused_until_s, self.now_s + seconds)

    def guard(self, process: Process, step: Callable[[], None], queue: Queue = Queue.PEERS) -> None:
        """Run a step of a process that is alive, now or when it is resumed."""
        if not process.alive:
            return
        waits = any(process.waiting.values())
        if process.paused_until_s > self.now_s or waits:
            if not waits:
                self._at(process.paused_until_s, lambda: self._resume(process))
            process.waiting[queue].append(step)
        else:
            self._step(process, step)

    def _resume(self, process: Process) -> None:
        """What waited is done, each queue in the order in which it came. Which socket is read first is anybody's guess,
        and timers come after sockets, as in asyncio's loop."""
        if process.paused_until_s > self.now_s:
            self._at(process.paused_until_s, lambda: self._resume(process))
            return
        order = [Queue.PEERS, Queue.CLIENTS] if self.random.random() < 0.5 else [Queue.CLIENTS, Queue.PEERS]
        queues = [process.waiting[queue] for queue in (*order, Queue.TIMERS)]
        while process.alive and (queue := next(filter(None, queues), None)) is not None:
            self._step(process, queue.popleft())

    def _step(self, process: Process, step: Callable[[], None]) -> None:
        try:
            step()
        except Died:
            self.crash(process.node_id)
            return
        except Fatal as error:
            self._ended(process, error)
            return
        self.checks.look(process)

    def _ended(self, process: Process, error: Fatal) -> None:
        """The machine gave up, and its process ends: it must have a reason."""
        if isinstance(error.__cause__, Violation):
            raise error.__cause__
        self.stopped[process.node_id] = error
        if not (self.may_stop or self._disk_failed(process.node_id)):
            raise Violation(f"{process.node_id} stopped itself: {error}") from error
        self.trace.count("stopped by a failed sync", process.node_id)
        if process.alive:
            self.crash(process.node_id)
        self.after(self.random.random(), lambda: self._start_again(process.node_id))

    def _start_again(self, node_id: str) -> None:
        """The service manager starts what has ended."""
        if node_id not in self.processes:
            self.start(node_id)

    def _disk_failed(self, node_id: str) -> bool:
        journal_store, home = self.stores[node_id]
        return journal_store._failed or home.store._failed

    def _timer(self, process: Process) -> None:
        if not process.alive:
            return
        if process.paused_until_s > self.now_s:
            self._at(process.paused_until_s, lambda: self._timer(process))
            return
        self.guard(process, process.machine.doTick)
        self.after(self.timing.tick_s * (0.9 + 0.2 * self.random.random()), lambda: self._timer(process))

    def _wake(self, process: Process) -> None:
        if not process.tick_scheduled:
            process.tick_scheduled = True
            self.after(0.0001, lambda: self._woken(process))

    def _woken(self, process: Process) -> None:
        process.tick_scheduled = False
        self.guard(process, process.machine.doTick)

    def provide(self, process: Process, sha256: bytes) -> None:
        """Prepare the records of a snapshot file (`contents`) beside a node's state, for a restore. Refused while an
        entry waits for other ones, as `cluster/snapshot` does. A step of the process."""
        if process.machine.restores.wanted not in (b"", sha256):
            return
        process.machine.restores.drop()
        content = self.stores[process.node_id][1].stage()
        store = content.open()
        for _ in restoring.fill(store, self.contents[sha256]):
            pass
        store.close()
        process.machine.prepare_content(sha256, content)

    def leader(self) -> Process | None:
        """A process that believes that it leads, the one of the highest term."""
        leaders = [p for p in self.processes.values() if p.machine.role is Role.LEADER]
        return max(leaders, key=lambda p: p.machine.term, default=None)

    def add_member(
        self, node_id: str, *, voter: bool = True
    ) -> Callable[[membership.Configuration], membership.Configuration]:
        """The change that adds a member of the pool."""
        return lambda configuration: configuration.with_learner(member(node_id, voter=voter))
