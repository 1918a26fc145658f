"""What must hold in every scene, whatever its script expects: checked at every step, against the disks themselves.

The safety properties of the Raft paper's figure 3, and three that the paper assumes: no promise leaves a node before
it is durable there, nothing is applied that a majority does not hold durably, and a read sees what was acknowledged
before it was asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from holdfast.cluster.raft.consensus import Applied, Outcome
from holdfast.cluster.raft.entries import Entry, Kind, split_batches
from holdfast.cluster.raft.hardened import HardenedRaft
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.messages import AppendReply, Message, VoteReply
from holdfast.cluster.raft.quorum import is_majority
from holdfast.storage.memory import MemoryStore


class Violation(AssertionError):
    """A promise was broken."""


def durable(store: MemoryStore) -> Journal:
    """The log that a loss of power would leave, had it come now."""
    return Journal(MemoryStore._of(dict(store._durable)), initial=None)


class Promises:
    """Of one scene. disks: the log store of each node, up or down. broken: the script has made logs differ itself."""

    def __init__(self, disks: Mapping[str, MemoryStore]) -> None:
        self._disks = disks
        self.broken = False
        self.leaders: dict[int, str] = {}
        self.applied: dict[int, tuple[Entry, list[Outcome]]] = {}
        self._effects: dict[bytes, int] = {}
        self._votes: dict[tuple[str, int], str] = {}
        self._states: dict[int, bytes] = {}

    def leads(self, node_id: str, machine: HardenedRaft) -> None:
        """Election safety and leader completeness."""
        known = self.leaders.setdefault(machine.term, node_id)
        if known != node_id:
            raise Violation(f"election safety: {known} and {node_id} both lead in term {machine.term}")
        for index, (entry, _) in self.applied.items():
            mine = machine.log.at(index)
            if index > machine.log.base.index and (mine is None or mine.digest != entry.digest):
                raise Violation(f"leader completeness: {node_id} leads without committed entry {index}")
        if durable(self._disks[node_id]).getCurrentTerm() < machine.term:
            raise Violation(f"{node_id} leads in a term that its disk does not know")

    def sends(self, node_id: str, to: str, message: Message) -> None:
        """No vote and no acknowledgement leaves before it is durable."""
        if isinstance(message, VoteReply) and message.granted:
            disk = durable(self._disks[node_id])
            kept = disk.getCurrentTerm(), disk.getVotedForNodeId()
            if kept != (message.term, to) and kept[0] <= message.term:
                raise Violation(f"{node_id} sends a vote for {to} in term {message.term} that its disk does not hold")
            if self._votes.setdefault((node_id, message.term), to) != to:
                raise Violation(f"{node_id} votes for two candidates in term {message.term}")
        if isinstance(message, AppendReply) and message.accepted:
            last = durable(self._disks[node_id]).last_index
            if last < message.index:
                raise Violation(f"{node_id} acknowledges entry {message.index}; its disk ends at {last}")

    def moves(self, node_id: str, *, before: tuple[int, int], after: tuple[int, int]) -> None:
        """Within one life, term and commit index never fall. before, after: both."""
        if after[0] < before[0] or after[1] < before[1]:
            raise Violation(f"{node_id} goes back in term or commit index, from {before} to {after}")

    def stands(self, node_id: str, index: int, digest: bytes) -> None:
        """Equal positions are equal states, however entries fell into chunks."""
        if self._states.setdefault(index, digest) != digest:
            raise Violation(f"the state of {node_id} at {index} differs from another node's")

    def applies(self, node_id: str, voters: tuple[str, ...], entry: Entry, outcomes: list[Outcome]) -> None:
        """State machine safety, a durable majority, and each request once."""
        known = self.applied.get(entry.index)
        if known is None:
            self.applied[entry.index] = (entry, outcomes)
            self._check_majority(node_id, voters, entry)
            self._check_once(entry, outcomes)
        elif known != (entry, outcomes):
            raise Violation(f"state machine safety: {node_id} applies another entry {entry.index}, or differently")

    def _check_majority(self, node_id: str, voters: tuple[str, ...], entry: Entry) -> None:
        holders = 0
        for voter in voters:
            disk = durable(self._disks[voter])
            at = disk.at(entry.index)
            holders += entry.index < disk.base.index or (at is not None and at.digest == entry.digest)
        if not is_majority(holders, len(voters)):
            raise Violation(f"{node_id} applies entry {entry.index}, which {holders} of {len(voters)} voters hold")

    def _check_once(self, entry: Entry, outcomes: list[Outcome]) -> None:
        if entry.kind is not Kind.BATCHES:
            return
        for batch, outcome in zip(split_batches(entry.payload), outcomes, strict=True):
            if batch.request is not None and isinstance(outcome, Applied):
                before = self._effects.setdefault(batch.request.key, entry.index)
                if before != entry.index:
                    raise Violation(f"request {batch.request.key!r} took effect at {before} and at {entry.index}")

    def logs_match(self, machines: Iterable[HardenedRaft]) -> None:
        """Log matching: where index and term agree, the digest says that everything before agrees."""
        for one, other in itertools.combinations(() if self.broken else machines, 2):
            mine, theirs = one.log, other.log
            for index in range(max(mine.base.index, theirs.base.index), min(mine.last_index, theirs.last_index) + 1):
                a, b = mine.at(index), theirs.at(index)
                if a is not None and b is not None and a.term == b.term and a.digest != b.digest:
                    raise Violation(f"log matching: {one.node_id} and {other.node_id} differ at {index}")
