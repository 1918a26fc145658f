"""What happens in a simulated world: clients that write and read, and everything that goes wrong meanwhile.

What is checked, besides what the world itself checks at every step: no acknowledged write is lost, a request takes
effect once, reads and writes are linearizable (the revisions that clients see never run against real time), the
replicas agree with a deliberately dumb model, and a healed cluster converges.
"""

from __future__ import annotations

from dataclasses import dataclass

from support.raft_rig import put
from support.raft_world import Chance, Process, Violation, World

from holdfast.cluster.raft.admission import admit
from holdfast.cluster.raft.consensus import Applied, Conflicted, Duplicate, Outcome
from holdfast.cluster.raft.entries import Kind, split_batches
from holdfast.cluster.raft.timing import Limits
from holdfast.proto.errors import AlreadyExists, HoldfastError
from holdfast.storage.batch import Batch

KEYS = (b"k0", b"k1", b"k2")
SMALL = Limits(
    log_tail=8, log_lag=20, trim_step=5, trim_max=40, group_count=4, append_bytes=200, window_messages=4,
    apply_entries=3, snapshot_chunk_bytes=500, snapshot_window_bytes=2000,
)  # fmt: skip


@dataclass
class Write:
    """A client's write. floor: the highest revision of its key that anyone had been told of when it was first sent."""

    request: bytes
    batch: Batch
    key: bytes
    floor: int
    attempts: int = 0
    acknowledged: Applied | Duplicate | None = None


