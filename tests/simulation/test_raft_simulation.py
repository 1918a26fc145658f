"""Consensus in simulated worlds: one seed, one life of a cluster in which everything goes wrong.

HOLDFAST_SIM_SEEDS="count" or "first:last" chooses other seeds. A failing seed replays exactly:
HOLDFAST_SIM_SEEDS=17:17 pytest tests/simulation -k raft
"""

import os
from collections.abc import Iterator

import pytest
import structlog
from support.raft_story import Story

BATCHES = 12


def chosen_seeds() -> range:
    first, _, last = os.environ.get("HOLDFAST_SIM_SEEDS", "60").partition(":")
    return range(int(first), int(last) + 1) if last else range(int(first))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of elections are no news."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("part", range(BATCHES))
def test_no_seed_breaks_a_promise(part: int) -> None:
    for seed in chosen_seeds()[part::BATCHES]:
        story = Story(seed)
        try:
            story.play(seconds=6.0)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_a_seed_replays_exactly() -> None:
    lives = []
    for _ in range(2):
        story = Story(5)
        story.play(seconds=3.0)
        lives.append((story.world.now_s, story.world.applied, story.world.leaders, story.reads, len(story.writes)))
    assert lives[0] == lives[1]


def test_the_simulation_does_not_idle() -> None:
    """Clients get answers: a world in which nothing succeeds would break no promise either."""
    stories = [Story(seed) for seed in range(4)]
    for story in stories:
        story.play(seconds=4.0)
    assert sum(write.acknowledged is not None for story in stories for write in story.writes) > 80
    assert sum(story.reads for story in stories) > 80


def test_the_simulation_installs_snapshots_and_dies_in_the_middle() -> None:
    steps = deaths = 0
    for seed in range(16):
        story = Story(seed)
        story.play(seconds=6.0)
        steps += story.world.installs
        deaths += story.world.deaths_in_install
    assert steps > 10
    assert deaths > 0
