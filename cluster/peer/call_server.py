"""Serves calls: one task each, within limits, cancelled when its caller is gone or no longer waits."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass, field

import structlog.typing

from holdfast.cluster.peer.calls import Handler
from holdfast.cluster.peer.frames import CALL_FRAME_BYTES_MAX
from holdfast.cluster.peer.session import Session
from holdfast.cluster.peer.settings import PeerLimits
from holdfast.cluster.peer.stats import Counters
from holdfast.cluster.peer.tasks import Tasks
from holdfast.cluster.peer.wire import Call, Failure, Reply, decode_request, encode_message
from holdfast.proto.errors import HoldfastError, OutcomeUnknown, Overloaded, Unavailable, Unimplemented


@dataclass
class _Serving:
    """What one session has in flight."""

    tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    request_bytes: int = 0


class CallServer:
    """Handler of accepted call sessions."""

    def __init__(
        self, node_id: str, *, limits: PeerLimits, counters: Counters, log: structlog.typing.FilteringBoundLogger
    ) -> None:
        self._node_id = node_id
        self._limits = limits
        self._counters = counters
        self._log = log
        self._handlers: dict[str, Handler] = {}
        self._sessions: dict[Session, _Serving] = {}
        self._tasks = Tasks()
        self._draining = False

    @property
    def in_flight(self) -> int:
        """Calls that are being served."""
        return len(self._tasks)

    def serve(self, name: str, handler: Handler) -> None:
        """See PeerCalls.serve. A name has one handler."""
        assert name not in self._handlers, f"{name} has a handler already"
        self._handlers[name] = handler

    async def drain(self) -> None:
        """Take no more calls, give those in flight a moment to finish, then cancel them."""
        self._draining = True
        await self._tasks.wait(self._limits.drain_s)
        await self._tasks.cancel_all()

    # SessionOwner

    def session_made(self, session: Session) -> None:
        """A caller came."""
        self._sessions[session] = _Serving()

    def session_closed(self, session: Session) -> None:
        """The caller is gone, and nobody is left to answer to."""
        for task in self._sessions.pop(session).tasks.values():
            task.cancel()

    def session_frame(self, session: Session, payload: bytes) -> None:
        """A call, or the end of a caller's patience. ValueError: neither."""
        request = decode_request(payload)
        serving = self._sessions[session]
        if not isinstance(request, Call):
            if (task := serving.tasks.get(request.id)) is not None:
                task.cancel()
            return
        if request.id in serving.tasks:
            raise ValueError("a call id is in use")
        try:
            handler = self._admit(request, serving)
        except HoldfastError as refusal:
            session.send(encode_message(Failure.of(request.id, refusal)))
            return
        self._counters.calls_served += 1
        serving.request_bytes += len(request.payload)
        task = self._tasks.spawn(self._serve(session, request, handler), name=f"peer call {request.name}")
        serving.tasks[request.id] = task
        task.add_done_callback(lambda _: self._finished(serving, request))

    def _finished(self, serving: _Serving, call: Call) -> None:
        del serving.tasks[call.id]
        serving.request_bytes -= len(call.payload)
        assert serving.request_bytes >= 0

    def _admit(self, call: Call, serving: _Serving) -> Handler:
        if self._draining:
            raise Unavailable(f"Node {self._node_id} is stopping. Try another node.")
        if len(serving.tasks) >= self._limits.calls_max or (
            serving.tasks and serving.request_bytes + len(call.payload) > self._limits.call_bytes_max
        ):
            raise Overloaded(f"Node {self._node_id} serves as many calls of this peer as it may. Try again later.")
        handler = self._handlers.get(call.name)
        if handler is None:
            raise Unimplemented(f"Node {self._node_id} serves no such call. Do all nodes run the same version?")
        return handler

    async def _serve(self, session: Session, call: Call, handler: Handler) -> None:
        deadline = asyncio.timeout(min(call.timeout_ms / 1000, self._limits.call_timeout_max_s))
        answer: Reply | Failure
        try:
            async with deadline:
                answer = Reply(call.id, await handler(session.peer, call.payload))
        except HoldfastError as error:
            answer = Failure.of(call.id, error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            answer = self._failed(call, error)  # something that the handler waited for was cancelled, not the call
        except Exception as error:  # noqa: BLE001  whatever a handler raises, its caller gets an answer
            if deadline.expired() and isinstance(error, TimeoutError):
                answer = Failure.of(call.id, OutcomeUnknown("The call's time passed while it was being served."))
            else:
                answer = self._failed(call, error)
        frame = encode_message(answer)
        if len(frame) > CALL_FRAME_BYTES_MAX:
            too_large = HoldfastError(f"The answer is {len(frame)} bytes long; the limit is {CALL_FRAME_BYTES_MAX}.")
            frame = encode_message(Failure.of(call.id, too_large))
        session.send(frame)

    def _failed(self, call: Call, error: BaseException) -> Failure:
        """An error that is not of our tree. Its text may hold anything, so neither the caller nor the log sees it."""
        frames = traceback.extract_tb(error.__traceback__)[-4:]
        where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
        self._log.error("peer_call_failed", call=call.name, error=type(error).__name__, where=where)
        return Failure.of(
            call.id, HoldfastError(f"Node {self._node_id} failed while it served the call. Its log says where.")
        )
