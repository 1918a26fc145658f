"""ReadIndex (Raft thesis 6.4): reads that are current without a log entry, many of them for one round.

`ReadRounds` is the leader's side: a question is answered with the commit index of the moment it was asked, once a
quorum has echoed a round that began later, which shows that no other node led in between.
`Barriers` is each node's own side: its reads wait for the leader's answer and then until that much is applied here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.proto.errors import HoldfastError, Overloaded

OnIndex = Callable[[int | None], None]
"""Told the index to wait for; None when this node stopped leading."""


class ReadRounds:
    """Questions put to a leader in one term."""

    def __init__(self) -> None:
        self._open: list[OnIndex] = []
        self._rounds: deque[tuple[int, int, list[OnIndex]]] = deque()

    @property
    def has_open(self) -> bool:
        """Whether questions wait for a round to begin."""
        return bool(self._open)

    def ask(self, on_index: OnIndex) -> None:
        """Take a question."""
        self._open.append(on_index)

    def begin(self, stamp: int, commit: int) -> None:
        """The round `stamp` is being sent. `commit` must be the commit index now, with an entry of the leader's own
        term among the committed ones."""
        if self._open:
            self._rounds.append((stamp, commit, self._open))
            self._open = []

    def echoed(self, stamp: int) -> None:
        """A quorum has echoed `stamp`."""
        while self._rounds and self._rounds[0][0] <= stamp:
            _, index, questions = self._rounds.popleft()
            for on_index in questions:
                on_index(index)

    def abandon(self) -> None:
        """Leadership is lost."""
        questions = [*(on_index for _, _, asked in self._rounds for on_index in asked), *self._open]
        self._rounds.clear()
        self._open = []
        for on_index in questions:
            on_index(None)


OnBarrier = Callable[[int | HoldfastError], None]
"""Told the applied index, or why the barrier failed. Once."""


class Barrier:
    """One read that waits."""

    __slots__ = ("_on_done", "done")

    def __init__(self, on_done: OnBarrier) -> None:
        self._on_done = on_done
        self.done = False

    def resolve(self, result: int | HoldfastError) -> None:
        """Tell the waiter; only the first call counts."""
        if not self.done:
            self.done = True
            self._on_done(result)


@dataclass
class _Question:
    asked_s: float
    leader_id: str
    barriers: list[Barrier] = field(default_factory=list)


class Barriers:
    """The reads of this node.

    first_question: where to begin counting; drawn at random, so that a late answer to an earlier life of this node
    answers nothing.
    """

    def __init__(self, *, count_max: int, first_question: int) -> None:
        self._count_max = count_max
        self._count = 0
        self._next_question = first_question
        self._open: list[Barrier] = []
        self._asked: dict[int, _Question] = {}
        self._confirmed: deque[tuple[int, list[Barrier]]] = deque()

    @property
    def has_open(self) -> bool:
        """Whether reads wait for a question to be asked."""
        return bool(self._open)

    def add(self, on_done: OnBarrier) -> Barrier:
        """Take a read. Raises Overloaded."""
        if self._count >= self._count_max:
            raise Overloaded("too many reads are waiting; back off and try again")
        self._count += 1

        def done(result: int | HoldfastError) -> None:
            self._count -= 1
            on_done(result)

        barrier = Barrier(done)
        self._open.append(barrier)
        return barrier

    def ask(self, leader_id: str, now_s: float) -> int | None:
        """Turn the open reads into one question to `leader_id`; its number, or None when no read is open."""
        barriers = [barrier for barrier in self._open if not barrier.done]
        self._open = []
        if not barriers:
            return None
        self._next_question += 1
        self._asked[self._next_question] = _Question(now_s, leader_id, barriers)
        return self._next_question

    def answer(self, question: int, index: int | None) -> None:
        """The leader's answer; None puts the reads back to be asked again."""
        asked = self._asked.pop(question, None)
        if asked is None:
            return
        if index is None:
            self._open.extend(asked.barriers)
        else:
            self._confirmed.append((index, asked.barriers))

    def ask_again(self, leader_id: str, before_s: float) -> None:
        """Put back the questions asked of another node than `leader_id`, or asked before `before_s` and unanswered."""
        for number, asked in list(self._asked.items()):
            if asked.leader_id != leader_id or asked.asked_s < before_s:
                self.answer(number, None)

    def applied(self, index: int) -> None:
        """The state machine has come to `index`."""
        if not self._confirmed:
            return
        waiting = self._confirmed
        self._confirmed = deque()
        for needed, barriers in waiting:
            if needed > index:
                self._confirmed.append((needed, barriers))
                continue
            for barrier in barriers:
                barrier.resolve(index)

    def fail(self, error: Callable[[], HoldfastError]) -> None:
        """Resolve everything."""
        barriers = [*self._open, *(b for asked in self._asked.values() for b in asked.barriers)]
        barriers += [barrier for _, group in self._confirmed for barrier in group]
        self._open, self._asked = [], {}
        self._confirmed.clear()
        for barrier in barriers:
            barrier.resolve(error())
