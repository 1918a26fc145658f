"""A stage for the consensus machine: every message waits until the script delivers it, every disk syncs when it is
told, and time stands still until it is told to pass. Journals, state machines and machines are the product's own.

A node's step is followed by the ticks that it asked for and, unless its disk is slow, by the jobs it gave its worker.
What the step changed is written to the trace.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from support.golden import trace
from support.golden.promises import Promises, Violation
from support.raft_rig import members

from holdfast.cluster.raft import membership, messages
from holdfast.cluster.raft.consensus import Role
from holdfast.cluster.raft.entries import Entry
from holdfast.cluster.raft.hardened import HardenedRaft
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.messages import MalformedMessage
from holdfast.cluster.raft.outbox import Job, OnJobDone
from holdfast.cluster.raft.statemachine import Chunk, StateMachine
from holdfast.cluster.raft.timing import Limits, Timing
from holdfast.cluster.raft.transport import LinksTransport
from holdfast.proto.errors import Fatal, OutcomeUnknown
from holdfast.storage.memory import MemoryStore
from holdfast.storage.memoryhome import MemoryHome

TURNS_MAX = 2000
"""Ticks after one input, and messages in one `settle`: more means that something never comes to rest."""

_QUIET_EVENTS = {"members"}
_QUIET_FIELDS = {"event", "level", "advice", "message"}


class Dice(random.Random):
    """Chance that the script decides: `share` says where between its bounds an election timeout falls."""

    def __init__(self) -> None:
        super().__init__(0)
        self.share = 0.5
        self._drawn = 0

    def random(self) -> float:
        return self.share

    def getrandbits(self, k: int, /) -> int:
        self._drawn += 1
        return self._drawn


@dataclass
class Seen:
    """What the trace has shown of a node."""

    state: str = ""
    log: list[Entry] = field(default_factory=list)
    base: int = 0
    members: str = ""
    term: int = 0
    commit: int = 0
    applied: int = 0
    synced: int = 0


class Actor:
    """One life of a node. slow: its disk works only when told. paused: as SIGSTOP does it."""

    def __init__(self, stage: Stage, node_id: str) -> None:
        self.stage = stage
        self.node_id = node_id
        self.wanted: set[str] = set()
        self.jobs: deque[tuple[Job, OnJobDone]] = deque()
        self.woken = False
        self.slow = False
        self.paused = False
        self.failed: Fatal | None = None
        self.seen = Seen()
        self.dice = Dice()
        self.transport = LinksTransport(self)
        journal_store, home = stage.disks[node_id], stage.homes[node_id]
        known = membership.initial(members("".join(stage.initial))) if node_id in stage.initial else None
        self.machine = HardenedRaft(
            node_id,
            journal=Journal(journal_store, initial=known),
            machine=WatchedMachine(stage, node_id, home.store),
            home=home,
            transport=self.transport,
            clock=lambda: stage.now_s,
            rng=self.dice,
            run_job=lambda job, on_done: self.jobs.append((job, on_done)),
            wake=self._wake,
            on_applied=lambda _index, _keys: None,
            timing=stage.timing,
            limits=stage.limits,
        )
        self.machine.eligible = True

    def _wake(self) -> None:
        self.woken = True

    # Links, as the transport sees them

    def bind(self, **_callbacks: object) -> None:
        """Not used: the stage calls the transport."""

    def set_peers(self, peers: Mapping[str, str], guests: Collection[str] = ()) -> None:
        self.wanted = set(peers)

    def send(self, node_id: str, payload: bytes) -> bool:
        return self.stage.transmit(self, node_id, payload)


class WatchedMachine(StateMachine):
    """The product's state machine, whose every entry is compared with what other nodes applied."""

    def __init__(self, stage: Stage, node_id: str, store: MemoryStore) -> None:
        self._stage = stage
        self._node_id = node_id
        super().__init__(store)

    def apply(self, entries: Sequence[Entry]) -> Chunk:
        chunk = super().apply(entries)
        voters = self._stage.actors[self._node_id].machine.log.configurations.voters
        for entry, outcomes in zip(entries, chunk.outcomes, strict=True):
            self._stage.promises.applies(self._node_id, voters, entry, outcomes)
        return chunk


