"""The asyncio client: `sync.py` with `await`.

async with AsyncClient() as client:
    await client.kv.put("myapp/db", {"username": "admin"})
    names = [name async for name in client.kv.list("myapp")]
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeVar

from grpc import aio

from holdfast.client.api_aio import AsyncKv, AsyncLogical, AsyncRaft, AsyncSys
from holdfast.client.api_keys import AsyncKeys
from holdfast.client.calls.call import Call
from holdfast.client.channels import credentials, options
from holdfast.client.config import ClientConfig
from holdfast.client.seal_providers import AsyncSealProviders
from holdfast.client.session import ClientState

T = TypeVar("T")


class AsyncClient:
    """A connection to a cluster for one event loop; close it, or use it in an `async with` block.

    config: by default from the environment (`ClientConfig.from_environment`).
    clock: monotonic seconds. sleep: waits that many seconds.

    Attributes: `kv`, `sys`, `raft`, `keys`, `seal_providers` and `logical`, as those of `Client`, to be awaited;
    `kv.list` is an asynchronous iterator. A cancelled call ends at once; a write that was cancelled may have taken
    effect.
    """

    def __init__(
        self,
        config: ClientConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._state = ClientState(ClientConfig.from_environment() if config is None else config)
        self._clock = clock
        self._sleep = sleep
        self._credentials = credentials(self._state.config)
        self._channels: dict[str, aio.Channel] = {}
        self._methods: dict[tuple[str, str], aio.UnaryUnaryMultiCallable[Any, Any]] = {}
        self._closed = False
        self.kv = AsyncKv(self._execute)
        self.sys = AsyncSys(self._execute)
        self.raft = AsyncRaft(self._execute)
        self.keys = AsyncKeys(self._execute)
        self.logical = AsyncLogical(self._execute)
        self.seal_providers = AsyncSealProviders(self._execute)

    def __repr__(self) -> str:
        return f"AsyncClient({', '.join(self._state.config.targets)})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    @property
    def token(self) -> str:
        """Sent with every call; may be set, for example to the root token that `sys.init` returns."""
        return self._state.token

    @token.setter
    def token(self, token: str) -> None:
        self._state.token = token

    async def close(self) -> None:
        """End all connections. A closed client makes no more calls."""
        self._closed = True
        channels = list(self._channels.values())
        self._channels.clear()
        self._methods.clear()
        for channel in channels:
            await channel.close()

    async def _execute(self, call: Call[T]) -> T:
        session = self._state.begin(call, self._clock())
        while True:
            attempt = session.attempt(self._clock())
            send = self._method(attempt.address, call)
            try:
                response = await send(
                    call.request, timeout=attempt.timeout_s, metadata=attempt.metadata, wait_for_ready=False
                )
            except aio.AioRpcError as problem:
                failure = problem
            else:
                session.succeeded()
                return call.convert(response)
            await self._sleep(session.failed(self._clock(), failure))

    def _method(self, address: str, call: Call[Any]) -> aio.UnaryUnaryMultiCallable[Any, Any]:
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        if address not in self._channels:
            config = self._state.config
            self._channels[address] = aio.secure_channel(address, self._credentials, options(config, address))
        key = (address, call.method)
        if key not in self._methods:
            self._methods[key] = self._channels[address].unary_unary(
                call.method,
                request_serializer=type(call.request).SerializeToString,
                response_deserializer=call.response.FromString,
            )
        return self._methods[key]
