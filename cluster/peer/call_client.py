"""Makes calls: many in flight over one session to each peer, which is dialled when it is first needed.

What the caller is told follows from how far the call got. Nothing of it left this process: Unavailable. Any byte of it
may have left and no answer came: OutcomeUnknown.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from holdfast.cluster.peer.backoff import Backoff
from holdfast.cluster.peer.dialer import Dialer, DialFailed
from holdfast.cluster.peer.frames import CALL_FRAME_BYTES_MAX
from holdfast.cluster.peer.session import Session
from holdfast.cluster.peer.settings import PeerLimits
from holdfast.cluster.peer.stats import Counters, QuietLog
from holdfast.cluster.peer.tasks import Tasks
from holdfast.cluster.peer.tls import Kind
from holdfast.cluster.peer.wire import Call, Cancel, Reply, decode_answer, encode_message
from holdfast.proto.errors import InvalidArgument, OutcomeUnknown, Overloaded, Unavailable


@dataclass(frozen=True)
class _Pending:
    answer: asyncio.Future[bytes]
    position: int


class _Channel:
    """One call session and the calls that wait on it. Owner of that session."""

    def __init__(self, limits: PeerLimits) -> None:
        self._limits = limits
        self._session: Session | None = None
        self._pending: dict[int, _Pending] = {}
        self._last_id = 0

    @property
    def alive(self) -> bool:
        return self._session is not None and not self._session.ended

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    @property
    def session(self) -> Session:
        assert self._session is not None
        return self._session

    def opened(self, session: Session) -> None:
        self._session = session

    async def call(self, name: str, payload: bytes, deadline: float) -> bytes:
        loop = asyncio.get_running_loop()
        session = self.session
        if len(self._pending) >= self._limits.calls_max:
            raise Overloaded(f"Too many calls to node {session.peer} are in flight. Try again later.")
        self._last_id = call_id = self._last_id + 1
        timeout_ms = min(int((deadline - loop.time()) * 1000), int(self._limits.call_timeout_max_s * 1000))
        if timeout_ms < 1:
            raise Unavailable(f"No time was left to call node {session.peer}.")
        frame = encode_message(Call(call_id, name, timeout_ms, payload))
        if len(frame) > CALL_FRAME_BYTES_MAX:
            raise InvalidArgument(f"The request is {len(frame)} bytes long; between nodes {CALL_FRAME_BYTES_MAX} fit.")
        position = session.position
        if not session.send(frame):
            raise Unavailable(f"The session to node {session.peer} was lost.")
        self._pending[call_id] = pending = _Pending(loop.create_future(), position)
        try:
            async with asyncio.timeout_at(deadline):
                return await pending.answer
        except TimeoutError:
            raise OutcomeUnknown(f"Node {session.peer} did not answer in time.") from None
        finally:
            if self._pending.pop(call_id, None) is not None:
                session.send(encode_message(Cancel(call_id)))

    # SessionOwner

    def session_made(self, session: Session) -> None:
        """Nothing to judge: the dialled session has checked who is there."""

    def session_frame(self, session: Session, payload: bytes) -> None:  # noqa: ARG002
        answer = decode_answer(payload)
        if answer.id > self._last_id:
            raise ValueError("an answer to a call that was not made")
        pending = self._pending.pop(answer.id, None)
        if pending is None or pending.answer.done():
            return  # its caller no longer waits
        if isinstance(answer, Reply):
            pending.answer.set_result(answer.payload)
        else:
            pending.answer.set_exception(answer.error())

    def session_closed(self, session: Session) -> None:
        pending, self._pending = self._pending, {}
        for waiting in pending.values():
            if waiting.answer.done():
                continue
            if session.has_left(waiting.position):
                error: OutcomeUnknown | Unavailable = OutcomeUnknown(
                    f"The session to node {session.peer} was lost before it answered."
                )
            else:
                error = Unavailable(f"The session to node {session.peer} was lost before the call was sent.")
            waiting.answer.set_exception(error)


class CallLink:
    """Calls to one peer."""

    def __init__(
        self,
        peer: str,
        address: str,
        *,
        dialer: Dialer,
        backoff: Backoff,
        limits: PeerLimits,
        counters: Counters,
        log: QuietLog,
    ) -> None:
        self.peer = peer
        self._address = address
        self._dialer = dialer
        self._backoff = backoff
        self._limits = limits
        self._counters = counters
        self._log = log
        self._tasks = Tasks()
        self._channel: _Channel | None = None
        self._dialing: asyncio.Task[DialFailed | None] | None = None
        self._not_before = 0.0
        self._closed = False

    @property
    def session(self) -> Session | None:
        """The open session, while there is one."""
        return self._channel.session if self._channel is not None and self._channel.alive else None

    @property
    def in_flight(self) -> int:
        """Calls that wait for their answer."""
        return self._channel.in_flight if self._channel is not None else 0

    def set_address(self, address: str) -> None:
        """Dial here from now on. When that is news, the session to the old address is closed."""
        if address != self._address:
            self._address = address
            self.peer_is_back()
            if self._channel is not None and self._channel.alive:
                self._channel.session.abort("address_changed")

    def peer_is_back(self) -> None:
        """Another session to the peer came up: dial without delay when next asked."""
        self._backoff.reset()
        self._not_before = 0.0

    async def call(self, name: str, payload: bytes, timeout_s: float) -> bytes:
        """See PeerCalls.call."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        channel = await self._open_channel(deadline)
        self._counters.calls_sent += 1
        return await channel.call(name, payload, deadline)

    async def close(self, cause: str) -> None:
        """Dial no more and end the session. Calls that wait are told."""
        self._closed = True
        await self._tasks.cancel_all()
        if self._channel is not None and self._channel.alive:
            session = self._channel.session
            session.close(cause)
            try:
                async with asyncio.timeout(self._limits.close_s):
                    await session.closed.wait()
            except TimeoutError:
                session.abort(cause)
                await session.closed.wait()

    async def _open_channel(self, deadline: float) -> _Channel:
        while self._channel is None or not self._channel.alive:
            if self._closed:
                raise Unavailable(f"Calls to node {self.peer} have ended.")
            if self._dialing is None:
                self._dialing = self._tasks.spawn(self._dial(), name=f"peer call dial {self.peer}")
            dialing = self._dialing
            remaining_s = max(0.0, deadline - asyncio.get_running_loop().time())
            await asyncio.wait({dialing}, timeout=remaining_s)  # shared: one caller's end does not stop it
            if not dialing.done():
                raise Unavailable(f"Node {self.peer} could not be reached in time.")
            failure = DialFailed("stopping") if dialing.cancelled() else dialing.result()
            if failure is not None:
                raise Unavailable(f"Node {self.peer} cannot be reached: {failure.cause}. Try another node.")
        return self._channel

    async def _dial(self) -> DialFailed | None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(max(0.0, self._not_before - loop.time()))
            channel = _Channel(self._limits)
            channel.opened(await self._dialer.dial(self.peer, self._address, Kind.CALL, channel))
            self._backoff.reset()
            self._channel = channel
        except DialFailed as failure:
            self._not_before = loop.time() + self._backoff.next_s()
            self._log.warning(
                "peer_call_unreachable",
                cause=failure.cause,
                about=self.peer,
                address=self._address,
                detail=failure.detail,
            )
            return failure
        finally:
            self._dialing = None
        return None
