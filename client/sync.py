"""The blocking client. What it offers is in `api.py`, what it knows in `calls/` and `session.py`; this sends and waits.

with Client() as client:  # settings from HOLDFAST_ADDR, HOLDFAST_TOKEN, HOLDFAST_CACERT ...
    client.kv.put("myapp/db", {"username": "admin"})
    print(client.kv.get("myapp/db").data)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Self, TypeVar, cast

import grpc

from holdfast.client.api import Kv, Logical, Raft, Sys
from holdfast.client.api_keys import Keys
from holdfast.client.calls.call import Call
from holdfast.client.channels import credentials, options
from holdfast.client.config import ClientConfig
from holdfast.client.failures import RpcFailure
from holdfast.client.seal_providers import SealProviders
from holdfast.client.session import ClientState
from holdfast.client.snapshots import Snapshots

T = TypeVar("T")


class Client:
    """A connection to a cluster. Safe to share between threads; close it, or use it in a `with` block.

    config: by default from the environment (`ClientConfig.from_environment`).
    clock: monotonic seconds. sleep: waits that many seconds.

    Attributes: `kv` (versioned secrets), `sys` (seal and health), `raft` (members), `keys` (rekey, rotation, root
    tokens), `seal_providers`, `logical` (any engine by path), `snapshots` (the whole state as a file; of the blocking
    client alone).
    Raises LocalError when a setting or a file that it names is wrong. Nothing is sent before the first call.
    """

    def __init__(
        self,
        config: ClientConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._state = ClientState(ClientConfig.from_environment() if config is None else config)
        self._clock = clock
        self._sleep = sleep
        self._credentials = credentials(self._state.config)
        self._lock = threading.Lock()
        self._channels: dict[str, grpc.Channel] = {}
        self._methods: dict[tuple[str, str], grpc.UnaryUnaryMultiCallable[Any, Any]] = {}
        self._closed = False
        self.kv = Kv(self._execute)
        self.sys = Sys(self._execute)
        self.raft = Raft(self._execute)
        self.keys = Keys(self._execute)
        self.logical = Logical(self._execute)
        self.snapshots = Snapshots(self._execute, self._state, self._channel, clock=clock, sleep=sleep)
        self.seal_providers = SealProviders(self._execute)

    def __repr__(self) -> str:
        return f"Client({', '.join(self._state.config.targets)})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def token(self) -> str:
        """Sent with every call; may be set, for example to the root token that `sys.init` returns."""
        return self._state.token

    @token.setter
    def token(self, token: str) -> None:
        self._state.token = token

    def close(self) -> None:
        """End all connections; calls under way fail with Unavailable. A closed client makes no more calls."""
        with self._lock:
            self._closed = True
            channels = list(self._channels.values())
            self._channels.clear()
            self._methods.clear()
        for channel in channels:
            channel.close()

    def _execute(self, call: Call[T]) -> T:
        session = self._state.begin(call, self._clock())
        while True:
            attempt = session.attempt(self._clock())
            send = self._method(attempt.address, call)
            try:
                response = send(
                    call.request, timeout=attempt.timeout_s, metadata=attempt.metadata, wait_for_ready=False
                )
            except grpc.RpcError as problem:
                failure = cast("RpcFailure", problem)
            else:
                session.succeeded()
                return call.convert(response)
            self._sleep(session.failed(self._clock(), failure))

    def _method(self, address: str, call: Call[Any]) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
        key = (address, call.method)
        with self._lock:
            channel = self._connect(address)
            if key not in self._methods:
                self._methods[key] = channel.unary_unary(
                    call.method,
                    request_serializer=type(call.request).SerializeToString,
                    response_deserializer=call.response.FromString,
                )
            return self._methods[key]

    def _channel(self, address: str) -> grpc.Channel:
        with self._lock:
            return self._connect(address)

    def _connect(self, address: str) -> grpc.Channel:
        """The connection to an address. The caller holds the lock."""
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        if address not in self._channels:
            config = self._state.config
            self._channels[address] = grpc.secure_channel(address, self._credentials, options(config, address))
        return self._channels[address]
