"""How long a request may still take, by the event loop's monotonic clock."""

from __future__ import annotations

import asyncio
import math

from holdfast.proto.errors import InvalidArgument, Unavailable

TIMEOUT_S_MAX = 90.0
"""The longest that a request may take, in seconds; a longer timeout is cut to it."""


class Deadline:
    """A moment on the loop's clock. `sent`: whether a proposal is out whose outcome is not known yet."""

    __slots__ = ("at", "sent")

    def __init__(self, timeout_s: float) -> None:
        """Raises InvalidArgument when `timeout_s` is not above 0."""
        if math.isnan(timeout_s) or timeout_s <= 0:
            raise InvalidArgument("the timeout must be above 0 seconds", field="timeout")
        self.at = asyncio.get_running_loop().time() + min(timeout_s, TIMEOUT_S_MAX)
        self.sent = False

    def remaining_s(self) -> float:
        """Seconds left, above 0. Raises Unavailable when there are none."""
        remaining = self.at - asyncio.get_running_loop().time()
        if remaining <= 0:
            raise Unavailable("the deadline passed before anything was changed: try again, or allow more time")
        return remaining
