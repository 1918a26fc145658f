"""The shape of one call, and the conversions between the wire's types and Python's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.client.failures import LocalError
from holdfast.client.retry import Effect
from holdfast.proto.errors import HoldfastError

T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """One operation, ready to be sent.

    method: the full gRPC method. response: the class of the answer. convert: from an answer to the caller's result.
    pinned: the call concerns the node it is sent to, so that it goes to the first address and to no other.
    stale: the answer may lag behind the last write.
    """

    method: str
    request: Message = field(repr=False)
    response: type[Message]
    convert: Callable[[Any], T] = field(repr=False)
    effect: Effect
    pinned: bool = False
    stale: bool = False


def encode_object(data: object, *, name: str = "data") -> bytes:
    """A JSON object in UTF-8. Raises LocalError, without showing the data, for what JSON cannot say."""
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise LocalError(f"{name} must be a mapping with strings as keys.", field=name)
    try:
        return json.dumps(dict(data), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError):
        problem = "it holds something JSON has no form for: bytes, NaN, a cycle, a set, text that is not valid Unicode"
    raise LocalError(f"{name} cannot be sent as JSON: {problem}, or the like.", field=name)


def decode_object(data: bytes) -> dict[str, Any] | None:
    """The object that an answer holds; None for no bytes. Raises HoldfastError for anything that is not an object."""
    if not data:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise HoldfastError("the answer holds data that is not a JSON object; the node speaks another language.")
    return value


def moment(message: Any, name: str) -> datetime | None:
    """A timestamp field as an aware UTC datetime; None when it is unset."""
    if not message.HasField(name):
        return None
    stamp: Timestamp = getattr(message, name)
    return stamp.ToDatetime(tzinfo=UTC)


def counted(value: object, *, name: str, bits: int = 64) -> int | None:
    """`value`, when it fits the wire's unsigned field of `bits` bits. Raises LocalError otherwise."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**bits:
        raise LocalError(f"{name} must be a whole number from 0 to {2**bits - 1}.", field=name)
    return value


def text(value: object, *, name: str) -> str:
    """`value`, when it is text that the wire can carry. Raises LocalError, without showing it, otherwise."""
    if not isinstance(value, str):
        raise LocalError(f"{name} must be a string.", field=name)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise LocalError(f"{name} is not valid UTF-8.", field=name) from None
    return value
