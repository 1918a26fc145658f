"""Elections: pre-vote, votes, stickiness (Raft thesis 3.4, 4.2.3, 9.6). Decisions; nothing here sends or stores."""

from __future__ import annotations

import enum
from collections.abc import Collection

from holdfast.cluster.raft.quorum import is_majority


class Phase(enum.Enum):
    """Where a campaign stands."""

    IDLE = "idle"
    PRE_VOTE = "pre-vote"
    VOTE = "vote"


def log_is_up_to_date(*, candidate_term: int, candidate_index: int, last_term: int, last_index: int) -> bool:
    """Whether a candidate's log holds everything committed that this one may hold (Raft paper, section 5.4.1)."""
    return (candidate_term, candidate_index) >= (last_term, last_index)


def grants_pre_vote(*, asked_term: int, own_term: int, up_to_date: bool, leader_alive: bool) -> bool:
    """Whether this node would vote for the candidate."""
    return asked_term > own_term and up_to_date and not leader_alive


def grants_vote(*, asked_term: int, own_term: int, voted_for: str | None, candidate: str, up_to_date: bool) -> bool:
    """Whether this node votes for the candidate, whose term it has adopted already if that was higher."""
    return asked_term == own_term and voted_for in (None, candidate) and up_to_date


def may_vote(*, vouched: bool, founded: bool, last_index: int, founding: bool) -> bool:
    """Whether this node may vote at all. A log that is not vouched for may lack what its member once promised: it votes
    only to found a cluster, for a candidate that is `founding` too. A joining node, with an empty log, founds none."""
    return vouched or (founding and not founded and last_index > 0)


def may_stand(*, vouched: bool, founded: bool, last_index: int) -> bool:
    """Whether this node may campaign: with a log that is vouched for, or with nothing but the founding entry."""
    return vouched or (not founded and last_index == 1)


class Campaign:
    """The votes this node has collected."""

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self._term = 0
        self._granted: set[str] = set()

    def begin(self, phase: Phase, term: int) -> None:
        """Start to collect votes for `term`, with none yet."""
        self.phase, self._term = phase, term
        self._granted = set()

    def end(self) -> None:
        """Won, lost or given up."""
        self.begin(Phase.IDLE, 0)

    def granted(self, phase: Phase, term: int, node_id: str, voters: Collection[str]) -> bool:
        """Count a vote. True when it makes the majority of `voters`; late, foreign and repeated votes do not count."""
        if phase is not self.phase or term != self._term or node_id not in voters or node_id in self._granted:
            return False
        self._granted.add(node_id)
        return is_majority(sum(voter in self._granted for voter in voters), len(voters))
