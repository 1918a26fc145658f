"""Durations in node.yaml: a number of seconds, or text such as `15s`, `500ms` and `1m30s`."""

from __future__ import annotations

import re

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def seconds(value: str | float) -> float:
    """The seconds that `value` says; a bare number means seconds. Raises ValueError for what is not a duration."""
    if not isinstance(value, str):
        try:
            return float(value)
        except OverflowError:
            raise ValueError("too long a duration") from None
    if re.fullmatch(r"\d{1,12}(?:\.\d{1,6})?", value):
        return float(value)
    if not _WHOLE.fullmatch(value):
        raise ValueError(f"'{value}' is not a duration; write for example 15s, 500ms or 1m30s")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(value))
