"""When a node that does not lead last knew itself to be in contact with a quorum.

A leader's messages report the age of its own contact. But a follower cannot see when a message was sent: it may have
waited on the way, or in a socket while this process was stopped. So after a silence nothing counts until a ReadIndex
question that was asked since has been answered, which takes a quorum; what a session brings after that answer was sent
after it.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.cluster.raft.timing import Timing


class QuorumContact:
    """All times are seconds of one monotonic clock. new_question: a number that no other question of this node has."""

    def __init__(self, now_s: float, timing: Timing, new_question: Callable[[], int]) -> None:
        self._timing = timing
        self._new_question = new_question
        self._proved = False
        self._question = -1
        self._asked_s = self._due_s = now_s
        self.known_s = now_s
        """The latest contact that is certain; the node's start while there was none."""

    def silence_ended(self, now_s: float) -> None:
        """A leader is heard after a silence: what is heard may be old."""
        self._proved = False
        self._question = self._new_question()
        self._asked_s = self._due_s = now_s

    def reported(self, contact_s: float) -> None:
        """The leader says that it was in contact at this time."""
        if self._proved:
            self.known_s = max(self.known_s, contact_s)

    def had_while_leading(self, contact_s: float) -> None:
        """This node led, and was in contact at this time."""
        self.known_s = max(self.known_s, contact_s)

    def question_due(self, now_s: float) -> int | None:
        """The question to put to the leader now; None when none is due."""
        return None if self._proved or now_s < self._due_s else self._question

    def asked(self, now_s: float, *, sent: bool) -> None:
        """The question was sent, or could not be."""
        self._due_s = now_s + (self._timing.quorum_timeout_s if sent else self._timing.heartbeat_s)

    def is_asked_by(self, question: int) -> bool:
        """Whether a question is the one that proves contact."""
        return question == self._question

    def answered(self, index: int | None, now_s: float) -> None:
        """The answer to the question; None from a node that cannot tell."""
        if index is None:
            self._due_s = now_s + self._timing.heartbeat_s
        else:
            self._proved = True
            self.known_s = max(self.known_s, self._asked_s)
