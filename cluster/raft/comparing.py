"""The divergence alarm: replicas tell each other what their states amount to, and the odd one out stops itself.

Now and then the leader takes a *sample*: the digest of its own state at the index that it has applied. Its heartbeats
bring it, and each member reports its own digest at that index as soon as it has applied as much. What a majority of the
voters has, the leader included, is *agreed*, and the heartbeats bring that too. Whoever finds that its own digest at an
agreed index is another one stops: a member, or the leader itself. So a leader whose state is wrong can stop nobody, for
it finds no majority for what it has.

Where digests differ and no majority says which is right (the third voter is away), nothing is decided here. Both sides
read their records again at once (`scrub.py`), which tells whose disk or memory it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from holdfast.cluster.raft.entries import ORIGIN_DIGEST, Count, Digest
from holdfast.proto.errors import Diverged

SAMPLES_KEPT = 8
"""How many samples a member may be late to report on."""


class StateMark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The digest of the state after the entry at `index`; no mark with index 0."""

    index: Count = 0
    digest: Digest = ORIGIN_DIGEST


@dataclass
class _Sample:
    """One index: the digests there, by node."""

    index: int
    digests: dict[str, bytes] = field(default_factory=dict)

    def majority(self, voters: Sequence[str]) -> bytes | None:
        """The digest that a majority of the voters has."""
        known = [self.digests[voter] for voter in voters if voter in self.digests]
        needed = len(voters) // 2 + 1
        return next((digest for digest in set(known) if known.count(digest) >= needed), None)


class Comparison:
    """The leader's side, for one term."""

    def __init__(self, self_id: str) -> None:
        self._self_id = self_id
        self._samples: dict[int, _Sample] = {}
        self.sample = StateMark()
        """The latest of the leader's own state."""
        self.agreed = StateMark()
        """The latest that a majority has."""

    def take(self, mark: StateMark, voters: Sequence[str]) -> None:
        """The leader's own state, as it is now. Raises Diverged as `reported`."""
        if mark.index > self.sample.index:
            self.sample = mark
            self._samples[mark.index] = _Sample(mark.index, {self._self_id: mark.digest})
            if len(self._samples) > SAMPLES_KEPT:
                del self._samples[min(self._samples)]
        self._judge(voters)

    def reported(self, node_id: str, mark: StateMark, voters: Sequence[str]) -> bool:
        """A member's state. Returns whether it differs from the leader's. Raises Diverged when a majority has another
        state than the leader."""
        sample = self._samples.get(mark.index)
        if sample is None:
            return False
        if sample.digests.get(node_id) != mark.digest:
            sample.digests[node_id] = mark.digest
            self._judge(voters)
        return mark.digest != sample.digests[self._self_id]

    def _judge(self, voters: Sequence[str]) -> None:
        for sample in self._samples.values():
            digest = sample.majority(voters)
            if digest is not None:
                check(StateMark(sample.index, digest), sample.digests[self._self_id])
                if sample.index > self.agreed.index:
                    self.agreed = StateMark(sample.index, digest)

    def differing(self, members: Sequence[str]) -> list[str]:
        """The members whose last report differs from the leader's state."""
        last: dict[str, bool] = {}
        for sample in self._samples.values():
            last.update((name, digest != sample.digests[self._self_id]) for name, digest in sample.digests.items())
        return [member for member in members if last.get(member)]


class Reporting:
    """A follower's side."""

    def __init__(self) -> None:
        self._wanted: deque[int] = deque(maxlen=SAMPLES_KEPT)
        self._agreed = StateMark()
        self.compared_index = 0
        """The latest index at which this node was found to have what a majority has."""

    def heard(self, sample: StateMark, agreed: StateMark) -> None:
        """A leader's heartbeat brings these."""
        if sample.index and sample.index not in self._wanted:
            self._wanted.append(sample.index)
        if agreed.index > self._agreed.index:
            self._agreed = agreed

    def due(self, applied: int) -> int:
        """The latest index to report on; 0 for none."""
        return max((index for index in self._wanted if index <= applied), default=0)

    def compare(self, own: StateMark) -> None:
        """Compare with the agreed state if it is of this index. Raises Diverged."""
        if own.index == self._agreed.index:
            check(self._agreed, own.digest)
            self.compared_index = max(self.compared_index, own.index)

    @property
    def agreed_index(self) -> int:
        """The index at which to compare."""
        return self._agreed.index


REPLACE = (
    "Leave this node down and look at its disk and memory; then replace its data: remove it with "
    "`holdfast operator raft remove-peer` and join the machine under a new node id with an empty data folder"
)
"""What to do with a replica whose records are wrong."""


def check(agreed: StateMark, own: bytes) -> None:
    """Raises Diverged when a node's own digest is not the agreed one."""
    if own != agreed.digest:
        raise Diverged(
            f"this node's state at index {agreed.index} is not what a majority of the voters has there: its records "
            "were altered, or were not applied as elsewhere. The others go on. " + REPLACE
        )
