"""Raft's links between members, as their user sees them: datagram-like, ordered within a session, best effort.

The identity of a peer is the common name of its certificate, never what a message says. `PeerNetwork` implements this
over mutually authenticated TLS; the simulator implements it over virtual time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

OnMessage = Callable[[str, bytes], None]
"""(node id of the sender, payload). Called in the order the sender sent, within one session."""

OnSession = Callable[[str], None]
"""(node id). A session to this peer came up, or went down."""


class Links(Protocol):
    """One session each way for each peer: a node sends on the session it dialled, and `on_connected`, `on_disconnected`
    and `send` are about that one. The newest session of a sender mutes its older ones, so that nothing sent over an
    old session is delivered after `on_connected` of a newer one at the sender. (What the peer sent on its own session
    is not affected: an answer to an old message may still come.) All methods and callbacks run on the event-loop
    thread. Callbacks must not block.

    `on_message` raises ValueError for a malformed message: the sessions with that peer are dropped both ways (and
    `on_disconnected` follows). Nothing else may be raised by a callback.
    """

    def bind(self, *, on_message: OnMessage, on_connected: OnSession, on_disconnected: OnSession) -> None:
        """Register the callbacks; once. Incoming sessions of nodes that are neither in `set_peers` nor let in by the
        network's own rule for strangers are refused; what a node that was let in may say, consensus judges."""
        ...

    def set_peers(self, peers: Mapping[str, str], guests: Collection[str] = ()) -> None:
        """The peers to keep a session with: node id -> host:port. Dials these (with back-off, for ever) and stops
        dialling the others, whose sessions are closed. `guests` are those that are no members by this node's own log:
        they may send Raft messages, and no calls."""
        ...

    def send(self, node_id: str, payload: bytes) -> bool:
        """Queue a payload (at most 16 MiB) for a peer, without blocking. False when there is no session or its buffer
        is over the limit: the payload is dropped. True promises nothing about delivery."""
        ...
