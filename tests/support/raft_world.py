"""A world for the consensus machine: virtual time, a seeded network, disks that forget, processes that stop.

The machines, journals and state machines are the product's own; only time, links, disks and the worker thread are
played. Everything is drawn from one seeded generator, so a seed replays exactly.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from support.raft_rig import member, members

from holdfast.cluster.raft import membership
from holdfast.cluster.raft.consensus import Outcome, Role
from holdfast.cluster.raft.entries import Entry
from holdfast.cluster.raft.hardened import HardenedRaft
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.outbox import Job, OnJobDone
from holdfast.cluster.raft.statemachine import Chunk, StateMachine
from holdfast.cluster.raft.timing import Limits, Timing
from holdfast.cluster.raft.transport import LinksTransport
from holdfast.proto.errors import OutcomeUnknown
from holdfast.storage.memory import MemoryStore
from holdfast.storage.memoryhome import MemoryHome


class Violation(AssertionError):
    """A promise was broken."""


class Died(BaseException):
    """The process lost its power in the middle of a step."""


@dataclass
class Chance:
    """How badly the network behaves: probabilities, and delays in seconds."""

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay_s: float = 0.001


@dataclass
class Process:
    """One life of a node."""

    node_id: str
    machine: HardenedRaft
    transport: LinksTransport
    sessions: set[str] = field(default_factory=set)
    wanted: set[str] = field(default_factory=set)
    paused_until_s: float = 0.0
    tick_scheduled: bool = False
    alive: bool = True
    worker_free_s: float = 0.0


class WatchedMachine(StateMachine):
    """The product's state machine, which also tells the world what it applies."""

    def __init__(self, world: World, store: MemoryStore) -> None:
        super().__init__(store)
        self._world = world

    def apply(self, entries: Sequence[Entry]) -> Chunk:
        chunk = super().apply(entries)
        for entry, outcomes in zip(entries, chunk.outcomes, strict=True):
            self._world.saw_applied(entry, outcomes)
        return chunk


class WorldLinks:
    """A process's end of the network."""

    def __init__(self, world: World, node_id: str) -> None:
        self._world = world
        self._node_id = node_id
        self.process: Process | None = None
        self._early: set[str] = set()

    def attach(self, process: Process) -> None:
        self.process = process
        process.wanted = self._early

    def bind(self, **_callbacks: object) -> None:
        """Not used: the world calls the transport."""

    def set_peers(self, peers: Mapping[str, str], guests: Collection[str] = ()) -> None:
        if self.process is None:
            self._early = set(peers)
        else:
            self.process.wanted = set(peers)

    def send(self, node_id: str, payload: bytes) -> bool:
        return self.process is not None and self._world.transmit(self.process, node_id, payload)


