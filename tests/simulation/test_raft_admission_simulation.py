"""Members that come back to a cluster that has changed, in simulated worlds."""

from collections.abc import Callable, Iterator

import pytest
import structlog
from support.raft_rig import put
from support.raft_world import World

from holdfast.cluster.raft.admission import admit
from holdfast.cluster.raft.consensus import Applied, Outcome
from holdfast.cluster.raft.membership import Configuration
from holdfast.cluster.raft.timing import Limits
from holdfast.proto.errors import HoldfastError

SEEDS = range(6)


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


def change(world: World, changed: Callable[[Configuration], Configuration]) -> None:
    """A membership change, until it is settled and everyone added is promoted."""
    results: list[int | HoldfastError] = []
    assert world.run(5.0, until=lambda: ready(world))
    leader = world.leader()
    assert leader is not None
    leader.machine.change_members(changed, results.append)
    assert world.run(5.0, until=lambda: bool(results))
    assert isinstance(results[0], int), results
    configurations = leader.machine.log.configurations
    settled = world.run(
        5.0, until=lambda: not configurations.current.promoting and configurations.index <= leader.machine.commit
    )
    assert settled
    world.run(1.0)


def replaced_while_away(seed: int) -> World:
    """Voter c is down while a and b give way to d and e, one of which then leads."""
    world = World(seed, initial="abc", pool="abcde", limits=Limits())
    assert world.run(5.0, until=lambda: ready(world))
    world.run(0.5)
    world.crash("c")
    for node_id in "de":
        change(world, world.add_member(node_id))
    for node_id in "ab":
        change(world, lambda configuration, gone=node_id: configuration.without(gone))  # type: ignore[misc]
        world.run(1.0, until=lambda: ready(world))
    for node_id in "ab":
        world.crash(node_id)
    assert world.run(5.0, until=lambda: ready(world))
    write(world, b"while-away")
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_a_voter_that_was_down_follows_a_leader_that_joined_meanwhile(seed: int) -> None:
    world = World(seed, initial="abc", pool="abcd", limits=Limits())
    assert world.run(5.0, until=lambda: ready(world))
    world.run(0.5)
    leader = world.leader()
    assert leader is not None
    down = next(node_id for node_id in "abc" if node_id != leader.node_id)
    world.crash(down)
    change(world, world.add_member("d"))
    leader.machine.transfer("d")
    assert world.run(5.0, until=lambda: ready(world) and world.leader() is world.processes["d"])
    write(world, b"while-away")
    world.start(down)
    assert world.run(10.0, until=lambda: world.processes[down].machine.machine.get(b"while-away") is not None)
    assert world.leader() is world.processes["d"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_voter_whose_every_peer_was_replaced_while_it_was_down_comes_back(seed: int) -> None:
    world = replaced_while_away(seed)
    world.start("c")
    assert world.run(10.0, until=lambda: world.processes["c"].machine.machine.get(b"while-away") is not None)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_voter_whose_every_peer_was_replaced_votes_for_a_candidate_it_does_not_know(seed: int) -> None:
    """Its vote is needed: of the three members, another is down."""
    world = replaced_while_away(seed)
    world.crash("d")
    world.crash("e")
    world.start("c")
    world.start("d")
    assert world.run(10.0, until=lambda: ready(world))
    assert world.run(5.0, until=lambda: world.processes["c"].machine.machine.get(b"while-away") is not None)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_node_that_was_removed_while_it_was_down_does_not_disturb(seed: int) -> None:
    """It campaigns for ever; the members keep leader and term."""
    world = replaced_while_away(seed)
    leader = world.leader()
    assert leader is not None
    term = leader.machine.term
    world.start("c")
    assert world.run(10.0, until=lambda: world.processes["c"].machine.machine.get(b"while-away") is not None)
    world.crash("c")
    change(world, lambda configuration: configuration.without("c"))
    for node_id in "abc":
        world.start(node_id)
    world.run(10.0)
    assert "c" in world.processes["c"].machine.log.configurations.voters
    assert world.leader() is leader
    assert leader.machine.term == term
