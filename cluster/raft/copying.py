"""A copy of the state at a known position, for whoever sends it somewhere: to a member (`sending.py`) or to a file.

The memtable is flushed ahead, in the worker. Then the copy is made there too, and nothing is applied meanwhile, so
that its position is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast.cluster.raft.entries import Position
from holdfast.cluster.raft.membership import Configuration
from holdfast.cluster.raft.outbox import RunJob
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.storage.home import StateCopy, StateHome

OnCopied = Callable[[Position, bytes, StateCopy], None]
"""Told the position of the copy, the digest of the state there, and the copy."""


@dataclass(frozen=True)
class CopiedState:
    """A copy of the state at `at`, and the members then. To be discarded by whoever asked for it."""

    at: Position
    members: Configuration
    copy: StateCopy


class Copier:
    """Makes copies, one at a time. purpose: names the place of the copy, so that those of two purposes can exist at a
    time. on_failure: the disk refused. copying: nothing may be applied."""

    def __init__(
        self,
        home: StateHome,
        machine: StateMachine,
        run_job: RunJob,
        *,
        purpose: str,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._home = home
        self._machine = machine
        self._run_job = run_job
        self._purpose = purpose
        self._on_failure = on_failure
        self.busy = False
        self.copying = False

    def copy(self, on_copied: OnCopied, *, wanted: Callable[[], bool] = lambda: True) -> None:
        """Make a copy. wanted: looked at once more before it is made."""
        assert not self.busy, "one copy at a time"
        self.busy = True
        self._run_job(self._home.prepare, lambda error: self._prepared(on_copied, wanted, error))

    def _prepared(self, on_copied: OnCopied, wanted: Callable[[], bool], error: BaseException | None) -> None:
        if error is not None or not wanted():
            self.busy = False
            if error is not None:
                self._on_failure(error)
            return
        at, digest, copies = self._machine.applied, self._machine.state_digest, list[StateCopy]()
        self.copying = True
        self._run_job(
            lambda: copies.append(self._home.copy(self._purpose)),
            lambda error: self._copied(at, digest, copies, on_copied, error),
        )

    def _copied(
        self,
        at: Position,
        digest: bytes,
        copies: list[StateCopy],
        on_copied: OnCopied,
        error: BaseException | None,
    ) -> None:
        self.busy = self.copying = False
        if error is not None:
            self._on_failure(error)
        else:
            on_copied(at, digest, copies[0])
