"""What must hold in a simulated world at every step, whatever happens: Raft's properties (Raft paper, figure 3), what a
node may say before its disk is sure, and what it may claim about its quorum.

The disks are asked, not the machines: what a node believes to be durable is part of what is tested.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from support.raft_rig import members

from holdfast.cluster.raft import membership, messages
from holdfast.cluster.raft.consensus import Outcome, Role
from holdfast.cluster.raft.entries import Entry, Kind, Position
from holdfast.cluster.raft.hardened import HardenedRaft
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.membership import Configuration
from holdfast.cluster.raft.messages import AppendReply, VoteReply
from holdfast.cluster.raft.quorum import is_majority
from holdfast.cluster.raft.statemachine import Chunk, StateMachine
from holdfast.storage.memory import MemoryStore
from holdfast.storage.store import Store

if TYPE_CHECKING:
    from support.raft_world import Process, World

_APPEND_REPLY, _TIMEOUT_NOW, _VOTE_REPLY = 6, 8, 4
"""The second byte of these messages."""


class Violation(AssertionError):
    """A promise was broken."""


class WatchedJournal(Journal):
    """The product's journal, which also tells what is appended, truncated and trimmed."""

    def __init__(self, checks: Checks, node_id: str, store: MemoryStore, *, initial: Configuration | None) -> None:
        self._checks = checks
        self._node_id = node_id
        super().__init__(store, initial=initial)
        for index in range(self.base.index + 1, self.last_index + 1):
            checks.appended(node_id, self.entry(index))

    def append(self, entry: Entry) -> None:
        """See Journal."""
        super().append(entry)
        self._checks.appended(self._node_id, entry)

    def truncate(self, from_index: int) -> None:
        """See Journal."""
        if from_index <= self.last_index:
            self._checks.truncated(self._node_id, from_index)
        super().truncate(from_index)

    def compact(self, to_index: int) -> None:
        """See Journal."""
        super().compact(to_index)
        self._checks.trace.count("log trimmed", self._node_id, f"to {to_index}")


class WatchedMachine(StateMachine):
    """The product's state machine, which also tells what it applies."""

    def __init__(self, checks: Checks, node_id: str, store: MemoryStore) -> None:
        self._checks = checks
        self._node_id = node_id
        super().__init__(store)

    def apply(self, entries: Sequence[Entry]) -> Chunk:
        """See StateMachine."""
        chunk = super().apply(entries)
        for entry, outcomes in zip(entries, chunk.outcomes, strict=True):
            self._checks.applied_entry(entry, outcomes)
        self._checks.applied_chunk(self._node_id, self.applied.index, self.state_digest)
        return chunk

    def adopt(self, store: Store) -> None:
        """See StateMachine."""
        super().adopt(store)
        self._checks.adopted(self._node_id, self.applied, self.state_digest)


