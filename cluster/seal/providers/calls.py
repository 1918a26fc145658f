"""Blocking work under a deadline: one thread for each provider, one call of it at a time, and a call that hangs is left
behind.

The threads are daemons and not of a pool: the interpreter waits for a pool's threads when it ends, and a provider that
hangs must not keep a node from stopping. A hanging call keeps its provider's place, so that there are never more
threads than providers.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from holdfast.cluster.seal.providers.contract import CALL_TIMEOUT_S, Health, ProviderError

T = TypeVar("T")


class BlockingCalls:
    """Runs the calls of providers, which are known by name. All methods are called from the event-loop thread."""

    def __init__(self, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._places: dict[str, asyncio.Semaphore] = {}

    async def run(self, name: str, work: Callable[[], T]) -> T:
        """What `work` returns, done in a thread. Raises ProviderError: what it raised, or TIMEOUT."""
        place = self._places.setdefault(name, asyncio.Semaphore(1))
        try:
            async with asyncio.timeout(self._timeout_s):
                await place.acquire()
                return await self._start(name, place, work)
        except TimeoutError:
            raise ProviderError(
                Health.TIMEOUT, f"it did not answer within {self._timeout_s:g} s; see that it is up and can be reached"
            ) from None

    def forget(self, name: str) -> None:
        """Give up the place of a provider that is no more."""
        self._places.pop(name, None)

    def _start(self, name: str, place: asyncio.Semaphore, work: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def ended(error: ProviderError | None, result: T | None) -> None:
            place.release()
            if future.done():
                return  # nobody waits any more
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # T may be None

        def body() -> None:
            error: ProviderError | None = None
            result: T | None = None
            try:
                result = work()
            except ProviderError as raised:
                error = raised
            except Exception as raised:  # noqa: BLE001 - a provider's library may raise anything, and never ends a node
                error = ProviderError(
                    Health.FAILED, f"it failed in a way that is not foreseen ({type(raised).__name__})"
                )
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the node with it
                loop.call_soon_threadsafe(ended, error, result)

        try:
            threading.Thread(target=body, name=f"seal provider {name}", daemon=True).start()
        except RuntimeError:
            place.release()
            raise ProviderError(Health.FAILED, "this machine has no thread left to ask it with") from None
        return future
