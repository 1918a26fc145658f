"""Majorities. Commit index, contact and read rounds are all the same question: what has a majority reached?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Number = TypeVar("Number", int, float)


def is_majority(count: int, voters: int) -> bool:
    """Whether `count` of `voters` is a majority. No voters have no majority."""
    return 2 * count > voters


def reached_by_majority(values: Sequence[Number]) -> Number:
    """The largest value that a majority of the voters has reached; one value for each voter, at least one."""
    assert values, "a majority needs voters"
    return sorted(values, reverse=True)[len(values) // 2]
