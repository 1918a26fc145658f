"""What call sessions carry: msgpack arrays, decoded by msgspec into these structs and nothing else."""

from __future__ import annotations

from typing import Annotated

import msgspec

from holdfast.proto.errors import HoldfastError, from_wire

CallId = Annotated[int, msgspec.Meta(ge=1, le=2**62)]
Milliseconds = Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
NAME_LENGTH_MAX = 100


class Call(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A request. `timeout_ms` is what is left of the caller's time."""

    id: CallId
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH_MAX)]
    timeout_ms: Milliseconds
    payload: bytes


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The caller no longer waits for this call."""

    id: CallId


class Reply(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The handler's answer."""

    id: CallId
    payload: bytes


class Failure(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The error the handler raised, by its reason in the one error tree."""

    id: CallId
    reason: str
    message: str
    field: str
    retry_after_ms: int | None
    details: dict[str, str]

    @classmethod
    def of(cls, call_id: int, error: HoldfastError) -> Failure:
        """`error` as it travels."""
        return cls(call_id, error.reason, error.message, error.field, error.retry_after_ms, error.details)

    def error(self) -> HoldfastError:
        """The error as its caller sees it."""
        return from_wire(
            self.reason, self.message, field=self.field, retry_after_ms=self.retry_after_ms, details=self.details
        )


_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Call | Cancel] = msgspec.msgpack.Decoder(Call | Cancel)
_answers: msgspec.msgpack.Decoder[Reply | Failure] = msgspec.msgpack.Decoder(Reply | Failure)


def encode_message(message: Call | Cancel | Reply | Failure) -> bytes:
    """A message as a frame's payload."""
    return _encoder.encode(message)


def decode_request(payload: bytes) -> Call | Cancel:
    """What a caller sent. Raises ValueError when it is neither."""
    return _requests.decode(payload)


def decode_answer(payload: bytes) -> Reply | Failure:
    """What a serving node sent. Raises ValueError when it is neither."""
    return _answers.decode(payload)
