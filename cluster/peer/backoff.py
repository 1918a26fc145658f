"""How long to wait before dialling again. Pure: randomness is passed in."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Doubles from `minimum_s` to `maximum_s`; jitter spreads each delay over its upper half."""

    def __init__(self, *, minimum_s: float, maximum_s: float, jitter: Callable[[], float]) -> None:
        """`jitter` gives numbers in [0, 1)."""
        self._minimum_s = minimum_s
        self._maximum_s = maximum_s
        self._jitter = jitter
        self._next_s = minimum_s

    def next_s(self) -> float:
        """The next delay, in seconds."""
        delay_s = self._next_s
        self._next_s = min(delay_s * 2, self._maximum_s)
        return delay_s * (0.5 + 0.5 * self._jitter())

    def reset(self) -> None:
        """The peer answered: begin with the shortest delay next time."""
        self._next_s = self._minimum_s
