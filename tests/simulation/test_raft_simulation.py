"""Consensus in simulated worlds: one seed, one life of a cluster in which everything goes wrong (DESIGN.md).

HOLDFAST_SIM_SEEDS="count" or "first:last" chooses other seeds. A failing seed replays exactly:
HOLDFAST_SIM_SEEDS=17:17 pytest tests/simulation -k seed_breaks, or make simulate SEEDS=17:17.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from support import sim_runs
from support.raft_story import Story

SEEDS = "300"
PARTS = 12


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    sim_runs.quiet()
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run have in common."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "simulated-lives"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("part", range(PARTS))
def test_no_seed_breaks_a_promise_and_all_that_can_go_wrong_does(part: int, shared: Path) -> None:
    """Whichever part ends last looks whether everything occurred in all parts together."""
    seeds = os.environ.get("HOLDFAST_SIM_SEEDS", SEEDS)
    counts = sim_runs.live(sim_runs.part_of(sim_runs.chosen(seeds), part, PARTS))
    (shared / f".{part}").write_text(json.dumps(counts))
    (shared / f".{part}").rename(shared / f"{part}.json")
    parts = list(shared.glob("*.json"))
    if len(parts) == PARTS and seeds == SEEDS:
        total: Counter[str] = sum((Counter(json.loads(path.read_text())) for path in parts), Counter())
        assert not sim_runs.missing(total)
        assert total["schedules"] == int(SEEDS)


TRACE = """
from support import sim_runs
from support.raft_story import Story
sim_runs.quiet()
story = Story(7, hashed=True)
story.play()
print(story.world.trace.digest)
"""


def test_a_seed_lives_the_same_life_in_every_process() -> None:
    """Whatever order Python gives its sets in."""
    digests = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", TRACE], env=environment, capture_output=True, text=True, check=True
        )  # fmt: skip
        digests.append(done.stdout.strip())
    assert digests[0] == digests[1]
    assert len(digests[0]) == 32


def test_a_life_that_breaks_a_promise_is_told_with_the_command_that_replays_it() -> None:
    story = Story(17)
    story.play(seconds=2.0)
    told = story.told(AssertionError("something broke"), last=20).splitlines()
    assert told[0] == "seed 17: AssertionError: something broke"
    assert told[-1] == "replay it: make simulate SEEDS=17:17"
    events = told[2:-1]
    assert len(events) == 20
    times = [float(event.split()[0]) for event in events]
    assert times == sorted(times)
    assert any("Append" in event for event in events)
