"""Which authenticated peers may have a session here, and which of their sessions counts: the newest of each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from holdfast.cluster.peer.session import Opening, Session, SessionOwner
from holdfast.cluster.peer.stats import Counters, QuietLog
from holdfast.cluster.peer.tls import Kind


class Incoming:
    """Owner of all accepted sessions; hands frames on to the handler of their kind."""

    def __init__(
        self,
        *,
        admits: Callable[[str, Kind], bool],
        handler: Callable[[Kind], SessionOwner | None],
        lineage: Callable[[], bytes],
        counters: Counters,
        log: QuietLog,
    ) -> None:
        """`admits`: whether a node may have a session of a kind. `handler`: who takes sessions of a
        kind; None while nobody does. `lineage`: what every dialling peer is told."""
        self._admits = admits
        self._handler = handler
        self._lineage = lineage
        self._counters = counters
        self._log = log
        self._sessions: dict[tuple[str, Kind], Session] = {}
        self._handlers: dict[Session, SessionOwner] = {}

    @property
    def sessions(self) -> Mapping[tuple[str, Kind], Session]:
        """The live sessions."""
        return self._sessions

    def every(self) -> list[Session]:
        """The admitted sessions, those that are still closing included."""
        return list(self._handlers)

    def drop(self, peer: str, kind: Kind, cause: str) -> None:
        """Cut a peer's session of a kind, if there is one."""
        if (session := self._sessions.get((peer, kind))) is not None:
            self._mute(session, cause)

    def judge_again(self, cause: str) -> None:
        """The members changed: cut the sessions of those who are none any more."""
        for (peer, kind), session in list(self._sessions.items()):
            if not self._admits(peer, kind):
                self._mute(session, cause)

    def _mute(self, session: Session, cause: str) -> None:
        assert session.kind is not None
        del self._sessions[session.peer, session.kind]
        session.abort(cause)

    # SessionOwner

    def session_made(self, session: Session) -> None:
        """Welcome or refuse; welcoming ends the peer's older session of this kind."""
        assert session.kind is not None
        handler = self._handler(session.kind)
        if not self._admits(session.peer, session.kind):
            self._refuse(session, Opening.NOT_A_MEMBER)
            return
        if handler is None:
            self._refuse(session, Opening.NOT_READY)
            return
        older = self._sessions.get((session.peer, session.kind))
        if older is not None:
            if older.sequence > session.sequence:  # the connections finished TLS in the other order
                self._count(session.peer, "superseded")
                session.abort("superseded")
                return
            self._mute(older, "superseded")
        self._sessions[session.peer, session.kind] = session
        self._handlers[session] = handler
        handler.session_made(session)
        session.send(Opening.WELCOME.value + self._lineage())

    def _refuse(self, session: Session, opening: Opening) -> None:
        cause = opening.name.lower()
        self._count(session.peer, cause)
        session.refuse(opening, self._lineage(), cause)

    def _count(self, peer: str, cause: str) -> None:
        self._counters.refusals[cause] += 1
        self._log.warning("peer_refused", cause=cause, about=peer)

    def session_frame(self, session: Session, payload: bytes) -> None:
        """On to the kind's handler."""
        self._handlers[session].session_frame(session, payload)

    def session_closed(self, session: Session) -> None:
        """Forget it, and tell the handler if it was admitted."""
        assert session.kind is not None
        if self._sessions.get((session.peer, session.kind)) is session:
            del self._sessions[session.peer, session.kind]
        handler = self._handlers.pop(session, None)
        if handler is not None:
            handler.session_closed(session)
        if session.cause in ("malformed", "frame_too_large", "buffer_full"):
            self._log.warning("peer_session_dropped", cause=session.cause, about=session.peer)


class RaftInbox:
    """Handler of accepted Raft sessions."""

    def __init__(
        self, *, on_message: Callable[[str, bytes], None], on_malformed: Callable[[str], None], counters: Counters
    ) -> None:
        """`on_malformed`: told of a peer whose message `on_message` refused with ValueError."""
        self._on_message = on_message
        self._on_malformed = on_malformed
        self._counters = counters

    def session_made(self, session: Session) -> None:
        """Nothing to set up."""

    def session_frame(self, session: Session, payload: bytes) -> None:
        """A message for consensus."""
        self._counters.messages_received += 1
        self._on_message(session.peer, payload)

    def session_closed(self, session: Session) -> None:
        """A malformed message also costs the session the other way, so that both sides begin anew."""
        if session.cause == "malformed":
            self._on_malformed(session.peer)
