"""What happened in a simulated world: the last events for whoever reads a failure, counts of everything, and a hash by
which two runs of one seed can be compared.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable

from holdfast.cluster.raft import messages
from holdfast.cluster.raft.messages import Append

KEPT_MAX = 20_000
"""How many events a trace remembers."""


class Trace:
    """Events in the order of their virtual time. Text is made only when somebody asks for it.

    hashed: keep `digest` up to date, which costs time.
    """

    def __init__(self, clock: Callable[[], float], *, hashed: bool = False) -> None:
        self._clock = clock
        self._events: deque[tuple[float, str, str, bytes | None]] = deque(maxlen=KEPT_MAX)
        self._hash = hashlib.blake2b(digest_size=16) if hashed else None
        self.counts: Counter[str] = Counter()

    def note(self, node_id: str, what: str, payload: bytes | None = None) -> None:
        """An event at a node ("" for the world itself). payload: the Raft message that it is about."""
        event = (self._clock(), node_id, what, payload)
        self._events.append(event)
        if self._hash is not None:
            self._hash.update(repr(event).encode())

    def count(self, what: str, node_id: str = "", detail: str = "") -> None:
        """A fault, or an event worth counting; it is noted, too."""
        self.counts[what] += 1
        self.note(node_id, f"{what} {detail}".rstrip())

    @property
    def digest(self) -> str:
        """Over every event so far."""
        assert self._hash is not None, "this trace is not hashed"
        return self._hash.hexdigest()

    def lines(self, last: int) -> list[str]:
        """The last events, one line each: virtual time, node, event."""
        events = list(self._events)[-last:]
        return [
            f"{now_s:10.4f}  {node_id or '-':1}  {what}{_told(payload)}" for now_s, node_id, what, payload in events
        ]


def _told(payload: bytes | None) -> str:
    if payload is None:
        return ""
    message = messages.decode(payload)
    if isinstance(message, Append):
        entries = message.entries
        told = f"{entries[0].index}..{entries[-1].index}" if entries else "-"
        return (
            f"Append term={message.term} prev={message.prev_index}/{message.prev_term} entries={told} "
            f"commit={message.commit} stamp={message.stamp} age_ms={message.quorum_age_ms}"
        )
    fields = []
    for name in type(message).__struct_fields__:
        value = getattr(message, name)
        if isinstance(value, bytes):
            fields.append(f"{name}={len(value)}B")
        elif not isinstance(value, tuple):
            fields.append(f"{name}={value}")
    return f"{type(message).__name__} {' '.join(fields)}"
