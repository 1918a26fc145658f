"""What the peer network counts, for metrics, and how it logs without flooding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog.typing

_KEYS_MAX = 1024


@dataclass(frozen=True, kw_only=True)
class PeerStats:
    """A snapshot. Bytes are of frames, without TLS. Causes are a small fixed set of words, fit for a metric's label.

    sessions_outgoing, sessions_incoming: live now; Raft and call sessions together.
    handshakes: connections now that are not authenticated yet.
    refusals: incoming connections that did not become sessions, by cause.
    dial_failures: dials that did not become sessions, by cause.
    closed: sessions that ended, by cause.
    certificate_not_after_s: when this node's certificate ends, in seconds since the epoch.
    """

    sessions_outgoing: int
    sessions_incoming: int
    handshakes: int
    bytes_sent: int
    bytes_received: int
    messages_sent: int
    messages_received: int
    calls_sent: int
    calls_served: int
    calls_in_flight: int
    calls_being_served: int
    refusals: Mapping[str, int]
    dial_failures: Mapping[str, int]
    closed: Mapping[str, int]
    certificate_not_after_s: float


@dataclass
class Counters:
    """The running totals behind PeerStats; one for each network, changed on the event-loop thread only."""

    bytes_sent: int = 0
    bytes_received: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    calls_sent: int = 0
    calls_served: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    dial_failures: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)


class QuietLog:
    """Warnings that a stranger or a dead peer can cause at will: one line per kind and cause in each interval, with the
    number of those left out since the last."""

    def __init__(
        self, log: structlog.typing.FilteringBoundLogger, *, clock: Callable[[], float], interval_s: float
    ) -> None:
        self._log = log
        self._clock = clock
        self._interval_s = interval_s
        self._last: dict[tuple[str, str], tuple[float, int]] = {}

    def warning(self, event: str, *, cause: str, about: str = "", **fields: Any) -> None:
        """Log, unless the same `event`, `cause` and `about` (a node id) were logged less than an interval ago."""
        key = (event, f"{cause}/{about}")
        now = self._clock()
        last, left_out = self._last.get(key, (now - self._interval_s, 0))
        if now - last < self._interval_s:
            self._last[key] = (last, left_out + 1)
            return
        if len(self._last) >= _KEYS_MAX:
            self._last.clear()
        self._last[key] = (now, 0)
        if about:
            fields["peer"] = about
        self._log.warning(event, cause=cause, left_out=left_out, **fields)
