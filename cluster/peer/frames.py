"""Frames on a session: a 4-byte big-endian length, then that many bytes. Pure: bytes in, bytes out, no sockets."""

from __future__ import annotations

import struct
from collections.abc import Iterator

RAFT_FRAME_BYTES_MAX = 64 * 1024 * 1024
"""The longest payload of a frame on a Raft session, in bytes."""

CALL_FRAME_BYTES_MAX = 4 * 1024 * 1024
"""The longest payload of a frame on a call session, in bytes: a call or a reply with its envelope."""

_HEADER = struct.Struct(">I")


class FrameTooLarge(ValueError):
    """A frame is longer than its session allows. Whoever sent it does not speak this protocol: close the session."""


def encode_header(length: int, *, limit: int) -> bytes:
    """The 4 bytes before a payload of `length` bytes. Raises FrameTooLarge over `limit`."""
    if length > limit:
        raise FrameTooLarge(f"a frame of {length} bytes is over the limit of {limit}")
    return _HEADER.pack(length)


def encode(payload: bytes, *, limit: int) -> bytes:
    """A payload as a frame. Raises FrameTooLarge over `limit`."""
    return encode_header(len(payload), limit=limit) + payload


class FrameDecoder:
    """Finds the frames in a stream, however the network split it. Holds at most one unfinished frame."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, *, limit: int) -> None:
        """`limit`: the longest payload accepted, in bytes."""
        self._buffer = bytearray()
        self._limit = limit

    @property
    def buffered(self) -> int:
        """Bytes held of frames that were not given out yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the stream's next bytes (at once) and give out the frames that are now complete, in order.

        The iterator raises FrameTooLarge at a header over the limit, after the frames before it; nothing may be fed
        after that. A caller that stops early and feeds more is given the remaining frames first.
        """
        self._buffer += data
        return self._frames()

    def _frames(self) -> Iterator[bytes]:
        buffer = self._buffer
        position = 0
        try:
            while len(buffer) - position >= _HEADER.size:
                (length,) = _HEADER.unpack_from(buffer, position)
                if length > self._limit:
                    raise FrameTooLarge(f"a frame of {length} bytes is over the limit of {self._limit}")
                start = position + _HEADER.size
                if len(buffer) - start < length:
                    break
                position = start + length
                yield bytes(memoryview(buffer)[start:position])
        finally:
            del buffer[:position]
