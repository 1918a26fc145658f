"""A cap on streams. The services that every gRPC server is expected to have (health's Watch, reflection) stream without
end and without a token; uncapped, they would take all the calls that gRPC lets in, Unseal among them.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from holdfast.proto.errors import Overloaded
from holdfast.server.errors import status_of
from holdfast.server.limits import STREAMS_MAX

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class StreamCap(grpc.aio.ServerInterceptor):
    """Lets `streams_max` streaming calls run at a time and refuses more; other calls pass untouched."""

    def __init__(self, streams_max: int = STREAMS_MAX) -> None:
        self._streams_max = streams_max
        self._running = 0

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        if handler is None or not (handler.request_streaming or handler.response_streaming):
            return handler
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(self._capped(handler.stream_stream), **codec)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._capped(handler.unary_stream), **codec)
        return grpc.stream_unary_rpc_method_handler(self._capped(handler.stream_unary), **codec)

    def _capped(self, behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        async def answer(request: Any, context: Any) -> Any:
            async with self._slot(context):
                return await behaviour(request, context)

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            async with self._slot(context):
                async for message in behaviour(request, context):
                    yield message

        return stream if inspect.isasyncgenfunction(behaviour) else answer

    @asynccontextmanager
    async def _slot(self, context: Any) -> AsyncIterator[None]:
        if self._running >= self._streams_max:
            await context.abort_with_status(
                status_of(Overloaded(f"this node serves {self._streams_max} streams already; ask for single answers"))
            )
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
