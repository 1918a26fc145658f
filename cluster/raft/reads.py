"""ReadIndex (Raft thesis 6.4): reads that are current without a log entry, many of them for one round.

`ReadRounds` is the leader's side: a question is answered with the commit index of the moment it was asked, once a
quorum has echoed a round that began later, which shows that no other node led in between.
`Barriers` is each node's own side: its reads wait for the leader's answer and then until that much is applied here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.proto.errors import HoldfastError, Overloaded

OnIndex = Callable[[int | None], None]
"""Told the index to wait for; None when this node stopped leading."""


Key = tuple[str, int]
"""Who asked, and the number of the question."""

QUESTIONS_MAX = 8192
"""Questions waiting at a leader. Beyond, a question is answered with None, and asked again a little later."""


class ReadRounds:
    """Questions put to a leader in one term. One that is put again while it waits is the same question still."""

    def __init__(self) -> None:
        self._open: dict[Key, OnIndex] = {}
        self._rounds: deque[tuple[int, int, dict[Key, OnIndex]]] = deque()
        self._waiting: set[Key] = set()

    @property
    def has_open(self) -> bool:
        """Whether questions wait for a round to begin."""
        return bool(self._open)

    def ask(self, key: Key, on_index: OnIndex) -> None:
        """Take a question."""
        if key in self._waiting:
            return
        if len(self._waiting) >= QUESTIONS_MAX:
            on_index(None)
            return
        self._waiting.add(key)
        self._open[key] = on_index

    def begin(self, stamp: int, commit: int) -> None:
        """The round `stamp` is being sent. `commit` must be the commit index now, with an entry of the leader's own
        term among the committed ones."""
        if self._open:
            self._rounds.append((stamp, commit, self._open))
            self._open = {}

    def echoed(self, stamp: int) -> None:
        """A quorum has echoed `stamp`."""
        while self._rounds and self._rounds[0][0] <= stamp:
            _, index, questions = self._rounds.popleft()
            self._waiting.difference_update(questions)
            for on_index in questions.values():
                on_index(index)

    def abandon(self) -> None:
        """Leadership is lost."""
        questions = [*(on_index for _, _, asked in self._rounds for on_index in asked.values()), *self._open.values()]
        self._rounds.clear()
        self._open = {}
        self._waiting.clear()
        for on_index in questions:
            on_index(None)


OnBarrier = Callable[[int | HoldfastError], None]
"""Told the applied index, or why the barrier failed. Once."""


class Barrier:
    """One read that waits. It leaves the group it waits in as soon as it is resolved, whoever resolves it."""

    __slots__ = ("_on_done", "done", "group")

    def __init__(self, on_done: OnBarrier, group: Group) -> None:
        self._on_done = on_done
        self.done = False
        self.group = group
        group[self] = None

    def resolve(self, result: int | HoldfastError) -> None:
        """Tell the waiter; only the first call counts."""
        if not self.done:
            self.done = True
            del self.group[self]
            self._on_done(result)


Group = dict[Barrier, None]
"""Reads that wait for the same thing, in the order in which they came."""


@dataclass
class _Question:
    sent_s: float
    leader_id: str
    barriers: Group


class Barriers:
    """The reads of this node.

    first_question: where to begin counting; drawn at random, so that a late answer to an earlier life of this node
    answers nothing.
    """

    def __init__(self, *, count_max: int, first_question: int) -> None:
        self._count_max = count_max
        self._count = 0
        self._next_question = first_question
        self._open: Group = {}
        self._asked: dict[int, _Question] = {}
        self._confirmed: deque[tuple[int, Group]] = deque()

    @property
    def has_open(self) -> bool:
        """Whether reads wait for a question to be asked."""
        return bool(self._open)

    @property
    def held(self) -> int:
        """Reads held here, whatever they wait for."""
        asked = sum(len(question.barriers) for question in self._asked.values())
        return len(self._open) + asked + sum(len(group) for _, group in self._confirmed)

    def add(self, on_done: OnBarrier) -> Barrier:
        """Take a read. Raises Overloaded."""
        if self._count >= self._count_max:
            raise Overloaded("too many reads are waiting; back off and try again")
        self._count += 1

        def done(result: int | HoldfastError) -> None:
            self._count -= 1
            on_done(result)

        return Barrier(done, self._open)

    def new_question(self) -> int:
        """A number that no other question of this node has."""
        self._next_question += 1
        return self._next_question

    def ask(self, leader_id: str, now_s: float) -> int | None:
        """Turn the open reads into one question to `leader_id`; its number, or None when no read is open."""
        if not self._open:
            return None
        number = self.new_question()
        self._asked[number] = _Question(now_s, leader_id, self._open)
        self._open = {}
        return number

    def answer(self, question: int, index: int | None) -> None:
        """The leader's answer; None puts the reads back to be asked again."""
        asked = self._asked.pop(question, None)
        if asked is None:
            return
        if index is None:
            for barrier in asked.barriers:
                barrier.group = self._open
            self._open.update(asked.barriers)
        else:
            self._confirmed.append((index, asked.barriers))

    def unanswered(self, leader_id: str, *, now_s: float, patience_s: float) -> list[int]:
        """The questions to send to `leader_id` again, under their old numbers: those sent over `patience_s` ago. A slow
        answer to the first sending is as good as one to the last: it is about a moment after the reads began.
        Questions to another node are put back; those that nobody waits for any more are dropped."""
        again: list[int] = []
        for number, asked in list(self._asked.items()):
            if not asked.barriers:
                del self._asked[number]
            elif asked.leader_id != leader_id:
                self.answer(number, None)
            elif now_s - asked.sent_s > patience_s:
                asked.sent_s = now_s
                again.append(number)
        return again

    def applied(self, index: int) -> None:
        """The state machine has come to `index`."""
        if not self._confirmed:
            return
        waiting = self._confirmed
        self._confirmed = deque()
        for needed, group in waiting:
            if needed > index:
                if group:
                    self._confirmed.append((needed, group))
                continue
            for barrier in list(group):
                barrier.resolve(index)

    def fail(self, error: Callable[[], HoldfastError]) -> None:
        """Resolve everything."""
        barriers = [*self._open, *(barrier for asked in self._asked.values() for barrier in asked.barriers)]
        barriers += [barrier for _, group in self._confirmed for barrier in group]
        self._asked.clear()
        self._confirmed.clear()
        for barrier in barriers:
            barrier.resolve(error())
