"""What every call goes through before and after its own few lines: admission, metadata, deadline, translation of
errors, measurement and log. The services in the `*_service.py` files hold nothing of that.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, Protocol, TypeVar

import grpc
import structlog

from holdfast.proto.errors import Fatal, HoldfastError, OutcomeUnknown, Overloaded
from holdfast.server.errors import status_of, unexpected
from holdfast.server.limits import REQUESTS_IN_FLIGHT_MAX
from holdfast.server.metadata import Call, call_of
from holdfast.server.metrics import Metrics

DEADLINE_GRACE_S = 1.0
"""The rooms below answer in time by themselves; this backstop ends what does not."""

Context = grpc.aio.ServicerContext[Any, Any]

R = TypeVar("R")

log = structlog.stdlib.get_logger(__name__)


class FrontEnd:
    """Admits, runs and answers calls; one per node.

    on_fatal: told of a Fatal error, after its answer was composed; the node then stops (law 7).
    """

    def __init__(
        self,
        *,
        metrics: Metrics,
        random_bytes: Callable[[int], bytes],
        monotonic: Callable[[], float],
        on_fatal: Callable[[Fatal], None],
        in_flight_max: int = REQUESTS_IN_FLIGHT_MAX,
    ) -> None:
        self._metrics = metrics
        self._random_bytes = random_bytes
        self._monotonic = monotonic
        self._on_fatal = on_fatal
        self._in_flight_max = in_flight_max
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """Calls being served."""
        return self._in_flight

    async def serve(
        self,
        method: str,
        handle: Callable[[Call], Awaitable[R]],
        context: Context,
        *,
        admit: bool,
        timeout_s: float | None = None,
    ) -> R:
        """Run one call to its answer or its status. `admit`: whether the cap on requests in flight applies.
        timeout_s: in place of the call's own time, for streams that take long."""
        started = self._monotonic()
        call_id = self._random_bytes(16).hex()
        outcome = "OK"
        self._in_flight += 1
        try:
            if admit and self._in_flight > self._in_flight_max:
                raise Overloaded(f"this node serves {self._in_flight_max} requests already; try again or use another")
            call = call_of(
                call_id=call_id,
                metadata=context.invocation_metadata() or (),
                time_remaining_s=context.time_remaining(),
                peer=context.peer(),
            )
            async with asyncio.timeout((timeout_s or call.timeout_s) + DEADLINE_GRACE_S):
                return await handle(call)
        except HoldfastError as error:
            outcome = error.reason
            await self._refuse(error, method, call_id, context)
        except TimeoutError:
            late = OutcomeUnknown("the node did not finish in time; retry under the same request id")
            outcome = late.reason
            await self._refuse(late, method, call_id, context)
        except asyncio.CancelledError:
            outcome = "CANCELLED"
            raise
        except Exception:
            outcome = "INTERNAL"
            # The logger's processors keep the kind of exception and its frames, never its text or values.
            log.exception("unexpected exception in a call", method=method, request_id=call_id)
            await context.abort_with_status(status_of(unexpected(call_id)))
        finally:
            self._in_flight -= 1
            self._metrics.request_done(method, outcome, self._monotonic() - started)
            log.debug("call", method=method, outcome=outcome, request_id=call_id)

    async def _refuse(self, error: HoldfastError, method: str, call_id: str, context: Context) -> NoReturn:
        if isinstance(error, Fatal):
            log.critical("a call met a fatal error", method=method, request_id=call_id, reason=error.reason)
            self._on_fatal(error)
        await context.abort_with_status(status_of(error))


class _Service(Protocol):
    """What the decorators below need of a service."""

    @property
    def front_end(self) -> FrontEnd: ...


S = TypeVar("S", bound=_Service)
M = TypeVar("M")
_Handler = Callable[[S, M, Call], Awaitable[R]]
_Method = Callable[[S, M, Context], Awaitable[R]]


def rpc(handler: _Handler[S, M, R]) -> _Method[S, M, R]:
    """Make a method of a service out of `async def Name(self, message, call) -> reply`."""
    return _method(handler, admit=True)


def probe(handler: _Handler[S, M, R]) -> _Method[S, M, R]:
    """As `rpc`, for calls that must get through to a full node: its state, and what an operator needs to help it."""
    return _method(handler, admit=False)


def _method(handler: _Handler[S, M, R], *, admit: bool) -> _Method[S, M, R]:
    name = handler.__qualname__.replace(".", "/")

    @functools.wraps(handler)
    async def serve(self: S, message: M, context: Context) -> R:
        return await self.front_end.serve(name, lambda call: handler(self, message, call), context, admit=admit)

    return serve
