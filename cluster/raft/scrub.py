"""A replica reads all of its records again, little by little, and compares what they amount to with the number that
was kept while they were written. That finds what nobody would notice until the record is read: a damaged block (the
store's own checksums), and a record that was altered under a good checksum.

A pass reads the state of one moment; writes go on meanwhile. It keeps replaced files from being removed until it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import structlog

from holdfast.cluster.raft.comparing import REPLACE
from holdfast.cluster.raft.statedigest import Content
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.cluster.raft.timing import Timing
from holdfast.proto.errors import Corruption

STEP_BYTES = 64 * 1024
"""Read in one step of the event loop (and one record more)."""

RECORD_OVERHEAD_BYTES = 256
"""What a record counts for beside its own size, so that many small ones are not read too fast."""

DOUBT_PAUSE_S = 60.0
"""How long a pass out of turn is not asked for again."""

_log = structlog.get_logger(__name__)


@dataclass
class _Pass:
    """index: of the state that is read. kept: its content as it was kept."""

    index: int
    kept: bytes
    records: Iterator[tuple[bytes, bytes]]
    found: Content
    count: int = 0


class Scrub:
    """The first pass begins at once, the next `scrub_interval_s` after the end of each."""

    def __init__(self, machine: StateMachine, timing: Timing, now_s: float) -> None:
        self._machine = machine
        self._timing = timing
        self._pass: _Pass | None = None
        self._due_s = now_s
        self._doubted_s = float("-inf")
        self._budget_bytes = 0.0
        self._budget_at_s = now_s
        self.scrubbed_index = 0
        """Of the state that the last complete pass has read; 0 before the first."""

    def hasten(self, now_s: float) -> None:
        """There is reason for doubt: begin a pass as soon as the one under way has ended."""
        if now_s - self._doubted_s >= DOUBT_PAUSE_S:
            self._doubted_s = now_s
            self._due_s = float("-inf")

    def abandon(self) -> None:
        """The store is about to be exchanged: its records are read from the beginning afterwards."""
        if self._pass is not None:
            self._pass = None
            self._due_s = float("-inf")

    def step(self, now_s: float) -> None:
        """Read a little more if it is time to. Raises Corruption."""
        if self._pass is None and now_s < self._due_s:
            return
        rate = self._timing.scrub_bytes_per_s
        filled = self._budget_bytes + max(0.0, now_s - self._budget_at_s) * rate
        self._budget_bytes, self._budget_at_s = min(filled, rate * self._timing.tick_s * 2), now_s
        if self._budget_bytes < 0:
            return
        if self._pass is None:
            machine = self._machine
            self._pass = _Pass(machine.applied.index, machine.content, machine.records(), Content())
            self._due_s = float("inf")
        self._read(self._pass, now_s)

    def _read(self, current: _Pass, now_s: float) -> None:
        size = 0
        for key, stored in current.records:
            current.found.replace(key, None, stored)
            current.count += 1
            size += len(key) + len(stored) + RECORD_OVERHEAD_BYTES
            if size >= STEP_BYTES:
                self._budget_bytes -= size
                return
        self._pass = None
        verify(current.found, current.kept)
        self.scrubbed_index = current.index
        self._due_s = min(self._due_s, now_s + self._timing.scrub_interval_s)
        _log.debug("state_scrubbed", index=current.index, records=current.count)


def verify(found: Content, kept: bytes) -> None:
    """Raises Corruption when the records do not amount to what was kept of them."""
    if found.encoded() != kept:
        raise Corruption(
            "this node's records are not what was written: one or more were altered, lost or added where they lie. "
            "The others go on. " + REPLACE
        )
