"""holdfast.v1.LogicalService: any engine by path."""
# ruff: noqa: N802 - method names are the protocol's

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from holdfast.core.request import Operation, Request, Response
from holdfast.proto.errors import InvalidArgument
from holdfast.proto.v1 import logical_pb2 as pb
from holdfast.proto.v1.logical_pb2_grpc import LogicalServiceServicer
from holdfast.server.frontend import FrontEnd, rpc
from holdfast.server.jsondata import encode_object, parse_object
from holdfast.server.metadata import Call
from holdfast.server.validation import check_logical_path

_OPERATIONS = {
    pb.OPERATION_READ: Operation.READ,
    pb.OPERATION_WRITE: Operation.UPDATE,
    pb.OPERATION_PATCH: Operation.PATCH,
    pb.OPERATION_DELETE: Operation.DELETE,
    pb.OPERATION_LIST: Operation.LIST,
}


class LogicalService(LogicalServiceServicer):
    """Hands requests to core as they are."""

    def __init__(self, front_end: FrontEnd, handle: Callable[[Request], Awaitable[Response]]) -> None:
        self.front_end = front_end
        self._handle = handle

    @rpc
    async def Execute(self, message: pb.ExecuteRequest, call: Call) -> pb.ExecuteResponse:
        operation = _OPERATIONS.get(message.operation)
        if operation is None:
            raise InvalidArgument("operation must be READ, WRITE, PATCH, DELETE or LIST", field="operation")
        path = check_logical_path(message.path)
        if operation is Operation.LIST:
            path = path.removesuffix("/")
        elif path.endswith("/"):
            raise InvalidArgument("path must not end with '/'; only a LIST names a folder", field="path")
        data = parse_object(message.data, empty_ok=True)
        response = await self._handle(request_of(call, operation, path, data))
        return pb.ExecuteResponse(
            data=b"" if response.data is None else encode_object(response.data),
            warnings=response.warnings,
            request_id=call.id,
            auth=b"" if response.auth is None else encode_object(response.auth),
        )


def request_of(call: Call, operation: Operation, path: str, data: dict[str, Any] | None = None) -> Request:
    """Core's request for a call."""
    return Request(
        operation=operation,
        path=path,
        data=data or {},
        token=call.token,
        id=call.id,
        request_id=call.request_id if operation.writes else None,
        consistency=call.consistency,
        remote_address=call.remote_address,
        timeout_s=call.timeout_s,
    )