class World:
    """Nodes, network, disks and time. `pool` names all nodes that may exist, `initial` the first members."""

    def __init__(self, seed: int, *, initial: str, pool: str, limits: Limits) -> None:
        self.random = random.Random(seed)
        self.now_s = 100.0
        self.initial = initial
        self.pool = pool
        self.limits = limits
        self.timing = Timing(snapshot_bytes_per_s=60_000, snapshot_retry_s=0.15, snapshot_keep_s=1.0, away_s=0.4)
        self.chance = Chance()
        self.death_in_install = 0.0
        self.installs = 0
        self.deaths_in_install = 0
        self.blocked: set[tuple[str, str]] = set()
        self.disk_delay_s = 0.0005
        self.processes: dict[str, Process] = {}
        self.stores = {node_id: (MemoryStore(), MemoryHome()) for node_id in pool}
        self.applied: dict[int, tuple[Entry, list[Outcome]]] = {}
        self.leaders: dict[int, str] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        for node_id in pool:
            self.start(node_id)
        self.after(0.0, self._keep_sessions)

    # Time

    def after(self, delay_s: float, event: Callable[[], None]) -> None:
        """Do something later."""
        self._sequence += 1
        heapq.heappush(self._events, (self.now_s + delay_s, self._sequence, event))

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
        links = WorldLinks(self, node_id)
        transport = LinksTransport(links)
        known = membership.initial(members(self.initial)) if node_id in self.initial else None
        box: list[Process] = []
        machine = HardenedRaft(
            node_id,
            journal=Journal(journal_store, initial=known),
            machine=WatchedMachine(self, home.store),
            home=home,
            transport=transport,
            clock=lambda: self.now_s,
            rng=random.Random(self.random.getrandbits(32)),
            run_job=lambda job, on_done: self._run_job(box[0], job, on_done),
            wake=lambda: self._wake(box[0]) if box else None,
            on_applied=lambda _index, _keys: None,
            timing=self.timing,
            limits=self.limits,
        )
        machine.eligible = True
        process = Process(node_id, machine, transport)
        home.on_step = lambda _step: self._install_step()
        box.append(process)
        links.attach(process)
        self.processes[node_id] = process
        self.after(self.random.random() * 0.01, lambda: self._timer(process))

    def crash(self, node_id: str) -> None:
        """A loss of power: what was not synced may be lost, whole writes at a time."""
        process = self.processes.pop(node_id)
        process.alive = False
        process.machine.fail_all(lambda: OutcomeUnknown("the process ended"))
        for peer in sorted(self.processes):
            self._session_down(process.node_id, peer)
        journal_store, home = self.stores[node_id]
        self.stores[node_id] = (
            journal_store.crash(unsynced_kept=self.random.randint(0, journal_store.unsynced_writes)),
            home.crash(unsynced_kept=self.random.randint(0, home.store.unsynced_writes)),
        )

    def _install_step(self) -> None:
        """Between the steps of an install the power may go."""
        self.installs += 1
        if self.random.random() < self.death_in_install:
            self.deaths_in_install += 1
            raise Died

    def pause(self, node_id: str, seconds: float) -> None:
        """Stop the process for a while, as SIGSTOP does."""
        self.processes[node_id].paused_until_s = self.now_s + seconds

    def guard(self, process: Process, step: Callable[[], None]) -> None:
        """Run a step of a process that is alive, now or when it is resumed."""
        if not process.alive:
            return
        if process.paused_until_s > self.now_s:
            self.after(process.paused_until_s - self.now_s, lambda: self.guard(process, step))
            return
        try:
            step()
        except Died:
            self.crash(process.node_id)
            return
        self._look(process)

    def _timer(self, process: Process) -> None:
        if process.alive:
            self.guard(process, process.machine.doTick)
            self.after(self.timing.tick_s * (0.9 + 0.2 * self.random.random()), lambda: self._timer(process))

    def _wake(self, process: Process) -> None:
        if not process.tick_scheduled:
            process.tick_scheduled = True
            self.after(0.0001, lambda: self._woken(process))

    def _woken(self, process: Process) -> None:
        process.tick_scheduled = False
        self.guard(process, process.machine.doTick)

    def _run_job(self, process: Process, job: Job, on_done: OnJobDone) -> None:
        """One worker for each process: jobs end in the order in which they came."""

        def work() -> None:
            if process.alive:
                job()
                self.guard(process, lambda: on_done(None))

        begins_s = max(self.now_s, process.worker_free_s)
        process.worker_free_s = begins_s + self.disk_delay_s * (0.2 + 1.6 * self.random.random())
        self.after(process.worker_free_s - self.now_s, work)

    # Network

    def transmit(self, sender: Process, receiver: str, payload: bytes) -> bool:
        if receiver not in sender.sessions:
            return False
        copies = 2 if self.random.random() < self.chance.duplicate else 1
        for _ in range(copies):
            if self.random.random() >= self.chance.drop:
                late = 20.0 * self.random.random() if self.random.random() < self.chance.reorder else 1.0
                self.after(self.chance.delay_s * late, lambda: self._arrive(sender.node_id, receiver, payload))
        return True

    def _arrive(self, sender: str, receiver: str, payload: bytes) -> None:
        process = self.processes.get(receiver)
        if process is not None and (sender, receiver) not in self.blocked:
            self.guard(process, lambda: process.transport.receive(sender, payload))

    def _keep_sessions(self) -> None:
        """A session carries one way. It comes up where the sender dials, the receiver knows the sender or hears no
        leader, and nothing is blocked; a broken one is noticed sooner or later."""
        for _, dialler in sorted(self.processes.items()):
            for _, receiver in sorted(self.processes.items()):
                if dialler is not receiver:
                    self._keep_session(dialler, receiver)
        self.after(0.02, self._keep_sessions)

    def _keep_session(self, dialler: Process, receiver: Process) -> None:
        a, b = dialler.node_id, receiver.node_id
        wanted = b in dialler.wanted and (a in receiver.wanted or receiver.machine.hears_no_leader)
        broken = (a, b) in self.blocked or (b, a) in self.blocked
        if b in dialler.sessions:
            if not wanted or (broken and self.random.random() < 0.1):
                self._session_down(b, a)
        elif wanted and not broken:
            dialler.sessions.add(b)
            self.guard(dialler, lambda: dialler.transport.connected(b))

    def _session_down(self, peer: str, node_id: str) -> None:
        process = self.processes.get(node_id)
        if process is not None and peer in process.sessions:
            process.sessions.discard(peer)
            self.guard(process, lambda: process.transport.disconnected(peer))

    # What must hold

    def _look(self, process: Process) -> None:
        machine = process.machine
        if machine.role is Role.LEADER:
            known = self.leaders.setdefault(machine.term, process.node_id)
            if known != process.node_id:
                raise Violation(f"election safety: {known} and {process.node_id} lead in term {machine.term}")

    def saw_applied(self, entry: Entry, outcomes: list[Outcome]) -> None:
        """State machine safety: every node applies the same entry at an index, with the same outcomes."""
        known = self.applied.setdefault(entry.index, (entry, outcomes))
        if known != (entry, outcomes):
            raise Violation(f"state machine safety: two histories at index {entry.index}")

    def check_logs(self) -> None:
        """Log matching: where index and term agree, everything before agrees (the digest says so)."""
        processes = list(self.processes.values())
        for one, other in itertools.pairwise(processes):
            mine, theirs = one.machine.log, other.machine.log
            for index in range(max(mine.base.index, theirs.base.index), min(mine.last_index, theirs.last_index) + 1):
                a, b = mine.at(index), theirs.at(index)
                if a is not None and b is not None and a.term == b.term and a.digest != b.digest:
                    raise Violation(f"log matching: {one.node_id} and {other.node_id} differ at {index}")

    def leader(self) -> Process | None:
        """A process that believes that it leads, the one of the highest term."""
        leaders = [p for p in self.processes.values() if p.machine.role is Role.LEADER]
        return max(leaders, key=lambda p: p.machine.term, default=None)

    def add_member(self, node_id: str) -> Callable[[membership.Configuration], membership.Configuration]:
        """The change that adds a member of the pool."""
        return lambda configuration: configuration.with_learner(member(node_id))
