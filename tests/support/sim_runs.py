"""Many seeds: which are chosen, what their lives add up to, and what must have occurred in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import structlog
from support.raft_story import lived

EXPECTED = (
    "acknowledged write sent again", "answered as a duplicate", "death in an install", "election won",
    "fault: bad network", "fault: bridge", "fault: clock drift", "fault: crash", "fault: crash of all nodes",
    "fault: cut off while stopped", "fault: failed sync", "fault: handover in the dark", "fault: hanging disk",
    "fault: leadership transfer", "fault: learner added", "fault: long absence", "fault: member added",
    "fault: member removed", "fault: one slow disk", "fault: one-way partition", "fault: partition", "fault: pause",
    "fault: restore", "fault: seal", "fault: slow disks", "leadership handed over", "learner promoted", "log trimmed",
    "log truncated", "membership changed", "message blocked", "message dropped", "message duplicated",
    "message of an old session", "message reordered", "outcome unknown", "read answered", "refused by a sealed node",
    "sealed by an operator", "sealed: quorum lost", "sealed: stood still", "snapshot installed",
    "stale read answered", "state restored", "stopped by a failed sync", "sync failed", "unsealed",
    "write acknowledged", "write conflicted", "write sent again",
)  # fmt: skip
"""What occurs, by the names under which a trace counts it. Every fault and every event that a check is about."""


def chosen(seeds: str) -> range:
    """ "300" is the first 300 seeds, "17:19" the three from 17 on."""
    first, _, last = seeds.partition(":")
    return range(int(first), int(last) + 1) if last else range(int(first))


def part_of(seeds: range, part: int, parts: int) -> range:
    """One of `parts` runs of neighbouring seeds that together are all of them."""
    return seeds[len(seeds) * part // parts : len(seeds) * (part + 1) // parts]


def quiet() -> None:
    """Thousands of elections are no news."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))


def live(seeds: Iterable[int]) -> Counter[str]:
    """Play these seeds. Raises AssertionError, with the trace, at the first that breaks a promise."""
    total: Counter[str] = Counter()
    for seed in seeds:
        story = lived(seed)
        total.update(story.world.trace.counts)
        total["schedules"] += 1
        total["virtual seconds"] += round(story.world.now_s - 100.0)
    return total


def missing(total: Counter[str]) -> list[str]:
    """What should have occurred and did not."""
    return [what for what in EXPECTED if not total[what]]


def summary(total: Counter[str]) -> list[str]:
    """One line for each thing that was counted: schedules first, then faults, then the rest."""
    heads = ["schedules", "virtual seconds"]
    faults = sorted(what for what in total if what.startswith("fault: "))
    rest = sorted(what for what in total if what not in heads and what not in faults)
    return [f"{total[what]:>12,}  {what}" for what in [*heads, *faults, *rest]]
