"""The calls of LogicalService: any engine by path, as in `secret/data/myapp/db`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.client.calls.call import Call, decode_object, encode_object, text
from holdfast.client.results import LogicalResponse
from holdfast.client.retry import Effect
from holdfast.proto.v1 import logical_pb2 as pb

_METHOD = "/holdfast.v1.LogicalService/Execute"


def read(path: str, data: Mapping[str, Any] | None, *, stale: bool) -> Call[LogicalResponse]:
    """Reads a path; `data` holds the operation's parameters."""
    return _execute(pb.OPERATION_READ, path, data, Effect.READ, stale=stale)


def list_(path: str, data: Mapping[str, Any] | None, *, stale: bool) -> Call[LogicalResponse]:
    """Lists the names below a path."""
    return _execute(pb.OPERATION_LIST, path, data, Effect.READ, stale=stale)


def write(path: str, data: Mapping[str, Any] | None) -> Call[LogicalResponse]:
    """Creates or updates a path."""
    return _execute(pb.OPERATION_WRITE, path, data, Effect.WRITE)


def patch(path: str, data: Mapping[str, Any] | None) -> Call[LogicalResponse]:
    """Changes a part of what a path holds."""
    return _execute(pb.OPERATION_PATCH, path, data, Effect.WRITE)


def delete(path: str, data: Mapping[str, Any] | None) -> Call[LogicalResponse]:
    """Deletes a path."""
    return _execute(pb.OPERATION_DELETE, path, data, Effect.WRITE)


def _execute(
    operation: pb.Operation.ValueType, path: str, data: Mapping[str, Any] | None, effect: Effect, *, stale: bool = False
) -> Call[LogicalResponse]:
    request = pb.ExecuteRequest(
        operation=operation,
        path=text(path, name="path").strip("/"),
        data=encode_object(data) if data else b"",
    )
    return Call(_METHOD, request, pb.ExecuteResponse, _answer, effect, stale=stale)


def _answer(response: pb.ExecuteResponse) -> LogicalResponse:
    return LogicalResponse(
        decode_object(response.data), tuple(response.warnings), response.request_id, decode_object(response.auth)
    )
