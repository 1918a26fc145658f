"""JSON values as engines store them: exactly as they came, or refused with the field named.

Strings, booleans, null, finite numbers and integers of up to 4,300 digits (what Python itself reads back) survive the
round trip bit for bit. No message repeats a name or a value: both may be secret.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from holdfast.core.request import DATA_BYTES_MAX
from holdfast.proto.errors import InvalidArgument

DEPTH_MAX = 100
"""How deep objects and arrays may be nested."""

_INTEGER_LIMIT = 10**4300

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def encode(value: object, *, field: str, bytes_max: int = DATA_BYTES_MAX, depth_max: int = DEPTH_MAX) -> bytes:
    """The value as UTF-8 JSON without spaces, members in their order. Raises InvalidArgument naming `field`."""
    check(value, field=field, depth_max=depth_max)
    # Not by catching the encoder's error: that one would carry the whole text along as its context.
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if _LONE_SURROGATE.search(text):
        raise InvalidArgument("a string is not valid Unicode (a lone surrogate): correct it", field=field)
    encoded = text.encode()
    if len(encoded) > bytes_max:
        raise InvalidArgument(
            f"the data has {len(encoded)} bytes of JSON: at most {bytes_max} are allowed; split it", field=field
        )
    return encoded


def decode(encoded: bytes) -> Any:
    """The value that `encode` was given. Raises ValueError when it was not made by `encode`."""
    return json.loads(encoded)


def check(value: object, *, field: str, depth_max: int = DEPTH_MAX) -> None:
    """Raise InvalidArgument naming `field` when a value is not JSON, or not JSON that can be kept exactly."""
    level: list[object] = [value]
    depth = 0
    while level:
        if depth > depth_max:
            raise InvalidArgument(f"the data is nested more than {depth_max} levels deep: flatten it", field=field)
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                if not all(isinstance(name, str) for name in item):
                    raise InvalidArgument("an object has a name that is not a string: JSON has no other", field=field)
                below.extend(item.values())
            elif isinstance(item, list | tuple):
                below.extend(item)
            else:
                _check_scalar(item, field)
        level = below
        depth += 1


def _check_scalar(value: object, field: str) -> None:
    if value is None or isinstance(value, str | bool):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidArgument("the data has NaN or an infinity, which JSON has not: send a string", field=field)
    elif isinstance(value, int):
        if not -_INTEGER_LIMIT < value < _INTEGER_LIMIT:
            raise InvalidArgument("the data has an integer of over 4,300 digits: send a string", field=field)
    else:
        raise InvalidArgument("the data has a value that JSON has no form for: send a string", field=field)
