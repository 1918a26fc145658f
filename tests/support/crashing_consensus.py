"""A LocalConsensus whose process can die at a proposal: just before it takes effect, or just after."""

from __future__ import annotations

from support.local_consensus import LocalConsensus

from holdfast.cluster.raft.consensus import Outcome
from holdfast.storage.batch import Batch


class Crash(BaseException):
    """The process is gone. Not an Exception: nothing that runs in the process may handle it."""


class CrashingConsensus(LocalConsensus):
    """Public for tests: `crash_in`, how many proposals from now the process dies (0: at the next; None: never);
    `crash_after`, whether that proposal still takes effect."""

    crash_in: int | None = None
    crash_after = False

    async def propose(self, batch: Batch, *, timeout_s: float) -> Outcome:
        if self.crash_in is None:
            return await super().propose(batch, timeout_s=timeout_s)
        self.crash_in -= 1
        if self.crash_in >= 0:
            return await super().propose(batch, timeout_s=timeout_s)
        if self.crash_after:
            self.apply(batch)
        self.stopped = True
        raise Crash

    def restarted(self) -> CrashingConsensus:
        fresh = super().restarted()
        fresh.__class__ = CrashingConsensus
        assert isinstance(fresh, CrashingConsensus)
        return fresh
