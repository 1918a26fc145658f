"""Calls between nodes (forwarded requests, later key hand-over), as their users see them. Bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

Handler = Callable[[str, bytes], Awaitable[bytes]]
"""Serves a call: (the caller's node id, from its certificate; payload) -> reply. A raised HoldfastError reaches the
caller as the same class."""


class PeerCalls(Protocol):
    """Request and response between members over mutually authenticated TLS."""

    def serve(self, name: str, handler: Handler) -> None:
        """Register the handler of calls named `name`."""
        ...

    async def call(self, node_id: str, name: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Call a member. Raises the error its handler raised; Unavailable when the call was certainly not delivered;
        OutcomeUnknown when it may have been."""
        ...
