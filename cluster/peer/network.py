"""The peer network of a node: Raft's links and calls between nodes, over one mutually authenticated TLS 1.3 port.

This is the wiring; each part has its own file. See DESIGN.md beside this one.
"""

from __future__ import annotations

import asyncio
import enum
import secrets
import time
from collections.abc import Callable, Collection, Mapping

import structlog

from holdfast.cluster.peer.backoff import Backoff
from holdfast.cluster.peer.call_client import CallLink
from holdfast.cluster.peer.call_server import CallServer
from holdfast.cluster.peer.calls import Handler
from holdfast.cluster.peer.dialer import Dialer, RaftLink, split_address
from holdfast.cluster.peer.frames import RAFT_FRAME_BYTES_MAX, FrameTooLarge
from holdfast.cluster.peer.incoming import Incoming, RaftInbox
from holdfast.cluster.peer.links import OnMessage, OnSession
from holdfast.cluster.peer.listener import Listener
from holdfast.cluster.peer.session import Judge, Session, SessionOwner, anyone
from holdfast.cluster.peer.settings import PeerLimits
from holdfast.cluster.peer.stats import Counters, PeerStats, QuietLog
from holdfast.cluster.peer.tasks import Tasks
from holdfast.cluster.peer.tls import Contexts, Kind, PeerTls, load_contexts
from holdfast.proto.errors import InvalidArgument, Unavailable


class _Life(enum.Enum):
    NEW = "new"
    RUNNING = "running"
    STOPPED = "stopped"


def _nobody_else(_node_id: str, _kind: Kind) -> bool:
    return False


