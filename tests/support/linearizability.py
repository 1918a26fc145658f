"""Whether what clients of a register saw can be explained: by one order of all operations in which each takes effect
between its call and its return, and every read gives what was written last (Herlihy and Wing 1990).

The search is that of Wing and Gong (1993) with Lowe's memory of configurations: depth first over which write comes
next. A read that fits may always be taken at once, so that only writes branch.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIGURATIONS_MAX = 200_000
"""How many configurations a search may look at before it gives up."""


class Kind(enum.Enum):
    """What an operation does to a register."""

    READ = "read"
    WRITE = "write"
    UPDATE = "update"


@dataclass(frozen=True)
class Operation:
    """An operation that took effect. Times in seconds; returned_s is infinite while nobody was told.

    READ returned `seen`. WRITE stored `stored`. UPDATE found `seen` and stored `stored` in one step.
    hint: where it probably stands in the order; decides only what is tried first.
    """

    kind: Kind
    called_s: float
    returned_s: float = math.inf
    seen: object = None
    stored: object = None
    hint: float = math.inf


class Undecided(Exception):
    """The search was given up: too many orders are possible."""


def linearizable(operations: Sequence[Operation], *, initial: object = None) -> bool:
    """Whether an order exists. Raises Undecided."""
    waiting = sorted(operations, key=lambda operation: (operation.called_s, operation.hint))
    tried: set[tuple[int, object]] = set()
    stack: list[tuple[int, object]] = [(0, initial)]
    everything = (1 << len(waiting)) - 1
    while stack:
        done, value = _with_reads(waiting, *stack.pop())
        if done == everything:
            return True
        if (done, value) in tried:
            continue
        tried.add((done, value))
        if len(tried) > CONFIGURATIONS_MAX:
            raise Undecided(f"{len(tried)} configurations of {len(waiting)} operations")
        candidates = [
            at
            for at in _first(waiting, done)
            if waiting[at].kind is Kind.WRITE or (waiting[at].kind is Kind.UPDATE and waiting[at].seen == value)
        ]
        candidates.sort(key=lambda at: waiting[at].hint, reverse=True)
        stack.extend((done | 1 << at, waiting[at].stored) for at in candidates)
    return False


def _with_reads(waiting: Sequence[Operation], done: int, value: object) -> tuple[int, object]:
    """The configuration after all reads that may come now and fit."""
    while True:
        fit = [at for at in _first(waiting, done) if waiting[at].kind is Kind.READ and waiting[at].seen == value]
        if not fit:
            return done, value
        for at in fit:
            done |= 1 << at


def _first(waiting: Sequence[Operation], done: int) -> list[int]:
    """The operations that may come next: called before any other one that is left has returned."""
    first: list[int] = []
    returned_s = math.inf
    at = (~done & (done + 1)).bit_length() - 1
    while at < len(waiting) and waiting[at].called_s <= returned_s:
        if not done >> at & 1:
            first.append(at)
            returned_s = min(returned_s, waiting[at].returned_s)
        at += 1
    return [at for at in first if waiting[at].called_s <= returned_s]
