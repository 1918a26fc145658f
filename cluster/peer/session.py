"""One connection between two nodes, as an asyncio protocol: identity, frames in, frames out, and how it ends.

A session opens in three steps: TLS proves both ends; each checks the other's common name; the accepting end sends an
opening frame. Only then does the dialling end call it open, because in TLS 1.3 a client is done before the server has
looked at its certificate. A session that has ended is mute: nothing of it is delivered any more.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

from holdfast.cluster.peer.frames import FrameDecoder, FrameTooLarge, encode, encode_header
from holdfast.cluster.peer.outbox import Outbox
from holdfast.cluster.peer.settings import PeerLimits
from holdfast.cluster.peer.stats import Counters
from holdfast.cluster.peer.tls import Kind, describe, identity

_CHUNK_BYTES = 256 * 1024  # what is handed to the transport at a time; more would only wait there


OPENING_BYTES_MAX = 2048
"""The longest opening frame, in bytes."""


class Opening(enum.Enum):
    """How the accepting end's first frame begins. The rest of it is the end's lineage, bytes that only consensus
    reads."""

    WELCOME = b"\x00"
    NOT_A_MEMBER = b"\x01"
    NOT_READY = b"\x02"


Judge = Callable[[str, bytes], bool]
"""(node id of a dialled peer, its lineage). Whether this node may speak to it; asked before anything is sent."""


def anyone(_peer: str, _lineage: bytes) -> bool:
    """The judge that refuses nobody."""
    return True


class SessionOwner(Protocol):
    """What a session tells its owner, always from the event-loop thread, in this order."""

    def session_made(self, session: Session) -> None:
        """The peer is authenticated: `session.peer` and `session.kind` are its identity. Judge it now."""
        ...

    def session_frame(self, session: Session, payload: bytes) -> None:
        """A frame came. ValueError from here says that it is malformed: the session is dropped."""
        ...

    def session_closed(self, session: Session) -> None:
        """The session is gone; `session.cause` says why. Told once for each session that was made."""
        ...


class Session(asyncio.Protocol):
    """See the module. `expect`: for a dialled session the peer and kind it must have; None for an accepted one.
    `judge`: of a dialled peer's lineage. `sequence`: orders accepted connections by the time they were accepted.
    `sessions`: where it is listed while it has a connection."""

    def __init__(
        self,
        owner: SessionOwner,
        *,
        limits: PeerLimits,
        counters: Counters,
        sessions: set[Session],
        expect: tuple[str, Kind] | None = None,
        judge: Judge = anyone,
        sequence: int = 0,
    ) -> None:
        self._owner = owner
        self._judge = judge
        self._limits = limits
        self._counters = counters
        self._sessions = sessions
        self._expect = expect
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._decoder: FrameDecoder | None = None
        self._outbox = Outbox(limit=limits.write_buffer_bytes)
        self._paused = False
        self._flush_scheduled = False
        self.sequence = sequence
        self.peer: str = expect[0] if expect else ""
        self.kind: Kind | None = expect[1] if expect else None
        self.made = False
        self.ended = False
        self.cause = ""
        self.detail = ""
        self.opened: asyncio.Future[None] = self._loop.create_future()
        """Done when a dialled session is open or has ended (see `ended`)."""
        self.closed = asyncio.Event()
        """Set when the connection is gone, if there was one."""

    def __repr__(self) -> str:
        return f"<Session {self.kind and self.kind.name} {self.peer!r} ended={self.ended} cause={self.cause!r}>"

    @property
    def position(self) -> int:
        """The position in the outgoing stream at which the next frame will begin; see `has_left`."""
        return self._outbox.end

    def has_left(self, position: int) -> bool:
        """Whether any byte from `position` on may have reached the network."""
        return self._outbox.taken > position

    def send(self, payload: bytes) -> bool:
        """Queue a frame. False when the session has ended, or is dropped now because too much waits on it.
        Raises FrameTooLarge over the kind's limit."""
        if self.ended or self._transport is None or self.kind is None:
            return False
        header = encode_header(len(payload), limit=self.kind.frame_bytes_max)
        if not self._outbox.fits(len(header) + len(payload)):
            self.abort("buffer_full")
            return False
        self._outbox.append(header)
        self._outbox.append(payload)
        if not self._flush_scheduled and not self._paused:
            # Frames queued in the same turn of the loop leave as one TLS record and one system call.
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)
        return True

    def abort(self, cause: str, detail: str = "") -> None:
        """End the session at once: it is mute from here on, and what waits is lost."""
        self._end(cause, detail)
        if self._transport is not None:
            self._transport.abort()

    def close(self, cause: str) -> None:
        """End the session in good order: mute from here on, but what waits is still sent, for a short time."""
        self._flush()
        self._end(cause, "")
        if self._transport is not None:
            self._transport.close()

    def refuse(self, opening: Opening, lineage: bytes, cause: str) -> None:
        """End an accepted session that was not welcomed, and tell the peer why."""
        assert self._transport is not None
        assert opening is not Opening.WELCOME
        self._end(cause, "")
        payload = opening.value + lineage
        self._transport.write(encode(payload, limit=len(payload)))
        self._transport.close()

    def _end(self, cause: str, detail: str) -> None:
        if not self.ended:
            self.ended = True
            self.cause, self.detail = cause, detail
        if not self.opened.done():
            self.opened.set_result(None)

    def _flush(self) -> None:
        self._flush_scheduled = False
        while self._outbox.size and not self._paused and not self.ended and self._transport is not None:
            chunk = self._outbox.take(_CHUNK_BYTES)
            self._counters.bytes_sent += len(chunk)
            self._transport.write(chunk)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS is done, and the peer's certificate is of the cluster CA."""
        self._transport = cast("asyncio.Transport", transport)
        self._sessions.add(self)
        if self.ended:  # the dial was given up meanwhile
            self._transport.abort()
            return
        tune(transport.get_extra_info("socket"), self._limits)
        self.peer, self.kind = identity(self._transport)
        if self.kind is None or not self.peer:
            self.abort("protocol" if self.peer else "no_identity")
            return
        if self._expect is not None and self._expect != (self.peer, self.kind):
            self.abort("wrong_identity", f"it is {self.peer!r}")
            return
        self._decoder = FrameDecoder(limit=self.kind.frame_bytes_max)
        self.made = True
        self._owner.session_made(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of the stream, split anywhere."""
        if self.ended or self._decoder is None:
            return
        self._counters.bytes_received += len(data)
        try:
            for payload in self._decoder.feed(data):
                self._deliver(payload)
        except FrameTooLarge:
            self.abort("frame_too_large")
        except ValueError:
            self.abort("malformed")

    def _deliver(self, payload: bytes) -> None:
        if self.ended:
            return
        if self._expect is not None and not self.opened.done():
            self._open(payload)
        else:
            self._owner.session_frame(self, payload)

    def _open(self, payload: bytes) -> None:
        if len(payload) > OPENING_BYTES_MAX:
            raise ValueError("an opening that is too long")
        opening = Opening(payload[:1])  # ValueError: not an opening
        if not self._judge(self.peer, payload[1:]):
            self.abort(
                "other_lineage", "this node has ended, or the peer's cluster was recovered apart from this node's"
            )
        elif opening is Opening.WELCOME:
            self.opened.set_result(None)
        else:
            self.abort(opening.name.lower(), "the peer says so")

    def pause_writing(self) -> None:
        """The transport holds enough."""
        self._paused = True

    def resume_writing(self) -> None:
        """The transport has room again."""
        self._paused = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whoever ended it."""
        self._end(*describe(exc))
        self._outbox.clear()
        self._transport = None
        self._sessions.discard(self)
        self.closed.set()
        if self.made:
            self._counters.closed[self.cause] += 1
            self._owner.session_closed(self)


def tune(sock: Any, limits: PeerLimits) -> None:
    """No delay for small messages, and a dead peer is noticed in seconds, whether bytes are under way or not."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limits.user_timeout_ms)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, limits.keepalive_idle_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, limits.keepalive_interval_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, limits.keepalive_probes)
