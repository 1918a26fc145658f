"""The part of a client that the sync and the asyncio one share: its identity, its token, its nodes, and one call's
attempts. No I/O: attempts are described here and made by the drivers.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from holdfast.client.calls.call import Call
from holdfast.client.config import ClientConfig, checked_token
from holdfast.client.failures import RpcFailure, translate
from holdfast.client.retry import Effect, RetryPolicy, RetrySession
from holdfast.proto.errors import HoldfastError

CLIENT_ID_BYTES = 16

_uniform = secrets.SystemRandom().uniform


@dataclass(frozen=True)
class Attempt:
    """What a driver does next: send to `address`, give up after `timeout_s` seconds. `metadata` holds the token."""

    address: str
    timeout_s: float
    metadata: tuple[tuple[str, str], ...] = field(repr=False)


class RequestIds:
    """Names writes: 16 random bytes for this client, and a count. Safe to share between threads.

    A forked child draws a new identity. With its parent's it would name other writes the same, and the cluster would
    take those for repetitions and not carry them out.
    """

    def __init__(self, random_bytes: Callable[[int], bytes], process_id: Callable[[], int]) -> None:
        self._random_bytes = random_bytes
        self._process_id = process_id
        self._lock = threading.Lock()
        self._owner = process_id()
        self._client = random_bytes(CLIENT_ID_BYTES).hex()
        self._sequence = 0

    def next(self) -> str:
        """A name never used before: 32 hex digits, "-", the sequence from 1."""
        with self._lock:
            if self._owner != self._process_id():
                self._owner = self._process_id()
                self._client = self._random_bytes(CLIENT_ID_BYTES).hex()
                self._sequence = 0
            self._sequence += 1
            return f"{self._client}-{self._sequence}"


class ClientState:
    """A client's memory between calls. Safe to share between threads.

    uniform: a number between two bounds, all equally likely; spreads the waits of many clients.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        uniform: Callable[[float, float], float] = _uniform,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        process_id: Callable[[], int] = os.getpid,
    ) -> None:
        self.config = config
        self._token = config.token
        self._uniform = uniform
        self._request_ids = RequestIds(random_bytes, process_id)
        self._policy = RetryPolicy(max_retries=config.max_retries, attempt_timeout_s=config.attempt_timeout_s)
        self._last_good = 0

    def __repr__(self) -> str:
        return f"ClientState({self.config!r})"

    @property
    def token(self) -> str:
        """Sent with every call from now on; empty for none."""
        return self._token

    @token.setter
    def token(self, token: str) -> None:
        self._token = checked_token(token) if token else ""

    def begin(self, call: Call[Any], now: float) -> CallSession:
        """The attempts of one call, begun at the monotonic time `now` (seconds)."""
        targets = self.config.targets
        first = self._last_good
        addresses = targets[:1] if call.pinned else targets[first:] + targets[:first]
        retries = RetrySession(
            self._policy, addresses, call.effect, now=now, timeout_s=self.config.timeout_s, uniform=self._uniform
        )
        return CallSession(self, call, retries, self._request_ids.next() if call.effect is Effect.WRITE else "")

    def remember(self, address: str) -> None:
        """`address` served a call, so the next one begins there."""
        self._last_good = self.config.targets.index(address)


class CallSession:
    """One call's attempts. Take an `attempt`; say that it `succeeded`, or how it `failed`, and wait what that says."""

    def __init__(self, state: ClientState, call: Call[Any], retries: RetrySession, request_id: str) -> None:
        self._state = state
        self._call = call
        self._retries = retries
        self._request_id = request_id
        self._address = ""
        self._asked: dict[str, None] = {}

    def attempt(self, now: float) -> Attempt:
        """What to send now."""
        slot = self._retries.slot(now)
        self._address = slot.address
        self._asked[slot.address] = None
        metadata = []
        if self._state.token:
            metadata.append(("x-holdfast-token", self._state.token))
        if self._request_id:
            metadata.append(("x-holdfast-request-id", self._request_id))
            metadata.append(("x-holdfast-request-age-ms", str(slot.age_ms)))
        if self._call.stale:
            metadata.append(("x-holdfast-consistency", "stale"))
        return Attempt(slot.address, slot.timeout_s, tuple(metadata))

    def failed(self, now: float, failure: RpcFailure) -> float:
        """How many seconds to wait before the next attempt. Raises the call's error when there is to be none; its
        `details["asked"]` names the nodes that were asked, in order."""
        try:
            return self._retries.failed(now, translate(failure, self._address))
        except HoldfastError as error:
            error.details["asked"] = ", ".join(self._asked)
            raise

    def succeeded(self) -> None:
        """The attempt was answered."""
        if not self._call.pinned:
            self._state.remember(self._address)
