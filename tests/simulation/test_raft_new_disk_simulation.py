"""Disks that are replaced, and clusters that are being founded, in simulated worlds."""

import itertools
from collections.abc import Iterator

import pytest
import structlog
from support.raft_rig import put
from support.raft_world import World

from holdfast.cluster.raft.admission import admit
from holdfast.cluster.raft.consensus import Applied, Outcome, Role
from holdfast.cluster.raft.timing import Limits
from holdfast.proto.errors import HoldfastError
from holdfast.storage.memory import MemoryStore
from holdfast.storage.memoryhome import MemoryHome

SEEDS = range(8)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()


def ready(world: World) -> bool:
    leader = world.leader()
    return leader is not None and leader.machine.ready


def write(world: World, key: bytes) -> None:
    """An acknowledged write."""
    results: list[Outcome | HoldfastError] = []
    leader = world.leader()
    assert leader is not None
    leader.machine.propose(admit(put(key, b"value")), results.append)
    assert world.run(5.0, until=lambda: bool(results))
    assert isinstance(results[0], Applied), results


def everywhere(world: World, key: bytes) -> bool:
    return all(process.machine.machine.get(key) is not None for process in world.processes.values())


def whole(world: World) -> bool:
    """Every node has everything."""
    machines = [process.machine for process in world.processes.values()]
    return ready(world) and len({machine.applied for machine in machines}) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_replaced_disk_elects_nobody_who_lacks_what_was_acknowledged(seed: int) -> None:
    world = World(seed, initial="abc", pool="abc", limits=Limits())
    assert world.run(5.0, until=lambda: ready(world))
    world.run(0.5)
    leader = world.leader()
    assert leader is not None
    replaced, behind = (node_id for node_id in "abc" if node_id != leader.node_id)
    for other in (leader.node_id, replaced):
        world.blocked |= {(other, behind), (behind, other)}
    world.run(0.5)
    write(world, b"acknowledged")
    world.crash(replaced)
    world.crash(leader.node_id)
    world.stores[replaced] = (MemoryStore(), MemoryHome())
    world.blocked.clear()
    world.start(replaced)
    for _ in range(3):
        world.run(5.0)
        assert world.leader() is None, "one has forgotten, the other does not know"
        world.crash(replaced)
        world.start(replaced)
    world.start(leader.node_id)
    assert world.run(10.0, until=lambda: ready(world) and everywhere(world, b"acknowledged"))
    # Brought up to date by the others, the replaced disk counts again.
    world.run(0.5)
    world.crash(leader.node_id)
    assert world.run(10.0, until=lambda: ready(world))
    assert everywhere(world, b"acknowledged")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("pair", list(itertools.combinations("abc", 2)))
def test_any_majority_founds_a_cluster_however_often_all_are_killed(pair: tuple[str, str], seed: int) -> None:
    """The third node starts late, after all were killed again and again right after an election."""
    world = World(seed, initial="abc", pool="abc", limits=Limits())
    for node_id in sorted(set("abc") - set(pair)):
        world.crash(node_id)
    for _ in range(3):
        won = world.run(10.0, until=lambda: (found := world.leader()) is not None and found.machine.term > 0)
        assert won
        for node_id in pair:
            world.crash(node_id)
        for node_id in pair:
            world.start(node_id)
    assert world.run(10.0, until=lambda: ready(world))
    write(world, b"first")
    world.start(*sorted(set("abc") - set(pair)))
    assert world.run(10.0, until=lambda: everywhere(world, b"first"))


@pytest.mark.parametrize("lost_leader", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_founding_survives_the_loss_of_either_of_its_first_two(seed: int, lost_leader: bool) -> None:
    """A leader is elected and nothing is committed; then one of the two is gone, and the third starts."""
    world = World(seed, initial="abc", pool="abc", limits=Limits())
    world.crash("c")
    assert world.run(10.0, until=lambda: world.leader() is not None)
    leader = world.leader()
    assert leader is not None
    voter = "b" if leader.node_id == "a" else "a"
    assert not leader.machine.log.founded
    world.crash(leader.node_id if lost_leader else voter)
    assert not world.run(2.0, until=lambda: ready(world))
    world.start("c")
    assert world.run(10.0, until=lambda: ready(world))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_world_in_which_a_disk_is_replaced_now_and_then_loses_nothing(seed: int) -> None:
    """One disk at a time, and the next only when the cluster is whole again."""
    world = World(seed, initial="abcde", pool="abcde", limits=Limits())
    keys = [b"turn-%d" % turn for turn in range(6)]
    for turn, key in enumerate(keys, start=1):
        assert world.run(10.0, until=lambda: ready(world))
        write(world, key)
        victim = world.random.choice("abcde")
        world.crash(victim)
        other = world.random.choice([node_id for node_id in "abcde" if node_id != victim])
        world.stores[victim] = (MemoryStore(), MemoryHome())
        world.crash(other)
        world.start(victim)
        world.run(2.0 * world.random.random())
        world.start(other)
        leader = world.leader()
        if leader is not None:
            world.crash(leader.node_id)
            world.start(leader.node_id)
        assert world.run(20.0, until=lambda: whole(world))
        world.run(1.0)
        world.check_logs()
        assert all(everywhere(world, written) for written in keys[:turn])
    assert sum(process.machine.role is Role.LEADER for process in world.processes.values()) == 1