class Story:
    """One seed's life of a cluster."""

    def __init__(self, seed: int) -> None:
        joins = seed % 4 == 3
        initial = "abcde" if seed % 4 == 1 else "abc"
        self.world = World(seed, initial=initial, pool="abcde" if joins else initial, limits=SMALL)
        self.random = self.world.random
        self.joins = joins
        self.writes: list[Write] = []
        self.floor = dict.fromkeys(KEYS, 0)
        self.reads = 0
        self.trouble = True

    # Clients

    def write(self) -> None:
        """A new write to a node that believes that it leads."""
        key = self.random.choice(KEYS)
        number = len(self.writes)
        request = b"request-%d" % number
        revision = self.floor[key] if self.random.random() < 0.3 else None
        batch = put(key, b"value-%d" % number, revision=revision, request=request)
        write = Write(request, batch, key, self.floor[key])
        self.writes.append(write)
        self._send(write)

    def _send(self, write: Write) -> None:
        process = self.world.leader()
        if process is None or process.paused_until_s > self.world.now_s:
            self._again(write)
            return
        write.attempts += 1
        try:
            process.machine.propose(admit(write.batch), lambda result: self._written(write, result))
        except HoldfastError:
            self._again(write)

    def _again(self, write: Write) -> None:
        if self.trouble and write.attempts < 5:
            self.world.after(0.1 + 0.2 * self.random.random(), lambda: self._send(write))

    def _written(self, write: Write, result: Outcome | HoldfastError) -> None:
        if isinstance(result, HoldfastError):
            self._again(write)
        elif isinstance(result, Conflicted):
            if not write.batch.preconditions:
                raise Violation("a conflict without a precondition")
        else:
            write.acknowledged = result
            if isinstance(result, Applied):
                # A later attempt may report an effect that an earlier one had before: the floor of the first counts.
                if result.revision <= write.floor:
                    raise Violation(f"write of {write.key!r} went back to {result.revision} from {write.floor}")
                self.floor[write.key] = max(self.floor[write.key], result.revision)

    def read(self) -> None:
        """A linearizable read at any node."""
        process = self.world.processes.get(self.random.choice(self.world.pool))
        if process is None or process.paused_until_s > self.world.now_s:
            return
        key = self.random.choice(KEYS)
        floor = self.floor[key]
        process.machine.read(lambda result: self._read(process, key, floor, result))

    def _read(self, process: Process, key: bytes, floor: int, result: int | HoldfastError) -> None:
        if isinstance(result, HoldfastError):
            return
        record = process.machine.machine.get(key)
        revision = 0 if record is None else record.revision
        if revision < floor:
            raise Violation(f"stale read of {key!r} at {process.node_id}: {revision}, but {floor} was known")
        self.floor[key] = max(self.floor[key], revision)
        self.reads += 1

    def _client(self) -> None:
        if self.trouble:
            self.read() if self.random.random() < 0.5 else self.write()
            self.world.after(self.random.expovariate(1 / 0.012), self._client)

    # Trouble

    def _fault(self) -> None:
        if not self.trouble:
            return
        faults = [
            self._crash, self._crash, self._crash_all, self._start, self._start, self._partition, self._partition,
            self._one_way, self._heal, self._heal, self._pause, self._bad_network, self._good_network, self._slow_disk,
            self._transfer, self._eligibility, self._long_absence, self._long_absence,
        ]  # fmt: skip
        self.random.choice([*faults, self._change_members, self._change_members] if self.joins else faults)()
        self.world.check_logs()
        self.world.after(0.05 + 0.35 * self.random.random(), self._fault)

    def _victim(self) -> str:
        leader = self.world.leader()
        if leader is not None and self.random.random() < 0.6:
            return leader.node_id
        return self.random.choice(self.world.pool)

    def _crash(self) -> None:
        victim = self._victim()
        if victim in self.world.processes:
            self.world.crash(victim)

    def _crash_all(self) -> None:
        for node_id in sorted(self.world.processes):
            self.world.crash(node_id)
        self._start_all()

    def _start(self) -> None:
        down = [node_id for node_id in self.world.pool if node_id not in self.world.processes]
        if down:
            self.world.start(self.random.choice(down))

    def _start_all(self) -> None:
        for node_id in self.world.pool:
            if node_id not in self.world.processes:
                self.world.start(node_id)

    def _partition(self) -> None:
        side = {self._victim()}
        if len(self.world.pool) > 3 and self.random.random() < 0.5:
            side.add(self.random.choice(self.world.pool))
        for a in self.world.pool:
            for b in self.world.pool:
                if (a in side) != (b in side):
                    self.world.blocked.add((a, b))

    def _one_way(self) -> None:
        victim = self._victim()
        for other in self.world.pool:
            if other != victim:
                self.world.blocked.add((victim, other) if self.random.random() < 0.5 else (other, victim))

    def _heal(self) -> None:
        self.world.blocked.clear()

    def _long_absence(self) -> None:
        """Long enough for the others to trim what the member misses."""
        victim = self._victim()
        if victim in self.world.processes:
            self.world.crash(victim)
            self.world.after(0.8, lambda: self._return(victim))

    def _return(self, node_id: str) -> None:
        if node_id not in self.world.processes:
            self.world.start(node_id)

    def _pause(self) -> None:
        victim = self._victim()
        if victim in self.world.processes:
            self.world.pause(victim, 0.05 + self.random.random())

    def _bad_network(self) -> None:
        self.world.chance = Chance(
            drop=0.1 * self.random.random(),
            duplicate=0.1 * self.random.random(),
            reorder=0.3 * self.random.random(),
            delay_s=0.001 + 0.01 * self.random.random(),
        )

    def _good_network(self) -> None:
        self.world.chance = Chance()

    def _slow_disk(self) -> None:
        self.world.disk_delay_s = self.random.choice([0.0005, 0.005, 0.02, 0.08])

    def _transfer(self) -> None:
        leader = self.world.leader()
        leadership = None if leader is None else leader.machine.leadership
        if leader is not None and leadership is not None and leadership.successors():
            leader.machine.transfer(self.random.choice(leadership.successors()))

    def _eligibility(self) -> None:
        process = self.world.processes.get(self._victim())
        if process is not None:
            process.machine.set_eligible(eligible=self.random.random() < 0.6)

    def _change_members(self) -> None:
        leader = self.world.leader()
        if leader is None:
            return
        current = leader.machine.log.configurations.current
        outside = [node_id for node_id in self.world.pool if current.member(node_id) is None]
        try:
            if outside and (len(current.members) <= 3 or self.random.random() < 0.5):
                leader.machine.change_members(self.world.add_member(self.random.choice(outside)), lambda _: None)
            elif len(current.voters) > 2:
                gone = self.random.choice(current.members).node_id
                leader.machine.change_members(lambda configuration: configuration.without(gone), lambda _: None)
        except HoldfastError as error:
            if isinstance(error, AlreadyExists):
                raise

    # The whole

    def play(self, *, seconds: float) -> None:
        """Let it all happen, heal, and check. Raises Violation."""
        self.world.death_in_install = 0.5
        self.world.after(0.5, self._client)
        self.world.after(1.0, self._fault)
        self.world.run(seconds)
        self.trouble = False
        self.world.death_in_install = 0.0
        self._heal()
        self._good_network()
        self.world.disk_delay_s = 0.0005
        self._start_all()
        for process in self.world.processes.values():
            process.machine.set_eligible(eligible=True)
        if not self.world.run(30.0, until=self._converged):
            raise Violation("a healed cluster did not converge")
        self.world.check_logs()
        self._check_history()

    def _converged(self) -> bool:
        leader = self.world.leader()
        if leader is None or not leader.machine.ready:
            return False
        current = leader.machine.log.configurations
        if current.current.promoting or current.index > leader.machine.commit:
            return False
        last = leader.machine.log.last_index
        machines = [self.world.processes[node_id].machine for node_id in current.peers]
        return all(machine.applied == last for machine in machines)

    def _check_history(self) -> None:
        applied = self.world.applied
        if sorted(applied) != list(range(1, len(applied) + 1)):
            raise Violation("the applied history has a hole")
        records: dict[bytes, tuple[int, bytes]] = {}
        effects: dict[bytes, int] = {}
        for index in sorted(applied):
            entry, outcomes = applied[index]
            batches = split_batches(entry.payload) if entry.kind is Kind.BATCHES else ()
            for batch, outcome in zip(batches, outcomes, strict=True):
                if _dumbly(batch, index, records, effects) != outcome:
                    raise Violation(f"the model disagrees with an outcome at {index}")
        for write in self.writes:
            if write.acknowledged is not None and write.request not in effects:
                raise Violation(f"acknowledged write {write.request!r} was lost")
            if isinstance(write.acknowledged, Applied) and effects[write.request] != write.acknowledged.revision:
                raise Violation(f"{write.request!r} took effect at another revision than was said")
        leader = self.world.leader()
        assert leader is not None
        digests = set()
        for node_id in leader.machine.log.configurations.peers:
            machine = self.world.processes[node_id].machine.machine
            digests.add(machine.state_digest)
            for key in KEYS:
                record = machine.get(key)
                if (None if record is None else (record.revision, record.value)) != records.get(key):
                    raise Violation(f"{node_id} holds something else under {key!r} than the model")
        if len(digests) != 1:
            raise Violation("state digests differ")


def _dumbly(batch: Batch, index: int, records: dict[bytes, tuple[int, bytes]], effects: dict[bytes, int]) -> Outcome:
    """The second version of the state machine, as simple as it can be."""
    assert batch.request is not None
    if batch.request.key in effects:
        return Duplicate(batch.request.response)
    for precondition in batch.preconditions:
        if records.get(precondition.key, (0, b""))[0] != precondition.revision:
            return Conflicted(precondition.key)
    for change in batch.puts:
        records[change.key] = (index, change.value)
    effects[batch.request.key] = index
    return Applied(index)
