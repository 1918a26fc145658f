"""Times and durations as Vault writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC with nine fractional digits: "2026-03-22T02:24:06.945319000Z". Needs an aware datetime."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    utc = moment.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond:06d}000Z"


def go_duration(seconds: int) -> str:
    """Whole seconds in Go's form: "0s", "10s", "1m0s", "3h25m19s"."""
    if seconds < 0:
        raise ValueError("a duration is not negative")
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minute}m{second}s"
    return f"{minute}m{second}s" if minute else f"{second}s"
