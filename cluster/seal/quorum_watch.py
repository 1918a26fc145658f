"""When a node must seal itself for want of a quorum, as a pure machine: time and quorum contact in, hold or seal out.

    idle --(fresh contact is seen)--> armed --(contact older than the grace, or not looked at for longer)--> idle, seal

Only contact that this process has seen can be lost. A node that has had no quorum since its start is idle, and so is
one that was opened while it had none: whoever gave the shares knew what they were doing. Both are armed by the first
contact.

A node that was stopped (SIGSTOP, a suspended machine) must decide by what it knew *before*: the moment it runs again it
may read messages that were sent long ago, and take them for contact. So a gap between two observations that is longer
than the grace counts as contact lost for that long, whatever the contact said to be now.
"""

from __future__ import annotations

import enum
import math


class Verdict(enum.Enum):
    """What an observation calls for. LOST: seal, contact was lost for the grace. SLEPT: seal, nobody looked for it."""

    HOLD = "hold"
    LOST = "lost"
    SLEPT = "slept"


class QuorumWatch:
    """One node's watch. All times are in seconds of one clock that never goes back and that runs while the machine is
    suspended.

    grace_s: how long contact may be lost. start_s: when this process began to take part, or later; contact up to that
    moment is not contact but the beginning of the count.
    """

    def __init__(self, *, grace_s: float, start_s: float) -> None:
        assert 0 < grace_s < math.inf
        self.grace_s = grace_s
        self._start_s = start_s
        self._seen_s = start_s
        self._armed = False

    @property
    def armed(self) -> bool:
        """Whether contact was seen that can be lost."""
        return self._armed

    @property
    def seen_s(self) -> float:
        """When the watch was last fed."""
        return self._seen_s

    def observe(self, now_s: float, contact_age_s: float, *, alone: bool = False) -> Verdict:
        """Feed the watch. contact_age_s: how long ago this node knew itself to be in contact with a quorum; since its
        start when it never did. To be read after `now_s`, so that the contact is never taken for newer than it was.
        alone: this node is the only voter, its own quorum, so that it cannot lose contact in its sleep.

        LOST and SLEPT are said once; the watch is idle from then on until it sees contact again."""
        assert now_s >= self._seen_s, "time goes back"
        gap_s, self._seen_s = now_s - self._seen_s, now_s
        slept = gap_s > self.grace_s and not alone
        fresh = contact_age_s <= self.grace_s and now_s - contact_age_s > self._start_s
        lost = self._armed and (slept or not fresh)
        # What is seen in the first moment after a sleep is not believed; the next observation will tell.
        self._armed = fresh and not slept
        if lost:
            return Verdict.SLEPT if slept else Verdict.LOST
        return Verdict.HOLD

    def opened(self, now_s: float, contact_age_s: float, *, alone: bool = False) -> None:
        """The node was given its keys now. Contact that was lost before is forgotten."""
        self._armed = False
        self.observe(now_s, contact_age_s, alone=alone)

    def __repr__(self) -> str:
        return f"<QuorumWatch {'armed' if self._armed else 'idle'}, grace {self.grace_s} s>"
