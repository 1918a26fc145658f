"""Durations as people write them: `90`, `90s`, `500ms`, `1h30m`. One parser for settings and command options."""

from __future__ import annotations

import re
from datetime import timedelta

from holdfast.client.failures import LocalError

_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d)")


def parse_duration(text: str, *, field: str) -> timedelta:
    """The duration that `text` says. A number without a unit means seconds.

    Raises LocalError, naming `field`, for anything else, negative durations included.
    """
    stripped = text.strip()
    if re.fullmatch(r"\d{1,12}(?:\.\d{1,6})?", stripped):
        stripped += "s"
    if not re.fullmatch(rf"(?:{_PART.pattern})+", stripped):
        raise LocalError(f"{field}: {text!r} is not a duration; write for example 30s, 1h30m or 500ms.", field=field)
    milliseconds = sum(float(number) * _UNITS_MS[unit] for number, unit in _PART.findall(stripped))
    try:
        return timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise LocalError(f"{field}: {text!r} is too long a duration.", field=field) from None


def format_duration(duration: timedelta) -> str:
    """The shortest spelling in whole units that `parse_duration` reads back, e.g. `1h30m`; `0s` for none."""
    rest = round(duration.total_seconds() * 1000)
    parts = []
    for unit in ("h", "m", "s", "ms"):
        count, rest = divmod(rest, _UNITS_MS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
