"""Questions and answers of ReadIndex: the reads of this node put to whoever leads, and the questions of other members
answered while this node leads. What waits is kept in `reads.py`; here it is sent."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.cluster.raft.leadership import Leadership, Send
from holdfast.cluster.raft.messages import ReadIndex, ReadIndexReply
from holdfast.cluster.raft.quorum_contact import QuorumContact
from holdfast.cluster.raft.reads import Barriers
from holdfast.cluster.raft.timing import Timing


class Asking:
    """The questions of the node `self_id`.

    leader_id, leadership, term: as they are now. send: hands a message to a member's session. wake: asks for a tick.
    """

    def __init__(
        self,
        self_id: str,
        *,
        barriers: Barriers,
        contact: QuorumContact,
        timing: Timing,
        clock: Callable[[], float],
        leader_id: Callable[[], str],
        leadership: Callable[[], Leadership | None],
        term: Callable[[], int],
        send: Send,
        wake: Callable[[], None],
    ) -> None:
        self._self_id = self_id
        self._barriers = barriers
        self._contact = contact
        self._timing = timing
        self._clock = clock
        self._leader_id = leader_id
        self._leadership = leadership
        self._term = term
        self._send = send
        self._wake = wake
        self._due_s = float("-inf")

    def step(self, now_s: float, applied: int) -> None:
        """Ask what is to be asked, and release the reads for which `applied` is enough."""
        leader_id = self._leader_id()
        if leader_id and now_s >= self._due_s:
            patience_s = self._timing.quorum_timeout_s
            for question in self._barriers.unanswered(leader_id, now_s=now_s, patience_s=patience_s):
                self._ask(question)
            fresh = self._barriers.ask(leader_id, now_s)
            if fresh is not None and not self._ask(fresh):
                self._ask_later(fresh)
        self._barriers.applied(applied)

    def prove_contact(self, now_s: float) -> None:
        """Put the question to the leader by which this node makes sure that what it hears is fresh."""
        leader_id = self._leader_id()
        question = self._contact.question_due(now_s) if leader_id else None
        if question is not None:
            sent = self._send(leader_id, ReadIndex(self._term(), question))
            self._contact.asked(now_s, sent=sent)

    def _ask(self, question: int) -> bool:
        """Put a question to the leader. False when it cannot be reached."""
        leadership = self._leadership()
        if leadership is None:
            return self._send(self._leader_id(), ReadIndex(self._term(), question))
        leadership.rounds.ask((self._self_id, question), lambda index: self._answered(question, index))
        self._wake()
        return True

    def _answered(self, question: int, index: int | None) -> None:
        if index is None:
            self._ask_later(question)
        else:
            self._barriers.answer(question, index)

    def _ask_later(self, question: int) -> None:
        """The node asked cannot tell: its reads are put to the leader again, but not at once."""
        self._due_s = self._clock() + self._timing.heartbeat_s
        self._barriers.answer(question, None)

    def on_read_index(self, node_id: str, message: ReadIndex) -> None:
        """A member asks."""
        leadership = self._leadership()
        if leadership is None:
            self._send(node_id, ReadIndexReply(self._term(), message.question, None))
            return

        def answer(index: int | None) -> None:
            self._send(node_id, ReadIndexReply(self._term(), message.question, index))

        leadership.rounds.ask((node_id, message.question), answer)

    def on_read_index_reply(self, _node_id: str, message: ReadIndexReply) -> None:
        """A member answers."""
        if self._contact.is_asked_by(message.question):
            self._contact.answered(message.index, self._clock())
        else:
            self._answered(message.question, message.index)
