"""What the request path carries and is bounded by: the call under way, what was decided about it, the limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from holdfast.core.audit import AuditTrail
from holdfast.core.deadline import Deadline
from holdfast.core.idempotency import Recorder
from holdfast.core.plugin import Caller, HandlerContext
from holdfast.core.request import Request, Response
from holdfast.core.router import Route
from holdfast.core.tokens import Known
from holdfast.proto.errors import HoldfastError
from holdfast.storage.barrier import Barrier


class Forwarder(Protocol):
    """The way to another node's core."""

    async def forward(self, leader_id: str, request: Request) -> Response:
        """Have a node handle a request. Raises what it raised; Unavailable itself when the request was certainly not
        delivered; OutcomeUnknown when it may have been."""
        ...


@dataclass(frozen=True)
class Limits:
    """in_flight_max: requests handled at once. writes_max: writes among them that hold or wait for an object.
    waiters_max: writes that wait for one object. attempts_max: evaluations of a request that keeps conflicting.
    hand_over_s: how long a follower waits for a sealed leader to hand leadership on.
    pause_s_min, pause_s_max: the ceiling of the first and of the longest pause between two attempts."""

    in_flight_max: int = 8192
    writes_max: int = 4096
    waiters_max: int = 512
    attempts_max: int = 16
    hand_over_s: float = 2.0
    pause_s_min: float = 0.002
    pause_s_max: float = 0.2


@dataclass(frozen=True)
class Admitted:
    """A request whose token is known and whose policies allow it."""

    known: Known
    route: Route
    context: HandlerContext


@dataclass(frozen=True)
class Grant:
    """Leave to do what was asked. Call `finish` when it is done, so that the audit log tells how it ended."""

    caller: Caller
    _trail: AuditTrail

    async def finish(self, error: HoldfastError | None = None) -> None:
        """Record the outcome. Raises AuditFailed."""
        await self._trail.outcome(error=error)


class Call:
    """One request under way. print_: the fingerprint of what it asks, when it is to take effect once. committed:
    whether it has taken effect. open: whether no token is asked for (see `Core.serve_open`)."""

    __slots__ = ("committed", "deadline", "open", "print_", "request", "trail")

    def __init__(self, request: Request, deadline: Deadline, trail: AuditTrail, print_: bytes | None) -> None:
        self.request = request
        self.deadline = deadline
        self.trail = trail
        self.print_ = print_
        self.committed = False
        self.open = False

    def recorder(self, barrier: Barrier) -> Recorder | None:
        """The record of the request's id; None when it has none or only reads."""
        if self.print_ is None or self.request.request_id is None:
            return None
        return Recorder(barrier, self.request.request_id, self.print_)

    def __repr__(self) -> str:
        return f"<Call {self.request!r}>"
