"""Raft's links between members, as their user sees them: datagram-like, ordered within a session, best effort.

The identity of a peer is the common name of its certificate, never what a message says. `PeerNetwork` implements this
over mutually authenticated TLS; the simulator implements it over virtual time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

OnMessage = Callable[[str, bytes], None]
"""(node id of the sender, payload). Called in the order the sender sent, within one session."""

OnSession = Callable[[str], None]
"""(node id). A session to this peer came up, or went down."""


class Links(Protocol):
    """At most one live session for each peer, whoever dialled it: the newest one mutes the older, so that nothing sent
    over an old session is delivered after `on_connected` of a newer one. All methods and callbacks run on the
    event-loop thread. Callbacks must not block.

    A callback that raises ValueError has found a malformed message: the session it came from is dropped (and
    `on_disconnected` follows). Nothing else may be raised by a callback.
    """

    def bind(self, *, on_message: OnMessage, on_connected: OnSession, on_disconnected: OnSession) -> None:
        """Register the callbacks; once, before the first session. Sessions of peers that are not in `set_peers` are
        accepted too when their certificate is of the cluster's CA: the consensus module judges what they may say."""
        ...

    def set_peers(self, peers: Mapping[str, str]) -> None:
        """The peers to keep a session with: node id -> host:port. Dials these (with back-off, for ever) and stops
        dialling the others, whose sessions are closed."""
        ...

    def send(self, node_id: str, payload: bytes) -> bool:
        """Queue a payload (at most 16 MiB) for a peer, without blocking. False when there is no session or its buffer
        is over the limit: the payload is dropped. True promises nothing about delivery."""
        ...