class PeerNetwork:
    """Implements `Links` and `PeerCalls`. All methods are called from the event-loop thread.

    node_id: the common name of this node's certificate. bind: host:port to listen on.
    allow: whether a node that is not among the peers may have incoming sessions of this kind.
    lineage: what this node tells every peer that dials it; judge: whether it may speak to a peer of such a lineage.
    jitter: numbers in [0, 1), for the back-off; from the system by default.
    Construction reads the TLS files: FailedPrecondition when they cannot be used, InvalidArgument for a bad `bind`.
    """

    def __init__(
        self,
        *,
        node_id: str,
        bind: str,
        tls: PeerTls,
        allow: Callable[[str, Kind], bool] = _nobody_else,
        lineage: Callable[[], bytes] = bytes,
        judge: Judge = anyone,
        limits: PeerLimits | None = None,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        try:
            split_address(bind)
        except ValueError as error:
            raise InvalidArgument(f"The cluster port's address: {error}.", field="cluster.bind") from None
        self._node_id = node_id
        self._tls = tls
        self._allow = allow
        self._limits = limits or PeerLimits()
        self._jitter = jitter or secrets.SystemRandom().random
        self._contexts = load_contexts(tls, node_id)
        self._log = structlog.get_logger("holdfast.peer").bind(node_id=node_id)
        self._quiet = QuietLog(self._log, clock=time.monotonic, interval_s=self._limits.log_interval_s)
        self._counters = Counters()
        self._life = _Life.NEW
        self._peers: dict[str, str] = {}
        self._guests: frozenset[str] = frozenset()
        self._sessions: set[Session] = set()
        self._tasks = Tasks()
        self._raft_links: dict[str, tuple[RaftLink, asyncio.Task[None]]] = {}
        self._call_links: dict[str, CallLink] = {}
        self._on_connected: OnSession | None = None
        self._on_disconnected: OnSession | None = None
        self._inbox: RaftInbox | None = None
        self._calls = CallServer(node_id, limits=self._limits, counters=self._counters, log=self._log)
        self._incoming = Incoming(
            admits=self._admits, handler=self._handler_of, lineage=lineage, counters=self._counters, log=self._quiet
        )
        self._dialer = Dialer(
            contexts=self._current_contexts, judge=judge, limits=self._limits, counters=self._counters,
            sessions=self._sessions,
        )  # fmt: skip
        self._listener = Listener(
            bind,
            contexts=self._current_contexts,
            make_session=self._accepted_session,
            limits=self._limits,
            counters=self._counters,
            log=self._quiet,
        )

    # Links

    def bind(self, *, on_message: OnMessage, on_connected: OnSession, on_disconnected: OnSession) -> None:
        """See Links.bind. Until then peers' Raft sessions are turned away, and they dial again."""
        assert self._inbox is None, "bind is called once"
        self._on_connected, self._on_disconnected = on_connected, on_disconnected
        self._inbox = RaftInbox(on_message=on_message, on_malformed=self._drop_link, counters=self._counters)
        self._follow_peers()

    def set_peers(self, peers: Mapping[str, str], guests: Collection[str] = ()) -> None:
        """See Links.set_peers. Incoming sessions of those who are no longer peers, nor allowed, are cut."""
        self._peers = {node_id: address for node_id, address in peers.items() if node_id != self._node_id}
        self._guests = frozenset(guests)
        self._follow_peers()

    def send(self, node_id: str, payload: bytes) -> bool:
        """See Links.send. Raises ValueError for a payload over RAFT_FRAME_BYTES_MAX."""
        if len(payload) > RAFT_FRAME_BYTES_MAX:
            raise FrameTooLarge(f"a message of {len(payload)} bytes is over the limit of {RAFT_FRAME_BYTES_MAX}")
        link = self._raft_links.get(node_id)
        return link is not None and link[0].send(payload)

    # PeerCalls

    def serve(self, name: str, handler: Handler) -> None:
        """See PeerCalls.serve."""
        self._calls.serve(name, handler)

    async def call(self, node_id: str, name: str, payload: bytes, *, timeout_s: float) -> bytes:
        """See PeerCalls.call. Also raises Overloaded when too many calls to the peer are in flight and InvalidArgument
        when the payload does not fit a frame; nothing was sent then."""
        link = self._call_links.get(node_id)
        if link is None:
            raise Unavailable(f"Node {node_id} is not among the peers of node {self._node_id}.")
        return await link.call(name, payload, timeout_s)

    # Life

    @property
    def address(self) -> str:
        """Where the started node listens, as host:port; the port is the real one when `bind` said 0."""
        return self._listener.address

    async def start(self) -> None:
        """Listen, and dial the peers. Raises FailedPrecondition when the port cannot be opened."""
        assert self._life is _Life.NEW, "start is called once"
        await self._listener.start()
        self._life = _Life.RUNNING
        self._log.info("peer_port_open", address=self.address, certificate_not_after_s=self._contexts.not_after_s)
        self._follow_peers()

    async def stop(self) -> None:
        """Close the port, let calls that are being served finish for a moment, end every session. Returns when nothing
        is left: no task, no socket. Does nothing when it is not running."""
        if self._life is not _Life.RUNNING:
            return
        self._life = _Life.STOPPED
        await self._listener.stop()
        await self._calls.drain()
        for _, task in self._raft_links.values():
            task.cancel()
        await asyncio.gather(*(link.close("stopping") for link in self._call_links.values()))
        await self._tasks.wait(self._limits.close_s)
        await self._tasks.cancel_all()
        await self._end_sessions()
        self._raft_links.clear()
        self._call_links.clear()
        self._log.info("peer_port_closed")

    def reload_certificates(self) -> None:
        """Read the TLS files again; new sessions use them, those that are open stay.

        Raises FailedPrecondition, and keeps what it has, when they cannot be used."""
        self._contexts = load_contexts(self._tls, self._node_id)
        self._log.info("peer_certificates_reloaded", not_after_s=self._contexts.not_after_s)

    def stats(self) -> PeerStats:
        """The counters now."""
        counters, calls = self._counters, self._call_links.values()
        dialled = [link.session for link, _ in self._raft_links.values()] + [link.session for link in calls]
        return PeerStats(
            sessions_outgoing=sum(session is not None and not session.ended for session in dialled),
            sessions_incoming=len(self._incoming.sessions),
            handshakes=self._listener.handshakes,
            bytes_sent=counters.bytes_sent,
            bytes_received=counters.bytes_received,
            messages_sent=counters.messages_sent,
            messages_received=counters.messages_received,
            calls_sent=counters.calls_sent,
            calls_served=counters.calls_served,
            calls_in_flight=sum(link.in_flight for link in calls),
            calls_being_served=self._calls.in_flight,
            refusals=dict(counters.refusals),
            dial_failures=dict(counters.dial_failures),
            closed=dict(counters.closed),
            certificate_not_after_s=self._contexts.not_after_s,
        )

    # Parts

    def _current_contexts(self) -> Contexts:
        return self._contexts

    def _admits(self, node_id: str, kind: Kind) -> bool:
        if node_id == self._node_id:
            return False
        known = node_id in self._peers and (kind is Kind.RAFT or node_id not in self._guests)
        return known or self._allow(node_id, kind)

    def _handler_of(self, kind: Kind) -> SessionOwner | None:
        return self._calls if kind is Kind.CALL else self._inbox

    def _accepted_session(self, sequence: int) -> Session:
        return Session(
            self._incoming,
            limits=self._limits,
            counters=self._counters,
            sessions=self._sessions,
            sequence=sequence,
        )

    def _drop_link(self, peer: str) -> None:
        if (link := self._raft_links.get(peer)) is not None:
            link[0].drop("malformed")

    def _connected(self, peer: str) -> None:
        assert self._on_connected is not None
        if (link := self._call_links.get(peer)) is not None:
            link.peer_is_back()
        self._on_connected(peer)

    def _follow_peers(self) -> None:
        """Make the links and sessions what `set_peers` last said."""
        self._incoming.judge_again("no_longer_a_peer")
        if self._life is not _Life.RUNNING:
            return
        for gone in self._call_links.keys() - self._peers.keys():
            self._tasks.spawn(self._call_links.pop(gone).close("no_longer_a_peer"), name=f"peer close {gone}")
        for gone in self._raft_links.keys() - self._peers.keys():
            self._raft_links.pop(gone)[1].cancel()
        for peer, address in self._peers.items():
            if peer in self._call_links:
                self._call_links[peer].set_address(address)
            else:
                self._call_links[peer] = self._make_call_link(peer, address)
            if peer in self._raft_links:
                self._raft_links[peer][0].set_address(address)
            elif self._on_disconnected is not None:
                link = self._make_raft_link(peer, address, self._on_disconnected)
                self._raft_links[peer] = link, self._tasks.spawn(link.run(), name=f"peer link {peer}")

    def _make_call_link(self, peer: str, address: str) -> CallLink:
        limits = self._limits
        backoff = Backoff(minimum_s=limits.backoff_min_s, maximum_s=limits.call_backoff_max_s, jitter=self._jitter)
        return CallLink(
            peer,
            address,
            dialer=self._dialer,
            backoff=backoff,
            limits=limits,
            counters=self._counters,
            log=self._quiet,
        )

    def _make_raft_link(self, peer: str, address: str, on_disconnected: OnSession) -> RaftLink:
        limits = self._limits
        return RaftLink(
            peer,
            address,
            dialer=self._dialer,
            on_connected=self._connected,
            on_disconnected=on_disconnected,
            backoff=Backoff(minimum_s=limits.backoff_min_s, maximum_s=limits.backoff_max_s, jitter=self._jitter),
            log=self._quiet,
            counters=self._counters,
        )

    async def _end_sessions(self) -> None:
        """A goodbye to every peer; those that do not take it in time are cut."""
        await asyncio.sleep(0)  # transports that were cut close their sockets in the loop's next turn
        for session in list(self._sessions):
            session.close("stopping")
        closings = [asyncio.ensure_future(session.closed.wait()) for session in self._sessions]
        if closings:
            await asyncio.wait(closings, timeout=self._limits.close_s)
        for session in list(self._sessions):
            session.abort("stopping")
        if closings:
            await asyncio.wait(closings)
