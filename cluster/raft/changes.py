"""Membership changes at the leader: one at a time, who waits for them, and the promotion of learners that caught up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.leadership import Leadership
from holdfast.cluster.raft.membership import Configuration
from holdfast.cluster.raft.timing import Timing
from holdfast.proto.errors import Conflict, FailedPrecondition, HoldfastError

OnChangeDone = Callable[[int | HoldfastError], None]
"""Told the index of a membership change or a restore once it is applied, or why it failed."""

_log = structlog.get_logger(__name__)


class MemberChanges:
    """append: appends a configuration to the log, at its index."""

    def __init__(self, journal: Journal, timing: Timing, append: Callable[[Configuration], int]) -> None:
        self._journal = journal
        self._timing = timing
        self._append = append
        self._waiting: dict[int, OnChangeDone] = {}

    def _settled(self, leadership: Leadership) -> bool:
        """Whether a membership change may be appended: the term's no-op and the change before are committed."""
        return leadership.read_ready and self._journal.configurations.index <= leadership.commit

    def begin(
        self, leadership: Leadership, change: Callable[[Configuration], Configuration], on_done: OnChangeDone
    ) -> None:
        """Append a change at once. Raises Conflict, FailedPrecondition when the voters that are left could not do with
        one another, or what `change` raises."""
        configuration = change(self._journal.configurations.current)
        if not self._settled(leadership):
            raise Conflict("another membership change is under way, or the leader is new; try again in a moment")
        _check_left(leadership, self._journal.configurations.voters, configuration.voters)
        self._waiting[self._append(configuration)] = on_done

    def promote_learners(self, leadership: Leadership, now_s: float, *, may_vote: Callable[[str], bool]) -> None:
        """Make a voter of a learner that is to be one, may be one by now, and has caught up."""
        current = self._journal.configurations.current
        if not current.promoting or not self._settled(leadership):
            return
        for node_id in current.promoting:
            progress = leadership.progress.get(node_id)
            within_s = self._timing.election_min_s
            if (
                progress is not None
                and may_vote(node_id)
                and progress.kept_up(leadership.commit, now_s, within_s=within_s)
                and progress.connected
            ):
                _log.info("learner_promoted", member=node_id)
                self._append(current.promoted(node_id))
                return

    def remove_dead(self, leadership: Leadership, node_id: str, *, silent_s: float) -> None:
        """Remove a member that is dead, unless another change is under way."""
        if self._settled(leadership):
            _log.warning(
                "dead_server_removed",
                member=node_id,
                silent_s=round(silent_s),
                advice="it is no member any more; if the machine is back, join it under a new node id",
            )
            self._append(self._journal.configurations.current.without(node_id))

    def applied(self, index: int) -> OnChangeDone | None:
        """The change at `index` is applied: who is to be told."""
        return self._waiting.pop(index, None)

    def fail(self, error: Callable[[], HoldfastError]) -> None:
        """Resolve everything."""
        waiting, self._waiting = self._waiting, {}
        for on_done in waiting.values():
            on_done(error())


def _check_left(leadership: Leadership, before: Sequence[str], left: Sequence[str]) -> None:
    """Raise FailedPrecondition when a voter is to go and the rest would need, for a majority, voters that this leader
    has not reached in its term. Were they new disks, which give no vote, and the leader lost before it reached them,
    nobody could be elected any more: the majority of before is gone, and that of after has never been."""
    unreached = leadership.unreached(left)
    if set(before) <= set(left) or 2 * (len(left) - len(unreached)) > len(left):
        return
    raise FailedPrecondition(
        f"the voters left would need {', '.join(unreached)}, which the leader has not reached yet: start them and wait"
        " until they have caught up (see the list of peers), or remove them first"
    )
