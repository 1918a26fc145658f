"""Everything that goes wrong in a simulated world. To add a fault: write a method here, name it in `_FAULTS` with its
weight, and name what it counts in `tests/simulation/test_raft_simulation.py`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

from support.raft_world import Process, World
from support.sim_clients import REGISTERS
from support.sim_front import Front
from support.sim_network import Chance

from holdfast.cluster.raft.restoring import Restoration
from holdfast.proto.errors import AlreadyExists, Fatal, HoldfastError

_QUICK_DISK_S = 0.0005


class Faults:
    """One world's troubles, one every 0.2 seconds or so, until `active` is taken away. Each seed draws which of them it
    sees and how the rest is weighted, so that worlds differ in kind and not only in order."""

    def __init__(self, world: World, fronts: dict[str, Front], *, members_change: bool) -> None:
        self._world = world
        self._random = world.random
        self._fronts = fronts
        self.active = False
        self.restores: list[Restore] = []
        weights = {**_FAULTS, **(_MEMBER_FAULTS if members_change else {})}
        kinds = [kind for kind in weights if kind in _ALWAYS or self._random.random() < 0.7]
        self._kinds = [kind for kind in kinds for _ in range(weights[kind])]

    def begin(self) -> None:
        """Trouble from now on."""
        self.active = True
        self._world.death_in_install = 0.3
        self._next()

    def end(self) -> None:
        """Everything is mended: links, disks, power, keys. Stopped processes run on when their time is up."""
        world = self._world
        self.active = False
        world.death_in_install = 0.0
        world.network.heal()
        world.chance = Chance()
        world.disk_delay_s = _QUICK_DISK_S
        world.slow_disks.clear()
        for journal_store, home in world.stores.values():
            journal_store.fail_next_sync = home.store.fail_next_sync = False
        for node_id in world.pool:
            self._start(node_id)

    def _next(self) -> None:
        if self.active:
            kind = self._random.choice(self._kinds)
            kind(self)
            self._world.check_logs()
            self._world.after(0.05 + 0.35 * self._random.random(), self._next)

    def _count(self, what: str, node_id: str = "", detail: str = "") -> None:
        self._world.trace.count(f"fault: {what}", node_id, detail)

    # Whom it meets

    def _victim(self) -> str:
        leader = self._world.leader()
        if leader is not None and self._random.random() < 0.5:
            return leader.node_id
        return self._random.choice(self._world.pool)

    def _living_victim(self) -> str:
        victim = self._victim()
        if victim in self._world.processes:
            return victim
        return self._random.choice(sorted(self._world.processes) or [""])

    # Processes

    def crash(self) -> None:
        """A node loses its power; a later fault starts it."""
        if victim := self._living_victim():
            self._count("crash", victim)
            self._world.crash(victim)

    def crash_all(self) -> None:
        """The room loses its power."""
        self._count("crash of all nodes")
        for node_id in sorted(self._world.processes):
            self._world.crash(node_id)
        for node_id in self._world.pool:
            self._world.after(0.3 * self._random.random(), lambda node_id=node_id: self._start(node_id))  # type: ignore[misc]

    def start(self) -> None:
        """A node that is down is started."""
        down = [node_id for node_id in self._world.pool if node_id not in self._world.processes]
        if down:
            self._start(self._random.choice(down))

    def _start(self, node_id: str) -> None:
        if node_id not in self._world.processes:
            self._world.start(node_id)

    def absence(self) -> None:
        """A node is down long enough for the others to trim what it misses."""
        if victim := self._living_victim():
            self._count("long absence", victim)
            self._world.crash(victim)
            self._world.after(0.8, lambda: self._start(victim))

    def pause(self) -> None:
        """A process is stopped, for less or more than the time after which it must seal itself."""
        if victim := self._living_victim():
            seconds = self._random.choice([0.1, 0.3, 0.6, 1.0, 1.6]) * (0.7 + 0.6 * self._random.random())
            self._count("pause", victim, f"for {seconds:.3f} s")
            self._world.pause(victim, seconds)

    def cut_off_while_stopped(self) -> None:
        """A process is stopped, and what it finds in its sockets when it runs again is the last that it gets."""
        if victim := self._living_victim():
            self._count("cut off while stopped", victim)
            self._world.pause(victim, 0.8 + self._random.random())
            self._world.after(0.1 * self._random.random(), lambda: self._cut_off(victim))

    def _cut_off(self, node_id: str) -> None:
        if self.active:
            self._world.network.separate({node_id})

    def clock(self) -> None:
        """A clock changes its speed."""
        if victim := self._living_victim():
            process = self._world.processes[victim]
            process.clock.drift(self._world.clock_rate())
            self._count("clock drift", victim, f"to {process.clock.rate:.4f}")

    # Network

    def partition(self) -> None:
        """One node, or two of more than three, are cut off."""
        side = {self._victim()}
        if len(self._world.pool) > 3 and self._random.random() < 0.5:
            side.add(self._random.choice(self._world.pool))
        self._count("partition", "", f"around {sorted(side)}")
        self._world.network.separate(side)

    def one_way(self) -> None:
        """A node is not heard by some, and does not hear others."""
        victim = self._victim()
        self._count("one-way partition", victim)
        for other in self._world.pool:
            if other != victim:
                self._world.blocked.add((victim, other) if self._random.random() < 0.5 else (other, victim))

    def bridge(self) -> None:
        """Two halves that only one node connects."""
        middle = self._victim()
        self._count("bridge", middle)
        self._world.network.bridge(middle)

    def heal(self) -> None:
        """Partitions end."""
        self._world.network.heal()

    def bad_network(self) -> None:
        """Messages are lost, doubled, reordered, held back."""
        self._count("bad network")
        self._world.chance = Chance(
            drop=0.1 * self._random.random(),
            duplicate=0.1 * self._random.random(),
            reorder=0.3 * self._random.random(),
            late=0.02 * self._random.random(),
            delay_s=0.001 + 0.01 * self._random.random(),
        )

    def good_network(self) -> None:
        """The network is well again."""
        self._world.chance = Chance()

    # Disks

    def slow_disks(self) -> None:
        """All disks change their speed."""
        self._world.disk_delay_s = self._random.choice([0.0005, 0.005, 0.02, 0.08])
        if self._world.disk_delay_s > _QUICK_DISK_S:
            self._count("slow disks", "", f"{self._world.disk_delay_s} s")

    def slow_disk(self) -> None:
        """One disk is slow, or hangs for longer than a leader may wait."""
        victim = self._victim()
        if self._random.random() < 0.4:
            self._count("hanging disk", victim)
            self._world.slow_disks[victim] = 1.2
            self._world.after(0.2, lambda: self._world.slow_disks.pop(victim, None))
        else:
            self._count("one slow disk", victim)
            self._world.slow_disks[victim] = self._random.choice([0.02, 0.1, 0.25])
            self._world.after(1.5 * self._random.random(), lambda: self._world.slow_disks.pop(victim, None))

    def failed_sync(self) -> None:
        """The next sync of the log or of the state fails: the node stops, and is started on what was synced."""
        if victim := self._living_victim():
            journal_store, home = self._world.stores[victim]
            state = self._random.random() < 0.3
            self._count("failed sync", victim, "of the state" if state else "of the log")
            (home.store if state else journal_store).fail_next_sync = True

    # Leadership, keys, members

    def transfer(self) -> None:
        """An operator wants another leader."""
        leader = self._world.leader()
        leadership = None if leader is None else leader.machine.leadership
        if leader is not None and leadership is not None and leadership.successors():
            target = self._random.choice(leadership.successors())
            self._count("leadership transfer", leader.node_id, f"to {target}")
            self._world.guard(leader, lambda: self._transfer(leader, target))
            if self._random.random() < 0.3:
                # It hears nothing of its successor, and believes for a while longer that it leads.
                self._count("handover in the dark", leader.node_id)
                self._world.blocked |= {(other, leader.node_id) for other in self._world.pool}

    def _transfer(self, leader: Process, target: str) -> None:
        if leader.machine.leadership is not None:
            leader.machine.transfer(target)

    def seal(self) -> None:
        """An operator seals a node."""
        front = self._fronts.get(self._victim())
        if front is not None and front.process.alive and not front.keys.sealed:
            self._count("seal", front.process.node_id)
            self._world.guard(front.process, lambda: front.keys.seal("by an operator"))

    def change_members(self) -> None:
        """A member is added, as a voter or a learner, or removed."""
        leader = self._world.leader()
        if leader is not None:
            self._world.guard(leader, self._change_members)

    def _change_members(self) -> None:
        leader = self._world.leader()
        if leader is None:
            return
        current = leader.machine.log.configurations.current
        outside = [node_id for node_id in self._world.pool if current.member(node_id) is None]
        try:
            if outside and (len(current.members) <= 3 or self._random.random() < 0.5):
                joins = self._random.choice(outside)
                voter = self._random.random() < 0.8
                leader.machine.change_members(self._world.add_member(joins, voter=voter), lambda _: None)
                self._count("member added" if voter else "learner added", joins)
            elif len(current.voters) > 2:
                gone = self._random.choice(current.members).node_id
                leader.machine.change_members(lambda configuration: configuration.without(gone), lambda _: None)
                self._count("member removed", gone)
        except AlreadyExists:
            raise
        except HoldfastError:
            self._count("member change refused")

    def restore(self) -> None:
        """An operator restores a snapshot file, which some members do not have yet."""
        leader = self._world.leader()
        if leader is None:
            return
        number = len(self.restores)
        records = [
            (key, b"restored-%d" % number) for keys in REGISTERS.values() if self._random.random() < 0.7 for key in keys
        ]
        sha256 = hashlib.sha256(b"%d" % number).digest()
        self._world.contents[sha256] = sorted(records)
        restore = Restore(sha256, dict(records), self._world.now_s)
        self.restores.append(restore)
        for node_id in sorted(self._world.processes):
            process = self._world.processes[node_id]
            if process is not leader and self._random.random() < 0.5:
                self._world.guard(process, lambda process=process: self._world.provide(process, sha256))  # type: ignore[misc]
        self._world.guard(leader, lambda: self._restore(leader, restore))

    def _restore(self, leader: Process, restore: Restore) -> None:
        self._world.provide(leader, restore.sha256)
        if not leader.machine.restores.has(restore.sha256):
            return

        def done(result: int | HoldfastError) -> None:
            if not isinstance(result, HoldfastError):
                restore.returned_s = self._world.now_s

        try:
            leader.machine.restore(Restoration(restore.sha256, replace_keys=self._random.random() < 0.5), done)
            self._count("restore", leader.node_id)
        except Fatal:
            raise
        except HoldfastError:
            self._count("restore refused")


@dataclass
class Restore:
    """A restore that an operator asked for, and when he was told that it was done."""

    sha256: bytes
    records: dict[bytes, bytes]
    called_s: float
    returned_s: float = math.inf


Fault = Callable[[Faults], None]

_FAULTS: dict[Fault, int] = {
    Faults.crash: 2,
    Faults.crash_all: 1,
    Faults.start: 5,
    Faults.absence: 2,
    Faults.pause: 2,
    Faults.cut_off_while_stopped: 1,
    Faults.clock: 1,
    Faults.partition: 2,
    Faults.one_way: 1,
    Faults.bridge: 1,
    Faults.heal: 6,
    Faults.bad_network: 1,
    Faults.good_network: 2,
    Faults.slow_disks: 1,
    Faults.slow_disk: 1,
    Faults.failed_sync: 1,
    Faults.transfer: 2,
    Faults.seal: 1,
    Faults.restore: 1,
}
_MEMBER_FAULTS: dict[Fault, int] = {Faults.change_members: 5}
_ALWAYS = (Faults.start, Faults.heal, Faults.good_network, Faults.slow_disks, Faults.change_members)
"""Without these a world stays broken."""
