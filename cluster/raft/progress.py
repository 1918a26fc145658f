"""What a leader knows of one follower's log (the Progress of etcd's raft).

PROBE: the match point is not known; one empty AppendEntries at a time looks for it.
PIPELINE: it is known; entries are sent ahead of the acknowledgements, inside a window.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field


class Mode(enum.Enum):
    """How entries are sent."""

    PROBE = "probe"
    PIPELINE = "pipeline"


@dataclass
class Progress:
    """One follower, as its leader sees it in this term.

    match: the highest index known to be durable there and equal to the leader's log. Never falls.
    next: the next index to send; always above match.
    stamp: the latest round it has echoed. contact_s: the leader's clock when that round was sent.
    lost_entries: it has answered that it misses entries which it had acknowledged: its disk was replaced.
    needs_snapshot: it needs entries that the leader has trimmed.
    round_end, round_began_s: of a learner's round of catching up (Raft thesis 4.2.1): the leader's commit index at the
        beginning, and when that was; None before the first.
    """

    next: int
    match: int = 0
    mode: Mode = Mode.PROBE
    stamp: int = 0
    contact_s: float = float("-inf")
    eligible: bool = False
    connected: bool = False
    lost_entries: bool = False
    needs_snapshot: bool = False
    round_end: int | None = None
    round_began_s: float = 0.0
    _match_stamp: int = 0
    _in_flight: deque[tuple[int, int]] = field(default_factory=deque)
    _in_flight_bytes: int = 0

    def has_room(self, *, window_bytes: int, window_messages: int) -> bool:
        """Whether entries may be sent now."""
        return (
            self.mode is Mode.PIPELINE
            and self._in_flight_bytes < window_bytes
            and len(self._in_flight) < window_messages
        )

    def sent(self, last_index: int, size_bytes: int) -> None:
        """Entries up to `last_index` have left."""
        assert self.mode is Mode.PIPELINE, "entries are sent only when the match point is known"
        self.next = last_index + 1
        self._in_flight.append((last_index, size_bytes))
        self._in_flight_bytes += size_bytes

    def acknowledged(self, index: int, latest_stamp: int) -> None:
        """The follower's log equals the leader's up to `index`, durably. latest_stamp: of the latest round that has
        begun. What a later one sends leaves when the follower has `index` for good."""
        if index > self.match:
            self._match_stamp = latest_stamp
        self.match = max(self.match, index)
        self.next = max(self.next, self.match + 1)
        self.mode = Mode.PIPELINE
        self.needs_snapshot = False
        while self._in_flight and self._in_flight[0][0] <= self.match:
            self._in_flight_bytes -= self._in_flight.popleft()[1]

    def kept_up(self, commit: int, now_s: float, *, within_s: float) -> bool:
        """Whether a round of catching up has just ended and took at most `within_s`. Rounds follow each other, and the
        first begins with the first call. Being at the commit index itself is not asked for: under steady load a member
        that is slower than the quorum never is."""
        if self.round_end is None:
            self.round_end, self.round_began_s = commit, now_s
        if self.match < self.round_end:
            return False
        quick = now_s - self.round_began_s <= within_s
        self.round_end, self.round_began_s = commit, now_s
        return quick

    def rejected(self, index: int, hint: int, stamp: int) -> None:
        """The follower's log does not match at `index`; it proposes to try from `hint`. That it misses what it had is
        believed of an answer to a round that began after its acknowledgement was heard: anything earlier may have
        overtaken on the way what it acknowledged."""
        if index <= self.match:
            self.lost_entries |= stamp > self._match_stamp
            return
        self.next = max(self.match + 1, min(hint, index))
        self._restart()

    def reset(self) -> None:
        """A session began or broke: what was in flight may be lost."""
        self.next = self.match + 1 if self.match else self.next
        self._restart()

    def _restart(self) -> None:
        self.mode = Mode.PROBE
        self._in_flight.clear()
        self._in_flight_bytes = 0
