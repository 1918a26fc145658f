"""Opens sessions to peers, and keeps a Raft session to one peer open for as long as it is a peer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from holdfast.cluster.peer.backoff import Backoff
from holdfast.cluster.peer.links import OnSession
from holdfast.cluster.peer.session import Judge, Session, SessionOwner
from holdfast.cluster.peer.settings import PeerLimits
from holdfast.cluster.peer.stats import Counters, QuietLog
from holdfast.cluster.peer.tls import Contexts, Kind, describe


class DialFailed(Exception):
    """No session came of a dial, and nothing was sent on it. `cause` is fit for a metric's label."""

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause} ({detail})" if detail else cause)
        self.cause = cause
        self.detail = detail


def split_address(address: str) -> tuple[str, int]:
    """host:port, an IPv6 host in brackets, as (host, port). Raises ValueError for anything else."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not host:port")
    return host, int(port)


class Dialer:
    """Makes one session at a time out of an address and the name that must be found there."""

    def __init__(
        self,
        *,
        contexts: Callable[[], Contexts],
        judge: Judge,
        limits: PeerLimits,
        counters: Counters,
        sessions: set[Session],
    ) -> None:
        """`contexts` is asked at each dial, so that new certificates count from the next one on. `judge`: of a peer's
        lineage. `sessions` lists the sessions that have a connection."""
        self._contexts = contexts
        self._judge = judge
        self._sessions = sessions
        self._limits = limits
        self._counters = counters

    async def dial(self, peer: str, address: str, kind: Kind, owner: SessionOwner) -> Session:
        """An open session to `peer`. Raises DialFailed; `owner` may have been told of a session that did not open."""
        session = Session(
            owner, limits=self._limits, counters=self._counters, sessions=self._sessions, expect=(peer, kind),
            judge=self._judge,
        )  # fmt: skip
        try:
            host, port = split_address(address)
        except ValueError as error:
            raise self._failed(session, "address", str(error)) from None
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: session,
                    host,
                    port,
                    ssl=self._contexts().clients[kind],
                    server_hostname="",
                    ssl_handshake_timeout=self._limits.handshake_timeout_s,
                    ssl_shutdown_timeout=self._limits.close_s,
                )
                if not session.made and not session.ended:
                    raise ConnectionResetError  # lost within the handshake
                await session.opened
        except OSError as error:  # TimeoutError and ssl.SSLError are of this class
            raise self._failed(session, *describe(error)) from None
        except asyncio.CancelledError:
            session.abort("cancelled")
            raise
        except ValueError as error:  # no host name: a label too long, a NUL (UnicodeError is of this class)
            raise self._failed(session, "address", type(error).__name__) from None
        except Exception as error:
            raise self._failed(session, "unforeseen", type(error).__name__) from error
        if session.ended:
            raise self._failed(session, session.cause, session.detail)
        return session

    def _failed(self, session: Session, cause: str, detail: str) -> DialFailed:
        session.abort(cause, detail)
        self._counters.dial_failures[cause] += 1
        return DialFailed(cause, detail)


class RaftLink:
    """The outgoing Raft session to one peer: dials, reports, and dials again until it is cancelled."""

    def __init__(
        self,
        peer: str,
        address: str,
        *,
        dialer: Dialer,
        on_connected: OnSession,
        on_disconnected: OnSession,
        backoff: Backoff,
        log: QuietLog,
        counters: Counters,
    ) -> None:
        self.peer = peer
        self._address = address
        self._dialer = dialer
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._backoff = backoff
        self._log = log
        self._counters = counters
        self._moved = asyncio.Event()
        self.session: Session | None = None
        """The open session, while there is one."""

    def set_address(self, address: str) -> None:
        """Dial here from now on. When that is news, the session to the old address is closed."""
        if address != self._address:
            self._address = address
            self._moved.set()
            self.drop("address_changed")

    def drop(self, cause: str) -> None:
        """Cut the session, if there is one; it is dialled again."""
        if self.session is not None:
            self.session.abort(cause)

    def send(self, payload: bytes) -> bool:
        """See Links.send."""
        sent = self.session is not None and self.session.send(payload)
        self._counters.messages_sent += sent
        return sent

    async def run(self) -> None:
        """Keep the session until cancelled. `on_connected` and `on_disconnected` are told in turn."""
        while True:
            self._moved.clear()
            address = self._address
            try:
                session = await self._dialer.dial(self.peer, address, Kind.RAFT, self)
            except DialFailed as failure:
                self._log.warning(
                    "peer_unreachable", cause=failure.cause, about=self.peer, address=address, detail=failure.detail
                )
            else:
                await self._hold(session, address)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._backoff.next_s()):
                    await self._moved.wait()

    async def _hold(self, session: Session, address: str) -> None:
        if session.ended or address != self._address:
            session.abort("address_changed")
            return
        self._backoff.reset()
        self.session = session
        try:
            self._on_connected(self.peer)
            await session.closed.wait()
        finally:
            self.session = None
            session.close("no_longer_a_peer")
            self._on_disconnected(self.peer)

    # SessionOwner

    def session_made(self, session: Session) -> None:
        """Nothing to judge: the dialled session has checked who is there."""

    def session_frame(self, session: Session, payload: bytes) -> None:  # noqa: ARG002
        """Raft sessions are one-way: after the opening nothing may come back."""
        raise ValueError("a frame on the sending end of a Raft session")

    def session_closed(self, session: Session) -> None:
        """`run` waits for that itself."""
