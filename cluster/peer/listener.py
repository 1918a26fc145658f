"""Accepts connections on the peer port and turns them into authenticated sessions, however many strangers call.

asyncio's own server keeps no count of connections that have not finished TLS, so accepting is done here: at the limit
the oldest unauthenticated connection makes room, which a member's handshake of milliseconds outlives.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable

from holdfast.cluster.peer.dialer import split_address
from holdfast.cluster.peer.session import Session
from holdfast.cluster.peer.settings import PeerLimits
from holdfast.cluster.peer.stats import Counters, QuietLog
from holdfast.cluster.peer.tasks import Tasks
from holdfast.cluster.peer.tls import Contexts, describe
from holdfast.proto.errors import FailedPrecondition

_BACKLOG = 512
_PAUSE_S = 0.1  # after a failed accept: usually the process is out of file descriptors


class Listener:
    """The peer port."""

    def __init__(
        self,
        bind: str,
        *,
        contexts: Callable[[], Contexts],
        make_session: Callable[[int], Session],
        limits: PeerLimits,
        counters: Counters,
        log: QuietLog,
    ) -> None:
        """`make_session` is given the connection's number in the order of acceptance."""
        self._bind = bind
        self._contexts = contexts
        self._make_session = make_session
        self._limits = limits
        self._counters = counters
        self._log = log
        self._sockets: list[socket.socket] = []
        self._handshakes = Tasks()
        self._waiting: dict[asyncio.Task[None], None] = {}  # oldest first
        self._stopped = False
        self._sequence = itertools.count(1)

    @property
    def address(self) -> str:
        """Where it listens, as host:port."""
        host, port = self._sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def handshakes(self) -> int:
        """Connections that are not authenticated yet."""
        return len(self._waiting)

    async def start(self) -> None:
        """Listen on every address that `bind` means. Raises FailedPrecondition when that cannot be done."""
        loop = asyncio.get_running_loop()
        host, port = split_address(self._bind)
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, _, _, _, address in dict.fromkeys(found):
                self._sockets.append(_listening(family, address))
        except OSError as error:
            self._close_sockets()
            raise FailedPrecondition(f"The peer port {self._bind} cannot be opened: {error.strerror}.") from None
        for sock in self._sockets:
            loop.add_reader(sock, self._accept, sock)

    async def stop(self) -> None:
        """Close the port and every connection that is not a session yet."""
        self._stopped = True
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock)
        self._close_sockets()
        await asyncio.sleep(0)  # a handshake owns its connection once it has begun
        await self._handshakes.cancel_all()

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()

    def _accept(self, sock: socket.socket) -> None:
        """Accept one connection; the loop calls again when there are more.

        (A reader, not `sock_accept`: that one loses a connection when it is cancelled at the wrong moment.)"""
        try:
            connection, address = sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            self._log.warning("peer_accept_failed", cause="accept", detail=error.strerror)
            loop = asyncio.get_running_loop()
            loop.remove_reader(sock)
            loop.call_later(_PAUSE_S, self._accept_again, sock)
            return
        connection.setblocking(False)
        if len(self._waiting) >= self._limits.handshakes_max:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.cancel()
            self._refused("too_many_handshakes", address[0], "")
        task = self._handshakes.spawn(self._handshake(connection, address[0]), name="peer handshake")
        self._waiting[task] = None
        task.add_done_callback(lambda done: self._waiting.pop(done, None))

    def _accept_again(self, sock: socket.socket) -> None:
        if not self._stopped:
            asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    async def _handshake(self, connection: socket.socket, host: str) -> None:
        session = self._make_session(next(self._sequence))
        try:
            async with asyncio.timeout(self._limits.handshake_timeout_s):
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: session,
                    connection,
                    ssl=self._contexts().server,
                    ssl_handshake_timeout=self._limits.handshake_timeout_s,
                    ssl_shutdown_timeout=self._limits.close_s,
                )
        except OSError as error:  # TimeoutError and ssl.SSLError are of this class
            cause, detail = describe(error)
            self._refused(cause, host, detail)
            return
        if not session.made:
            self._refused(session.cause or "connection_lost", host, session.detail)

    def _refused(self, cause: str, host: str, detail: str) -> None:
        self._counters.refusals[cause] += 1
        self._log.warning("peer_refused", cause=cause, address=host, detail=detail)


def _listening(family: int, address: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)  # type: ignore[arg-type]
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
