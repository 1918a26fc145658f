"""Typed readers for the members of a request's data, as forgiving as Vault's: commands send numbers, booleans and lists
as strings. Every refusal is an InvalidArgument that names the member and never repeats its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from holdfast.proto.errors import InvalidArgument

INTEGER_MAX = 2**63 - 1
"""The largest integer that a reader accepts unless told otherwise."""

DURATION_S_MAX = 100 * 366 * 86_400
"""The longest duration, in seconds: about a century."""

_DECIMAL = re.compile(r"[0-9]{1,19}", re.ASCII)
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:ns|us|µs|ms|s|m|h|d))+", re.ASCII)
_DURATION_PART = re.compile(r"([0-9.]+)(ns|us|µs|ms|s|m|h|d)", re.ASCII)
_UNIT_S = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86_400),
}


def integer(
    data: Mapping[str, Any], name: str, *, minimum: int = 0, maximum: int = INTEGER_MAX, field: str = ""
) -> int | None:
    """An integer, or its decimal digits in a string; None when the member is absent or null.

    field: how a refusal names the member; `name` when empty."""
    value = data.get(name)
    return None if value is None else _integer(value, field or name, minimum, maximum)


def integers(
    data: Mapping[str, Any], name: str, *, minimum: int = 0, maximum: int = INTEGER_MAX, count_max: int = 1000
) -> list[int]:
    """A list of integers, one integer, or integers separated by commas; empty when the member is absent or null."""
    value = data.get(name)
    if value is None or value == "":
        return []
    if isinstance(value, str):
        items: list[Any] = [item.strip() for item in value.split(",", count_max)]
    else:
        items = value if isinstance(value, list) else [value]
    if len(items) > count_max:
        raise InvalidArgument(f"{name} holds over {count_max} numbers: send several requests", field=name)
    return [_integer(item, name, minimum, maximum) for item in items]


def boolean(data: Mapping[str, Any], name: str) -> bool | None:
    """A boolean, or "true" or "false" in a string; None when the member is absent or null."""
    value = data.get(name)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise InvalidArgument(f"{name} must be true or false", field=name)


def text(data: Mapping[str, Any], name: str, *, bytes_max: int = 1024) -> str:
    """A string; empty when the member is absent or null."""
    value = data.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidArgument(f"{name} must be a string", field=name)
    if len(value.encode(errors="surrogatepass")) > bytes_max:
        raise InvalidArgument(f"{name} is over {bytes_max} bytes long", field=name)
    return value


def texts(data: Mapping[str, Any], name: str, *, count_max: int = 1000) -> list[str]:
    """A list of strings, or strings separated by commas, each once; empty when the member is absent or null."""
    value = data.get(name)
    if value is None or value == "":
        return []
    items = [item.strip() for item in value.split(",", count_max)] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise InvalidArgument(f"{name} must be a list of strings", field=name)
    if len(items) > count_max:
        raise InvalidArgument(f"{name} holds over {count_max} strings", field=name)
    return [item for item in dict.fromkeys(items) if item]


def mapping(data: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """A JSON object; None when the member is absent or null."""
    value = data.get(name)
    if value is None or isinstance(value, dict):
        return value
    raise InvalidArgument(f"{name} must be a JSON object", field=name)


def duration_s(data: Mapping[str, Any], name: str) -> int | None:
    """A duration in whole seconds: a number of seconds, or Go's form such as "3h25m19s" (also "30d"); fractions of a
    second are cut off. None when the member is absent or null."""
    value = data.get(name)
    if value is None:
        return None
    if isinstance(value, str) and _DURATION.fullmatch(value):
        parts = _DURATION_PART.findall(value)
        seconds = int(sum((Decimal(number) * _UNIT_S[unit] for number, unit in parts), Decimal(0)))
    elif (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and _DECIMAL.fullmatch(value)
    ):
        seconds = int(value)
    else:
        raise InvalidArgument(f'{name} must be a duration, such as "3h25m19s" or a number of seconds', field=name)
    if not 0 <= seconds <= DURATION_S_MAX:
        raise InvalidArgument(f"{name} must be a duration of 0 to {DURATION_S_MAX} seconds", field=name)
    return seconds


def _integer(value: object, name: str, minimum: int, maximum: int) -> int:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{name} must be an integer", field=name)
    if not minimum <= value <= maximum:
        raise InvalidArgument(f"{name} must be {minimum} to {maximum}", field=name)
    return value
