"""One replica's state is wrong in a simulated world: that one stops, whatever its role, and the others go on."""

import contextlib
from collections.abc import Iterator, Sequence

import pytest
import structlog
from support.raft_rig import put
from support.raft_story import SMALL
from support.raft_world import World

from holdfast.cluster.raft.admission import admit
from holdfast.cluster.raft.consensus import Applied, Outcome
from holdfast.cluster.raft.entries import Entry
from holdfast.cluster.raft.statemachine import DATA, Chunk, StateMachine
from holdfast.proto.errors import Corruption, Diverged, HoldfastError

KEYS = (b"k0", b"k1", b"k2")
SEEDS = range(12)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()


class Scene:
    """A cluster of three that is written to all the time."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed, initial="abc", pool="abc", limits=SMALL)
        self.written = 0
        self.world.after(0.0, self._client)
        self.run_until_written(6)
        self.world.may_stop = True

    def _client(self) -> None:
        leader = self.world.leader()
        if leader is not None:
            key = self.world.random.choice(KEYS)
            with contextlib.suppress(HoldfastError):
                leader.machine.propose(admit(put(key, b"v%d" % self.written)), self._done)
        self.world.after(0.02, self._client)

    def _done(self, result: Outcome | HoldfastError) -> None:
        self.written += isinstance(result, Applied)

    def run_until_written(self, count: int) -> None:
        wanted = self.written + count
        assert self.world.run(20.0, until=lambda: self.written >= wanted), "the cluster takes no writes"

    def victim(self, *, leads: bool) -> str:
        leader = self.world.leader()
        assert leader is not None
        others = sorted(set(self.world.processes) - {leader.node_id})
        return leader.node_id if leads else self.world.random.choice(others)

    def alter(self, node_id: str, key: bytes) -> None:
        """A record changes where it lies, under checksums that fit."""
        store = self.world.stores[node_id][1].store
        stored = store.get(DATA + key)
        if stored is not None:
            store.write([(DATA + key, stored[:-1] + bytes([stored[-1] ^ 1]))])

    def only_this_one_stops(self, node_id: str, *errors: type[HoldfastError]) -> None:
        assert self.world.run(20.0, until=lambda: bool(self.world.stopped)), "nobody noticed"
        self.run_until_written(10)
        [(stopped, fatal)] = self.world.stopped.items()
        assert (stopped, type(fatal) in errors) == (node_id, True), fatal
        others = [process for name, process in self.world.processes.items() if name != node_id]
        states = [process.machine.machine for process in others]
        index = min(state.applied.index for state in states)
        assert len({state.digest_at(index) for state in states}) == 1


@pytest.mark.parametrize("leads", [True, False])
def test_a_replica_whose_altered_records_are_written_over_is_found_by_comparison(leads: bool) -> None:
    for seed in SEEDS:
        scene = Scene(seed)
        victim = scene.victim(leads=leads)
        for process in scene.world.processes.values():
            process.machine.scrub._due_s = float("inf")  # no pass but one that a comparison asks for
        for key in KEYS:
            scene.alter(victim, key)
        scene.only_this_one_stops(victim, Diverged, Corruption)


@pytest.mark.parametrize("leads", [True, False])
def test_a_replica_whose_record_was_altered_where_it_lies_finds_it_when_it_reads_its_records_again(leads: bool) -> None:
    for seed in SEEDS:
        scene = Scene(seed)
        victim = scene.victim(leads=leads)
        store = scene.world.stores[victim][1].store
        store.write([(DATA + b"added", bytes(8) + b"never written")])
        scene.only_this_one_stops(victim, Corruption)


@pytest.mark.parametrize("leads", [True, False])
def test_a_replica_that_applies_an_entry_otherwise_finds_that_a_majority_has_another_state(
    leads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in SEEDS:
        scene = Scene(seed)
        victim = scene.victim(leads=leads)
        machine = scene.world.processes[victim].machine.machine

        def faulty(entries: Sequence[Entry], machine: StateMachine = machine) -> Chunk:
            chunk = StateMachine.apply(machine, entries)
            wrong = bytes(15) + bytes([machine.applied.index % 256])
            machine._meta = type(machine._meta)(machine._meta.format, machine._meta.at, wrong, machine._meta.content)
            machine._digests[machine.applied.index] = machine.state_digest
            return chunk

        monkeypatch.setattr(machine, "apply", faulty)
        scene.only_this_one_stops(victim, Diverged)


def test_without_a_majority_that_agrees_nobody_stops_who_cannot_be_shown_to_be_wrong() -> None:
    scene = Scene(3)
    scene.world.crash(scene.victim(leads=False))
    leader = scene.world.leader()
    assert leader is not None
    scene.run_until_written(5)
    scene.alter(scene.victim(leads=False), KEYS[0])
    assert scene.world.run(20.0, until=lambda: bool(scene.world.stopped))
    [(stopped, error)] = scene.world.stopped.items()
    assert stopped != leader.node_id
    assert isinstance(error, Corruption), "it read its records again, and only its own were wrong"