class Checks:
    """The memory of a world's history, against which each step is held.

    applied: what was applied at each index. leaders: who led in each term. committed: the digest of the log up to each
    index that anyone took for committed; `commit` is the highest of them.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.trace = world.trace
        self.applied: dict[int, tuple[Entry, list[Outcome]]] = {}
        self.leaders: dict[int, str] = {}
        self.committed: dict[int, bytes] = {}
        self.commit = 0
        self._commit_term = 0
        self._state_digests: dict[int, bytes] = {}
        self._entries: dict[tuple[int, int], bytes] = {}
        self._restores: dict[tuple[int, int], Entry] = {}
        self._votes: dict[tuple[str, int], str] = {}
        self._seen: dict[str, tuple[HardenedRaft, Role, int, str, int]] = {}
        self._members = membership.initial(members(world.initial))
        self._asked: dict[str, int] = {}
        self.voter_sets: set[tuple[str, ...]] = set()

    # Logs

    def appended(self, node_id: str, entry: Entry) -> None:
        """Log Matching: an index and a term name one log (its digest covers everything before)."""
        known = self._entries.setdefault((entry.index, entry.term), entry.digest)
        if known != entry.digest:
            raise Violation(f"log matching: {node_id} has another log up to {entry.index} in term {entry.term}")
        if entry.kind is Kind.RESTORE:
            self._restores[entry.index, entry.term] = entry

    def truncated(self, node_id: str, from_index: int) -> None:
        """What is committed is never taken back."""
        self.trace.count("log truncated", node_id, f"from {from_index}")
        process = self._world.processes.get(node_id)
        if process is not None and from_index <= process.machine.commit:
            raise Violation(f"{node_id} truncates from {from_index}, its commit index is {process.machine.commit}")

    # State

    def applied_entry(self, entry: Entry, outcomes: list[Outcome]) -> None:
        """State Machine Safety: every node applies the same entry at an index, with the same outcomes."""
        if entry.index not in self.applied and entry.kind is Kind.MEMBERSHIP and entry.index > 1:
            self._members_applied(membership.decode(entry.payload))
        known = self.applied.setdefault(entry.index, (entry, outcomes))
        if known[0].digest != entry.digest or known[0] != entry or known[1] != outcomes:
            raise Violation(f"state machine safety: two histories at index {entry.index}")

    def _members_applied(self, configuration: Configuration) -> None:
        before, self._members = self._members, configuration
        promoted = len(configuration.members) == len(before.members)
        self.trace.count("learner promoted" if promoted else "membership changed", "", ",".join(configuration.voters))

    def applied_chunk(self, node_id: str, index: int, digest: bytes) -> None:
        """However entries fall into chunks, equal positions are equal states; and after a crash the state is a point on
        the log."""
        if not self.holds_durably(node_id, index):
            raise Violation(f"{node_id} applies {index}, which its disk does not have")
        self._same_state(node_id, index, digest)

    def adopted(self, node_id: str, at: Position, digest: bytes) -> None:
        """The state of a disk, a snapshot or a restore is taken over as it stands."""
        restore = self._restores.get((at.index, at.term))
        if restore is not None:
            if at.index not in self.applied:
                self.trace.count("state restored", node_id, f"at {at.index}")
            self.applied_entry(restore, [])
        self._same_state(node_id, at.index, digest)

    def restored_between(self, after: int, until: int) -> bool:
        """Whether an entry above `after` and up to `until` replaced the state, with which requests are forgotten."""
        return any(after < index <= until and index in self.applied for index, _ in self._restores)

    def _same_state(self, node_id: str, index: int, digest: bytes) -> None:
        if self._state_digests.setdefault(index, digest) != digest and not self._world.may_stop:
            raise Violation(f"the state of {node_id} at index {index} differs from another node's")

    # Every step

    def look(self, process: Process) -> None:
        """After each step of a process."""
        machine = process.machine
        role, term, commit = machine.role, machine.term, machine.commit
        seen = self._seen.get(process.node_id)
        if seen is None or seen[0] is not machine:
            seen = (machine, Role.FOLLOWER, 0, "", machine.applied)
        if (role, term, machine.leader_id) != seen[1:4]:
            self._moved(process, seen[1], seen[2])
        if commit != seen[4]:
            self._committed(process, seen[4])
        self._seen[process.node_id] = (machine, role, term, machine.leader_id, commit)

    def _moved(self, process: Process, role: Role, term: int) -> None:
        machine = process.machine
        self.trace.note(
            process.node_id, f"is {machine.role.value} in term {machine.term}, leader {machine.leader_id!r}"
        )
        if machine.term < term:
            raise Violation(f"{process.node_id} went back from term {term} to {machine.term}")
        if machine.role is Role.LEADER and (role is not Role.LEADER or machine.term != term):
            self.trace.count("election won", process.node_id, f"term {machine.term}")
            if self._asked.get(process.node_id) == machine.term - 1:
                self.trace.count("leadership handed over", process.node_id)
            known = self.leaders.setdefault(machine.term, process.node_id)
            if known != process.node_id:
                raise Violation(f"election safety: {known} and {process.node_id} lead in term {machine.term}")
            self._complete(process)

    def _complete(self, process: Process) -> None:
        """Leader Completeness: what was committed in earlier terms is on the log of a new leader."""
        log, commit = process.machine.log, self.commit
        if process.machine.term <= self._commit_term or commit <= log.base.index:
            return
        at = log.at(commit)
        if at is None or at.digest != self.committed[commit]:
            raise Violation(
                f"leader completeness: {process.node_id} leads in term {process.machine.term} without the "
                f"committed entry {commit}"
            )

    def _committed(self, process: Process, before: int) -> None:
        machine, node_id = process.machine, process.node_id
        commit, log = machine.commit, machine.log
        if commit < before:
            raise Violation(f"{node_id} took its commit index back from {before} to {commit}")
        for index in range(max(before, log.base.index - 1) + 1, commit + 1):
            at = log.at(index)
            if at is None:
                raise Violation(f"{node_id} takes {index} for committed and does not have it")
            if self.committed.setdefault(index, at.digest) != at.digest:
                raise Violation(f"state machine safety: {node_id} takes another entry {index} for committed")
        if commit > self.commit:
            self.commit, self._commit_term = commit, max(self._commit_term, machine.term)
            self._durable_on_quorum(process, commit)

    def _durable_on_quorum(self, process: Process, index: int) -> None:
        """Law 4, asked of the disks. A change of members may have been appended in the same step, so that the
        configuration before it counts, too."""
        configurations = process.machine.log.configurations
        self.voter_sets.add(configurations.voters)
        digest = self.committed[index]
        for voters in (configurations.voters, configurations.previous.voters):
            holders = [v for v in voters if v in self._world.stores and self.holds_durably(v, index, digest)]
            if is_majority(len(holders), len(voters)):
                return
        raise Violation(f"{process.node_id} takes {index} for committed, which is on the disks of {holders} only")

    # Disks

    def holds_durably(self, node_id: str, index: int, digest: bytes | None = None) -> bool:
        """Whether a node's disk would still have an entry after a loss of power now."""
        disk = self._world.stores[node_id][0]._durable
        stored = disk.get(b"l" + index.to_bytes(8, "big"))
        if stored is not None:
            return digest is None or digest in stored
        return self.durable_meta(node_id)[3][0] >= index

    def durable_meta(self, node_id: str) -> Any:
        """The header of a journal as the disk has it: format, term, vote, base, ..."""
        stored = self._world.stores[node_id][0]._durable.get(b"m")
        return msgspec.msgpack.decode(stored) if stored is not None else [0, 0, None, [0], 0]

    # What is said

    def sends(self, process: Process, receiver: str, payload: bytes) -> None:
        """A message leaves. Acknowledgements and votes are of what the disk has; a node whose disk has failed is
        silent."""
        if process.worker.told:
            raise Violation(f"{process.node_id} speaks after its disk has failed")
        if payload[1] == _APPEND_REPLY:
            reply = messages.decode(payload)
            assert isinstance(reply, AppendReply)
            if reply.accepted and not self.holds_durably(process.node_id, reply.index):
                raise Violation(f"{process.node_id} acknowledges {reply.index}, which its disk does not have")
        elif payload[1] == _TIMEOUT_NOW:
            self._asked[receiver] = messages.decode(payload).term
        elif payload[1] == _VOTE_REPLY:
            vote = messages.decode(payload)
            assert isinstance(vote, VoteReply)
            if vote.granted:
                self._voted(process.node_id, vote.term, receiver)

    def _voted(self, node_id: str, term: int, candidate: str) -> None:
        if self._votes.setdefault((node_id, term), candidate) != candidate:
            raise Violation(f"{node_id} votes for two candidates in term {term}")
        meta = self.durable_meta(node_id)
        if meta[1] < term or (meta[1] == term and meta[2] != candidate):
            raise Violation(f"{node_id} votes in term {term}, and its disk has term {meta[1]}, vote {meta[2]!r}")

    # At leisure

    def logs(self) -> None:
        """Log Matching once more, over whole logs."""
        processes = list(self._world.processes.values())
        for one, other in itertools.pairwise(processes):
            mine, theirs = one.machine.log, other.machine.log
            for index in range(max(mine.base.index, theirs.base.index), min(mine.last_index, theirs.last_index) + 1):
                a, b = mine.at(index), theirs.at(index)
                if a is not None and b is not None and a.term == b.term and a.digest != b.digest:
                    raise Violation(f"log matching: {one.node_id} and {other.node_id} differ at {index}")

    def quorum_bound_s(self, process: Process, now_s: float) -> float:
        """The latest moment at which a process can know a quorum to have been running, by any configuration."""
        sets = {process.machine.log.configurations.voters, *self.voter_sets}
        return max(process.contact.quorum_s(now_s, voters) for voters in sets if voters)


Applied = Mapping[int, tuple[Entry, list[Outcome]]]
"""`Checks.applied`: what was applied at each index, with the outcomes of the entry's batches."""
