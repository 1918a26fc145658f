"""What a session has yet to send: a bounded byte queue that knows which of its bytes have left. Pure."""

from __future__ import annotations

from collections import deque


class Outbox:
    """Frames in, chunks out. Positions count bytes since the session began."""

    __slots__ = ("_limit", "_pieces", "size", "taken")

    def __init__(self, *, limit: int) -> None:
        """`limit`: bytes that may wait. An empty outbox takes one frame of any length."""
        self._limit = limit
        self._pieces: deque[bytes | memoryview] = deque()
        self.size = 0
        self.taken = 0

    @property
    def end(self) -> int:
        """The position at which the next piece will begin."""
        return self.taken + self.size

    def fits(self, length: int) -> bool:
        """Whether `length` more bytes may wait."""
        return self.size == 0 or self.size + length <= self._limit

    def append(self, piece: bytes) -> None:
        """Queue a piece."""
        self._pieces.append(piece)
        self.size += len(piece)

    def take(self, length_max: int) -> bytes:
        """Remove and return the next bytes, at most `length_max`."""
        chosen: list[bytes | memoryview] = []
        room = length_max
        while self._pieces and room:
            piece = self._pieces[0]
            if len(piece) <= room:
                chosen.append(self._pieces.popleft())
                room -= len(piece)
            else:
                view = memoryview(piece)
                chosen.append(view[:room])
                self._pieces[0] = view[room:]
                room = 0
        chunk = b"".join(chosen)
        self.size -= len(chunk)
        self.taken += len(chunk)
        assert self.size >= 0
        return chunk

    def clear(self) -> None:
        """Forget what waits, without counting it as taken."""
        self._pieces.clear()
        self.size = 0
