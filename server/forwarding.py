"""Requests that must run on the leader, taken there from the node that received them, and their answers.

The envelope is msgpack; the JSON members travel inside it as JSON bytes, because msgpack's integers stop at 64 bits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from holdfast.cluster.peer.calls import PeerCalls
from holdfast.core.request import Consistency, Operation, Request, RequestId, Response
from holdfast.proto.errors import Fatal, HoldfastError, InvalidArgument, OutcomeUnknown
from holdfast.server.jsondata import encode_object, parse_forwarded
from holdfast.server.metrics import Metrics
from holdfast.storage.decoding import MALFORMED

CORE_REQUEST = "core.request"

ANSWER_MARGIN_S = 0.5
"""How much longer the asking node waits than the answering one works, so that the answer, not the clock, decides."""


class _ForwardedRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    operation: Operation
    path: str
    data: bytes
    token: str
    id: str
    consistency: Consistency
    remote_address: str
    timeout_s: float
    request_id: RequestId | None = None

    def __repr__(self) -> str:
        return f"_ForwardedRequest(id={self.id!r})"


class _ForwardedResponse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    data: bytes | None
    warnings: tuple[str, ...]
    auth: bytes | None = None

    def __repr__(self) -> str:
        return "_ForwardedResponse(...)"


def encode_request(request: Request) -> bytes:
    """A request as it travels between nodes."""
    return msgspec.msgpack.encode(
        _ForwardedRequest(
            operation=request.operation,
            path=request.path,
            data=encode_object(request.data),
            token=request.token,
            id=request.id,
            request_id=request.request_id,
            consistency=request.consistency,
            remote_address=request.remote_address,
            timeout_s=request.timeout_s,
        )
    )


def decode_request(payload: bytes, *, forwarded_by: str) -> Request:
    """The request that a member sent. `forwarded_by` is the member's id from its certificate."""
    try:
        envelope = msgspec.msgpack.decode(payload, type=_ForwardedRequest)
    except MALFORMED:
        raise InvalidArgument("a forwarded request has an unknown form; do the nodes run one version?") from None
    return Request(
        operation=envelope.operation,
        path=envelope.path,
        data=parse_forwarded(envelope.data),
        token=envelope.token,
        id=envelope.id,
        request_id=envelope.request_id,
        consistency=envelope.consistency,
        remote_address=envelope.remote_address,
        timeout_s=envelope.timeout_s,
        forwarded_by=forwarded_by,
    )


def encode_response(response: Response) -> bytes:
    """A response as it travels between nodes."""
    data, auth = (None if part is None else encode_object(part) for part in (response.data, response.auth))
    return msgspec.msgpack.encode(_ForwardedResponse(data=data, warnings=response.warnings, auth=auth))


def decode_response(payload: bytes) -> Response:
    """The response that a member sent."""
    try:
        envelope = msgspec.msgpack.decode(payload, type=_ForwardedResponse)
    except MALFORMED:
        raise OutcomeUnknown("a forwarded response has an unknown form; do the nodes run one version?") from None
    data, auth = (None if part is None else parse_forwarded(part) for part in (envelope.data, envelope.auth))
    return Response(data=data, auth=auth, warnings=envelope.warnings)


class PeerForwarder:
    """Core's way to the leader."""

    def __init__(self, calls: PeerCalls, metrics: Metrics) -> None:
        self._calls = calls
        self._metrics = metrics

    async def forward(self, leader_id: str, request: Request) -> Response:
        """Have the leader handle a request. Raises what it raised, Unavailable or OutcomeUnknown."""
        outcome = "ERROR"
        try:
            reply = await call_member(
                self._calls, leader_id, CORE_REQUEST, encode_request(request), timeout_s=request.timeout_s
            )
            outcome = "OK"
            return decode_response(reply)
        except HoldfastError as error:
            outcome = error.reason
            raise
        finally:
            self._metrics.forward_done(outcome)


async def call_member(calls: PeerCalls, node_id: str, name: str, payload: bytes, *, timeout_s: float) -> bytes:
    """Call a member that is to answer within `timeout_s` by itself. Raises what it raised.

    Its Fatal is not ours: that member stops, this one goes on, and whether the call took effect is not known. Nor is it
    after an internal error, which is of no class but the tree's own: it may have come after the effect.
    """
    try:
        return await calls.call(node_id, name, payload, timeout_s=timeout_s + ANSWER_MARGIN_S)
    except Fatal as error:
        raise OutcomeUnknown(f"{node_id} stopped with a fatal error during the call; try again") from error
    except HoldfastError as error:
        if type(error) is HoldfastError:
            raise OutcomeUnknown(f"{node_id} failed during the call; its log says where") from error
        raise


def serve_member(
    calls: PeerCalls, name: str, handle: Callable[[str, bytes], Awaitable[bytes]], on_fatal: Callable[[Fatal], None]
) -> None:
    """Answer calls named `name`; a Fatal error reaches the caller, and then ends this node."""

    async def answer(caller: str, payload: bytes) -> bytes:
        try:
            return await handle(caller, payload)
        except Fatal as error:
            on_fatal(error)
            raise

    calls.serve(name, answer)


def serve_forwarded(
    calls: PeerCalls, handle: Callable[[Request], Awaitable[Response]], on_fatal: Callable[[Fatal], None]
) -> None:
    """Answer the requests that other members forward here."""

    async def answer(caller: str, payload: bytes) -> bytes:
        return encode_response(await handle(decode_request(payload, forwarded_by=caller)))

    serve_member(calls, CORE_REQUEST, answer, on_fatal)
