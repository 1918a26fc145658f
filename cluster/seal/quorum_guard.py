"""Seals a node that has lost its quorum: the quorum watch, fed by a timer and by every request.

The timer alone would not do. A node that was stopped and runs again may serve a request before its timer fires, so the
barrier is handed out through here, and the watch decides first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from holdfast.cluster.raft.consensus import Consensus, ConsensusStatus
from holdfast.cluster.seal.quorum_watch import QuorumWatch, Verdict
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.state import SealStatus
from holdfast.storage.barrier import Barrier

_INTERVAL_S_MAX = 1.0
_FRESH_S_MAX = 0.05
"""How old an observation may be for a request to rely on it, which saves asking consensus for every request."""

_log = structlog.stdlib.get_logger(__name__)


class Handle(Protocol):
    """A timer that was set."""

    def cancel(self) -> None:
        """Do not fire. May be called again."""
        ...


CallLater = Callable[[float, Callable[[], None]], Handle]
"""Call back after so many seconds, as asyncio's event loop does."""


def call_later(delay_s: float, callback: Callable[[], None]) -> Handle:
    """By the running event loop."""
    return asyncio.get_running_loop().call_later(delay_s, callback)


class QuorumGuard:
    """The watch over one node's seal.

    enabled: whether the node seals itself at all. grace_s: see QuorumWatch. clock: seconds, never going back, running
    while the machine is suspended. on_sealed: called after each sealing for want of a quorum. Must not block.
    call_later: sets the timer.
    """

    def __init__(
        self,
        seal: SealManager,
        consensus: Consensus,
        *,
        enabled: bool,
        grace_s: float,
        clock: Callable[[], float],
        on_sealed: Callable[[], None],
        call_later: CallLater = call_later,
    ) -> None:
        self._call_later = call_later
        self._seal = seal
        self._consensus = consensus
        self._enabled = enabled
        self._grace_s = grace_s
        self._clock = clock
        self._on_sealed = on_sealed
        self._interval_s = min(_INTERVAL_S_MAX, grace_s / 10)
        self._fresh_s = min(_FRESH_S_MAX, grace_s / 20)
        self._watch: QuorumWatch | None = None
        self._timer: Handle | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self.lost_quorum = False
        """Whether the node holds no keys because this guard sealed it; until it is opened again."""

    def start(self) -> None:
        """Watch from now on. Call once, when consensus has started and before the node can be unsealed."""
        assert self._unsubscribe is None, "started twice"
        self._unsubscribe = self._seal.on_change(self._changed)
        if self._enabled:
            self._watch = QuorumWatch(grace_s=self._grace_s, start_s=self._clock())
            self._on_timer()

    def stop(self) -> None:
        """Watch no more. May be called again, and without `start`."""
        if self._timer is not None:
            self._timer.cancel()
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._timer = self._unsubscribe = self._watch = None

    @property
    def barrier(self) -> Barrier:
        """The barrier of the node's keys, for one request, once it is certain that the node may use them. Raises as
        `SealManager.barrier`."""
        self.check()
        return self._seal.barrier

    def check(self) -> None:
        """Seal the node if it must be sealed now."""
        watch = self._watch
        if watch is None or self._clock() - watch.seen_s < self._fresh_s:
            return
        before_s = watch.seen_s
        now_s = self._clock()
        consensus = self._consensus.status()
        age_s = consensus.quorum_contact_age_s
        verdict = watch.observe(now_s, age_s, alone=_alone(consensus))
        if verdict is Verdict.HOLD or self._seal.sealed:
            return
        self.lost_quorum = True
        if verdict is Verdict.SLEPT:
            reason = f"this node stood still for {now_s - before_s:.1f} s, longer than the grace of {self._grace_s:g} s"
        else:
            reason = f"contact with a quorum was lost for {self._grace_s:g} s"
        # The keys go first: a log that blocks must not keep them.
        self._seal.seal(reason)
        _log.warning("sealed_on_quorum_loss", cause=verdict.value, grace_s=self._grace_s, contact_age_s=round(age_s, 3))
        self._on_sealed()

    def _on_timer(self) -> None:
        self._timer = self._call_later(self._interval_s, self._on_timer)
        self.check()

    def _changed(self, status: SealStatus) -> None:
        if status.sealed:
            return
        self.lost_quorum = False
        if self._watch is not None:
            now_s = self._clock()
            consensus = self._consensus.status()
            self._watch.opened(now_s, consensus.quorum_contact_age_s, alone=_alone(consensus))


def _alone(status: ConsensusStatus) -> bool:
    voters = [peer.member.node_id for peer in status.peers if peer.member.voter]
    return voters == [status.node_id]
