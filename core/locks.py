"""Locks by name: requests that change one object wait for each other instead of conflicting.

Fair (first come, first served) and bounded. Advice only: what keeps writes apart is their preconditions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from holdfast.proto.errors import Overloaded


class KeyedLocks:
    """waiters_max: how many may wait for one name. total_max: how many may hold and wait, over all names."""

    def __init__(self, *, waiters_max: int, total_max: int) -> None:
        self._waiters_max = waiters_max
        self._total_max = total_max
        self._total = 0
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Wait for the lock and hold it. Raises Overloaded at once when too many wait already."""
        lock, users = self._locks.get(name) or (asyncio.Lock(), 0)
        if users > self._waiters_max:
            raise Overloaded("too many requests wait for this object: spread the writes or back off")
        if self._total >= self._total_max:
            raise Overloaded("too many writes are under way on this node: back off")
        self._locks[name] = (lock, users + 1)
        self._total += 1
        try:
            async with lock:
                yield
        finally:
            self._total -= 1
            _, users = self._locks[name]
            if users == 1:
                del self._locks[name]
            else:
                self._locks[name] = (lock, users - 1)

    def __len__(self) -> int:
        """How many names are held or waited for."""
        return len(self._locks)
