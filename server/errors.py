"""The one translation from Holdfast's error tree to gRPC statuses with google.rpc details."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from holdfast.proto.errors import DOMAIN, HoldfastError, Uninitialized

MESSAGE_CHARS_MAX = 2000
"""A status travels in HTTP/2 headers, which clients bound; longer messages are cut."""


def status_of(error: HoldfastError) -> grpc.Status:
    """The status of an error: its code, its message, ErrorInfo, and RetryInfo and BadRequest where they apply."""
    message = error.message[:MESSAGE_CHARS_MAX]
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.details),
    ]
    if error.retry_after_ms is not None:
        delay = Duration()
        delay.FromMilliseconds(error.retry_after_ms)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    code: int = grpc.StatusCode[error.grpc_code].value[0]
    return rpc_status.to_status(status_pb2.Status(code=code, message=message, details=[_packed(d) for d in details]))


def unexpected(request_id: str) -> HoldfastError:
    """What a caller is told of an exception that is not in the tree: nothing but where to look."""
    return HoldfastError(
        f"internal error; the node's log has the details under request {request_id}", details={"request_id": request_id}
    )


def not_joined() -> Uninitialized:
    """What a node answers that no cluster has let in yet. It must not send the caller to make new keys."""
    return Uninitialized(
        "this node belongs to no cluster yet: add it with `holdfast operator raft join`, asked of a node that is in one"
    )


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
