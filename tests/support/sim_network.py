"""The network of a simulated world: sessions that carry one way, links that lose, delay, double and reorder, blocked
directions, and messages of an old session that turn up late.

Harsher than `cluster.peer`, which keeps the order within a session and mutes an old one: consensus must be safe without
either.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.cluster.raft.messages import MalformedMessage

if TYPE_CHECKING:
    from support.raft_world import Process, World

SESSIONS_EVERY_S = 0.02


@dataclass
class Chance:
    """How badly the network behaves: probabilities, and delays in seconds. late: a message is held back for up to two
    seconds, so that the session it was sent on is an old one when it comes."""

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay_s: float = 0.001
    late: float = 0.0


class WorldLinks:
    """A process's end of the network: the `Links` that the product's transport is given."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.process: Process | None = None
        self._early: set[str] = set()

    def attach(self, process: Process) -> None:
        """The process whose end this is; its machine has dialled already."""
        self.process = process
        process.wanted = self._early

    def bind(self, **_callbacks: object) -> None:
        """Not used: the world calls the transport."""

    def set_peers(self, peers: Mapping[str, str], guests: Collection[str] = ()) -> None:
        """See Links."""
        if self.process is None:
            self._early = set(peers)
        else:
            self.process.wanted = set(peers)

    def send(self, node_id: str, payload: bytes) -> bool:
        """See Links."""
        return self.process is not None and self._network.transmit(self.process, node_id, payload)


class Network:
    """Who reaches whom, and how. blocked: directions (from, to) in which nothing arrives."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sessions = 0
        self.chance = Chance()
        self.blocked: set[tuple[str, str]] = set()

    def transmit(self, sender: Process, receiver: str, payload: bytes) -> bool:
        """Send on the sender's session. False when there is none."""
        world, chance, random = self._world, self.chance, self._world.random
        session = sender.sessions.get(receiver)
        if session is None or not sender.alive:
            return False
        world.checks.sends(sender, receiver, payload)
        sent_s, known = world.now_s, sender.contact.sent(world.now_s)
        copies = 1
        if chance.duplicate and random.random() < chance.duplicate:
            world.trace.count("message duplicated", sender.node_id)
            copies = 2
        for _ in range(copies):
            if chance.drop and random.random() < chance.drop:
                world.trace.count("message dropped", sender.node_id)
                continue
            delay_s = chance.delay_s
            if chance.late and random.random() < chance.late:
                delay_s = 0.1 + 1.9 * random.random()
            elif chance.reorder and random.random() < chance.reorder:
                world.trace.count("message reordered", sender.node_id)
                delay_s *= 20.0 * random.random()
            world.after(delay_s, lambda: self._arrive(sender, session, receiver, payload, sent_s, known))
        return True

    def _arrive(
        self, sender: Process, session: int, receiver: str, payload: bytes, sent_s: float, known: Mapping[str, float]
    ) -> None:
        world = self._world
        process = world.processes.get(receiver)
        if process is None:
            return
        if (sender.node_id, receiver) in self.blocked:
            world.trace.count("message blocked", receiver)
            return
        now = world.processes.get(sender.node_id)
        if now is not sender or sender.sessions.get(receiver) != session:
            world.trace.count("message of an old session", receiver, f"from {sender.node_id}")
        # What the receiver may believe: that the message was sent when it reached the socket, not when it is read.
        late_s = world.now_s - sent_s

        def hear() -> None:
            world.trace.note(receiver, f"hears {sender.node_id}: ", payload)
            process.contact.heard(known, late_s)
            try:
                process.transport.receive(sender.node_id, payload)
            except MalformedMessage:
                world.trace.count("message refused", receiver)
                self.session_down(receiver, sender.node_id)
                self.session_down(sender.node_id, receiver)

        world.guard(process, hear)

    # Sessions

    def keep_sessions(self) -> None:
        """A session comes up where the sender dials, the receiver knows the sender or hears no leader, and nothing is
        blocked; a broken one is noticed sooner or later."""
        processes = sorted(self._world.processes.items())
        for _, dialler in processes:
            for _, receiver in processes:
                if dialler is not receiver:
                    self._keep_session(dialler, receiver)
        self._world.after(SESSIONS_EVERY_S, self.keep_sessions)

    def _keep_session(self, dialler: Process, receiver: Process) -> None:
        a, b = dialler.node_id, receiver.node_id
        wanted = b in dialler.wanted and (a in receiver.wanted or receiver.machine.hears_no_leader)
        broken = bool(self.blocked) and ((a, b) in self.blocked or (b, a) in self.blocked)
        if b in dialler.sessions:
            if not wanted or (broken and self._world.random.random() < 0.1):
                self.session_down(b, a)
        elif wanted and not broken:
            self._sessions += 1
            dialler.sessions[b] = self._sessions
            self._world.trace.note(a, f"session to {b} up")
            self._world.guard(dialler, lambda: dialler.transport.connected(b))

    def session_down(self, peer: str, node_id: str) -> None:
        """A node's session to a peer ends."""
        process = self._world.processes.get(node_id)
        if process is not None and process.sessions.pop(peer, None) is not None:
            self._world.trace.note(node_id, f"session to {peer} down")
            self._world.guard(process, lambda: process.transport.disconnected(peer))

    # Who is cut off from whom

    def separate(self, side: Iterable[str]) -> None:
        """A symmetric partition between these nodes and all others."""
        inside = set(side)
        for a in self._world.pool:
            for b in self._world.pool:
                if (a in inside) != (b in inside):
                    self.blocked.add((a, b))

    def bridge(self, middle: str) -> None:
        """Two halves that both reach the node in the middle, and not each other."""
        others = [node_id for node_id in self._world.pool if node_id != middle]
        left = set(others[: len(others) // 2])
        for a in others:
            for b in others:
                if (a in left) != (b in left):
                    self.blocked.add((a, b))

    def heal(self) -> None:
        """Everyone reaches everyone."""
        self.blocked.clear()
