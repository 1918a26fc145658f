"""JSON objects as bytes on the wire and as dicts in the house, exactly.

The standard library's codec is used because it keeps integers of any size (orjson and msgpack stop at 64 bits).
What could not come back as it was given is refused: duplicate members, NaN and Infinity, numbers beyond a double's
range, lone surrogates. Decimal fractions are doubles (RFC 8259, section 6).
"""

from __future__ import annotations

import itertools
import json
import math
import re
from typing import Any

from holdfast.core.request import DATA_BYTES_MAX
from holdfast.proto.errors import InvalidArgument
from holdfast.server.limits import JSON_DEPTH_MAX

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in _STEPS)


def parse_object(data: bytes, *, field: str = "data", empty_ok: bool = False) -> dict[str, Any]:
    """A JSON object from UTF-8 bytes, at most 1 MiB and 100 levels deep.

    empty_ok: no bytes at all mean an empty object. Raises InvalidArgument naming `field`, never quoting the data.
    """
    if not data and empty_ok:
        return {}
    if len(data) > DATA_BYTES_MAX:
        raise InvalidArgument(f"{field} has {len(data)} bytes; at most {DATA_BYTES_MAX} are allowed", field=field)
    if data.count(b"[") + data.count(b"{") > JSON_DEPTH_MAX and _depth(data) > JSON_DEPTH_MAX:
        raise InvalidArgument(f"{field} is nested more than {JSON_DEPTH_MAX} levels deep", field=field)
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_members, parse_float=_double, parse_constant=_no_constant
        )
        if b"\\ud" in data.lower():
            encode_object(value)
    except _Refused as error:
        raise InvalidArgument(f"{field}: {error}", field=field) from None
    except json.JSONDecodeError as error:
        # `error` carries the document, so neither it nor its text may travel on.
        raise InvalidArgument(
            f"{field} must be a JSON object in UTF-8: {error.msg} at character {error.pos}", field=field
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{field} must be a JSON object in UTF-8: bad byte {error.start}", field=field) from None
    except UnicodeEncodeError:
        raise InvalidArgument(f"{field} holds half of a UTF-16 surrogate pair", field=field) from None
    except ValueError:  # Python's guard against quadratic parsing of very long integers
        raise InvalidArgument(f"{field} holds an integer of more than 4,300 digits", field=field) from None
    if not isinstance(value, dict):
        raise InvalidArgument(f'{field} must be a JSON object, such as {{"username": "admin"}}', field=field)
    return value


def encode_object(value: dict[str, Any]) -> bytes:
    """The compact UTF-8 form of a JSON object."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")


class _Refused(Exception):
    """Valid JSON that would not survive a round trip."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Refused("a member is given twice in one object")
    return members


def _double(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused("a number is beyond the range of a double")
    return value


def _no_constant(name: str) -> Any:
    raise _Refused(f"{name} is not JSON")


def _depth(data: bytes) -> int:
    """The deepest nesting of brackets outside strings; for malformed JSON an upper bound is good enough."""
    brackets = _STRING.sub(b"", data).translate(None, delete=_NO_BRACKETS)
    return max(itertools.accumulate(map(_STEPS.__getitem__, brackets)), default=0)


def parse_forwarded(data: bytes) -> dict[str, Any]:
    """A JSON object that another member encoded with `encode_object`, so that it needs no second check."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise InvalidArgument("a forwarded object has an unknown form; do the nodes run one version?")
    return value