class Stage:
    """Nodes, links, disks and time. `now_ms` counts from the beginning of the scene."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.timing = Timing()
        self.limits = Limits()
        self.initial: tuple[str, ...] = ()
        self.disks: dict[str, MemoryStore] = {}
        self.homes: dict[str, MemoryHome] = {}
        self.actors: dict[str, Actor] = {}
        self.in_flight: dict[tuple[str, str], list[bytes]] = {}
        self.sessions: set[tuple[str, str]] = set()
        self.cut: set[tuple[str, str]] = set()
        self.held: set[tuple[str, str]] = set()
        self.promises = Promises(self.disks)
        self.lines: list[str] = []
        self.quiet = False
        self._depth = 0
        self._acting = ""

    @property
    def now_s(self) -> float:
        # A little more than the millisecond, so that a stamp in microseconds is never rounded down below it.
        return self.now_ms / 1000 + 1e-7

    # The trace

    def say(self, line: str) -> None:
        """A line of output."""
        self.lines.append("  " * self._depth + line)

    def log_event(self, _logger: Any, level: str, event: dict[str, Any]) -> Any:
        """A structlog processor that shows a node's own log lines in the trace."""
        if event["event"] not in _QUIET_EVENTS:
            fields = " ".join(
                f"{key}={value}" for key, value in event.items() if key not in _QUIET_FIELDS and "bytes" not in key
            )
            self.say(f"{self._acting}: logs {level} {event['event']} {fields}".rstrip())
        raise structlog.DropEvent

    def _observe(self, actor: Actor) -> None:
        """Show what changed, and check what must hold."""
        machine, seen, name = actor.machine, actor.seen, actor.node_id
        state = self.state_of(machine)
        if state != seen.state:
            self.say(f"{name}: {state}")
            seen.state = state
            if machine.role is Role.LEADER:
                self.promises.leads(name, machine)
        now = machine.term, machine.commit
        self.promises.moves(name, before=(seen.term, seen.commit), after=now)
        self.promises.stands(name, machine.machine.applied.index, machine.machine.state_digest)
        seen.term = machine.term
        self._observe_log(actor)
        configuration = trace.members(machine.log.configurations.current)
        if configuration != seen.members:
            self.say(f"{name}: members {configuration}")
            seen.members = configuration
        if actor.slow and machine.log.synced != seen.synced:
            self.say(f"{name}: durable to {machine.log.synced}")
        seen.synced = machine.log.synced
        if machine.commit != seen.commit:
            self.say(f"{name}: commit {machine.commit}")
            seen.commit = machine.commit
        if machine.applied != seen.applied:
            self.say(f"{name}: applied {machine.applied}")
            seen.applied = machine.applied

    def _observe_log(self, actor: Actor) -> None:
        log, seen, name = actor.machine.log, actor.seen, actor.node_id
        now = [log.entry(index) for index in range(log.base.index + 1, log.last_index + 1)]
        before = [entry for entry in seen.log if entry.index > log.base.index]
        same = 0
        while same < min(len(now), len(before)) and now[same] == before[same]:
            same += 1
        if log.base.index != seen.base:
            self.say(f"{name}: log begins after {trace.place(log.base)}")
        if before[same:]:
            self.say(f"{name}: log loses" + trace.entries(before[same:]))
        if now[same:]:
            self.say(f"{name}: log gains" + trace.entries(now[same:]))
        seen.log, seen.base = now, log.base.index

    @staticmethod
    def state_of(machine: HardenedRaft) -> str:
        """Role, term and vote of a machine, and whom it follows."""
        role = machine.role.value
        if machine.role is Role.FOLLOWER and machine.leader_id:
            role = f"follower of {machine.leader_id}"
        vote = f", voted for {machine.voted_for}" if machine.voted_for else ""
        return f"{role} in term {machine.term}{vote}"

    # Nodes

    def found(self, node_ids: Sequence[str], *, fresh: bool) -> None:
        """Start the cluster's first members. fresh: on new disks; otherwise on disks of a cluster that has a history,
        so that elections go as the paper has them."""
        self.initial = tuple(node_ids)
        for node_id in node_ids:
            if node_id not in self.disks:
                self.prepare_disk(node_id)
                if not fresh:
                    journal = Journal(self.disks[node_id], initial=membership.initial(members("".join(node_ids))))
                    journal.vouch()
                    journal.note_founded()
                    journal.sync()
        for node_id in node_ids:
            self.start(node_id)

    def prepare_disk(self, node_id: str) -> None:
        """An empty disk for a node that has none."""
        if node_id not in self.disks:
            self.disks[node_id] = MemoryStore()
            self.homes[node_id] = MemoryHome()

    def start(self, node_id: str) -> None:
        """Start a node on whatever its disk holds."""
        self.prepare_disk(node_id)
        self._acting = node_id
        actor = Actor(self, node_id)
        log = actor.machine.log
        actor.seen = Seen(
            state=self.state_of(actor.machine),
            log=[log.entry(index) for index in range(log.base.index + 1, log.last_index + 1)],
            base=log.base.index,
            members=trace.members(log.configurations.current),
            term=actor.machine.term,
            commit=actor.machine.commit,
            applied=actor.machine.applied,
            synced=log.synced,
        )
        self.actors[node_id] = actor
        self.keep_sessions()

    def crash(self, node_id: str, *, journal_kept: int, state_kept: int) -> None:
        """A loss of power. *_kept: how many of the writes that were not synced the disk has all the same."""
        actor = self.actors.pop(node_id)
        self._gone(node_id)
        actor.machine.fail_all(lambda: OutcomeUnknown("the process ended"))
        self.disks[node_id] = self.disks[node_id].crash(unsynced_kept=journal_kept)
        self.homes[node_id] = self.homes[node_id].crash(unsynced_kept=state_kept)

    def _gone(self, node_id: str) -> None:
        for link in [link for link in self.in_flight if link[1] == node_id]:
            del self.in_flight[link]
        self.sessions = {link for link in self.sessions if link[0] != node_id}
        self.keep_sessions()

    def act(self, actor: Actor, step: Callable[[], object]) -> None:
        """One step of a node and all that follows from it there."""
        self._step(actor, step)
        for _ in range(TURNS_MAX):
            if actor.failed is not None or actor.paused:
                break
            if actor.woken:
                actor.woken = False
                self._step(actor, actor.machine.doTick)
            elif actor.jobs and not actor.slow:
                self.work(actor)
            else:
                break
        else:
            raise Violation(f"{actor.node_id} never comes to rest")
        self.promises.logs_match(actor.machine for actor in self.actors.values())
        self.keep_sessions()

    def work(self, actor: Actor) -> None:
        """Let the worker do its next job."""
        job, on_done = actor.jobs.popleft()
        error: BaseException | None = None
        try:
            job()
        except Exception as raised:  # noqa: BLE001 - what a worker reports, whatever it is
            error = raised
        self._step(actor, lambda: on_done(error))

    def _step(self, actor: Actor, step: Callable[[], object]) -> None:
        """As the driver does it: a Fatal ends the process, and everyone who waits is told."""
        self._acting = actor.node_id
        try:
            step()
        except MalformedMessage:
            raise
        except Fatal as error:
            actor.failed = error
        self._observe(actor)
        if actor.failed is not None:
            self.say(f"{actor.node_id}: stops, {type(actor.failed).__name__}: {actor.failed.message}")
            failed = actor.failed
            del self.actors[actor.node_id]
            actor.machine.fail_all(lambda: failed)
            self._gone(actor.node_id)

    # Links

    def transmit(self, sender: Actor, receiver: str, payload: bytes) -> bool:
        """A machine hands a message to its session."""
        link = (sender.node_id, receiver)
        if link not in self.sessions:
            return False
        message = messages.decode(payload)
        self.promises.sends(*link, message)
        if not self.quiet:
            self.say(f"{link[0]} -> {link[1]}  {trace.message(message)}")
        self.in_flight.setdefault(link, []).append(payload)
        return True

    def deliver(self, link: tuple[str, str], payload: bytes) -> None:
        """A message arrives. What is malformed costs the session."""
        receiver = self.actors[link[1]]
        if not self.quiet:
            self.say(f"{link[0]} => {link[1]}  {trace.message(messages.decode(payload))}")
        self._depth += not self.quiet
        try:
            self.act(receiver, lambda: receiver.transport.receive(link[0], payload))
        except MalformedMessage as error:
            self.say(f"{link[1]}: drops the session of {link[0]}: {error}")
            self._break(link)
            self.keep_sessions()
        finally:
            self._depth -= not self.quiet

    def can_deliver(self, link: tuple[str, str]) -> bool:
        """Whether `settle` delivers what waits on a link."""
        receiver = self.actors.get(link[1])
        waits = bool(self.in_flight.get(link)) and link not in self.held
        return waits and receiver is not None and not receiver.paused

    def settle(self) -> None:
        """Deliver everything, in turn, until nothing is on its way."""
        for _ in range(TURNS_MAX):
            link = next((link for link in sorted(self.in_flight) if self.can_deliver(link)), None)
            if link is None:
                return
            for payload in list(self.in_flight[link]):
                if self.can_deliver(link):
                    self.in_flight[link].remove(payload)
                    self.deliver(link, payload)
        raise Violation("the messages never come to an end")

    def keep_sessions(self) -> None:
        """A session carries one way: from who dials to who knows the dialler or hears no leader."""
        for a, dialler in sorted(self.actors.items()):
            for b, receiver in sorted(self.actors.items()):
                link = (a, b)
                welcome = a in receiver.wanted or receiver.machine.hears_no_leader
                wanted = a != b and b in dialler.wanted and welcome and link not in self.cut
                if wanted and link not in self.sessions and not dialler.paused:
                    self.sessions.add(link)
                    self.act(dialler, lambda dialler=dialler, b=b: dialler.transport.connected(b))  # type: ignore[misc]
        for link in sorted(self.sessions):
            a, b = link
            if link in self.cut or a not in self.actors or b not in self.actors or b not in self.actors[a].wanted:
                self._break(link)

    def _break(self, link: tuple[str, str]) -> None:
        """A session breaks: what was on its way is lost."""
        if link not in self.sessions:
            return
        self.sessions.discard(link)
        self.in_flight.pop(link, None)
        dialler = self.actors.get(link[0])
        if dialler is not None:
            self.act(dialler, lambda: dialler.transport.disconnected(link[1]))

    # Time

    def pass_time(self, ms: int, *, deliver: bool, tick_ms: int = 10) -> None:
        """Let time pass in ticks of every node that is not paused."""
        end = self.now_ms + ms
        while self.now_ms < end:
            self.now_ms = min(end, self.now_ms + tick_ms)
            for actor in [actor for _, actor in sorted(self.actors.items())]:
                if not actor.paused and self.actors.get(actor.node_id) is actor:
                    self.act(actor, actor.machine.doTick)
            if deliver:
                self.settle()
