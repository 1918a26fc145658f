"""A Consensus of one node in memory, for tests of everything above the consensus module.

Faithful where the protocol makes a promise: preconditions, revisions, request records and their 120 s of cluster
time, the batch limit, listing, listeners, roles, readiness. It gives the event loop a turn before and after each apply,
as the real one does, so that races between callers show. Faults are injected by name; `attach` makes another
LocalConsensus follow this one, for tests with several nodes.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from holdfast.cluster.raft.consensus import (
    Applied,
    Conflicted,
    ConsensusStatus,
    Duplicate,
    Listener,
    Member,
    Outcome,
    PeerProgress,
    Role,
    RoleListener,
)
from holdfast.proto.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NoLeader,
    NotFound,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)
from holdfast.storage.batch import MAX_BATCH_BYTES, Batch, Record
from holdfast.storage.listing import children
from holdfast.storage.memory import MemoryStore

REQUEST_RECORD_LIFE_MS = 120_000


class Fault(enum.Enum):
    """What befalls the next `propose`.

    NOT_LEADER, OVERLOADED: refused, nothing appended. LOST_PROPOSAL: OutcomeUnknown, and it never takes effect.
    LOST_REPLY: it takes effect, and the caller gets OutcomeUnknown. LATE: OutcomeUnknown, and it takes effect at
    `deliver_late()`.
    """

    NOT_LEADER = "not leader"
    OVERLOADED = "overloaded"
    LOST_PROPOSAL = "lost proposal"
    LOST_REPLY = "lost reply"
    LATE = "late"


class LocalConsensus:
    """One node that is the whole cluster; a ready leader unless told otherwise.

    Public for tests: `records` (physical key -> Record), `applied_index`, `cluster_time_ms` (advance it freely),
    `eligible`, `stopped` (every call then raises Unavailable), `faults` (what befalls the next proposals, in order),
    `proposed` (every batch `propose` was given).
    """

    def __init__(self, node_id: str = "node-1", *, role: Role = Role.LEADER, leader_id: str | None = None) -> None:
        self.node_id = node_id
        self.records: dict[bytes, Record] = {}
        self.applied_index = 1  # the no-op of the first term
        self.term = 1
        self.cluster_time_ms = 0
        self.eligible = False
        self.stopped = False
        self.quorum_contact_age_s = 0.0
        self.faults: deque[Fault] = deque()
        self.proposed: list[Batch] = []
        self.members: dict[str, Member] = {
            node_id: Member(node_id=node_id, cluster_address="127.0.0.1:8201", api_address="127.0.0.1:8200")
        }
        self._role = role
        self._leader_id = (node_id if role is Role.LEADER else "") if leader_id is None else leader_id
        self._ready = role is Role.LEADER
        self._names = MemoryStore()  # the keys of `records`, for listing
        self._requests: dict[bytes, tuple[bytes, int]] = {}
        self._digest = hashlib.sha256()
        self._late: list[Batch] = []
        self._listeners: list[Listener] = []
        self._role_listeners: list[RoleListener] = []
        self._followers: list[LocalConsensus] = []

    # --- what only tests use

    def set_role(self, role: Role, *, leader_id: str = "", ready: bool | None = None) -> None:
        """Change role, known leader and readiness, and tell the role listeners."""
        self._role = role
        self._leader_id = self.node_id if role is Role.LEADER else leader_id
        self._ready = role is Role.LEADER if ready is None else ready
        self.term += 1
        status = self.status()
        for listener in list(self._role_listeners):
            listener(status)

    def attach(self, follower: LocalConsensus) -> None:
        """Everything this node applies from now on, `follower` applies too."""
        self._followers.append(follower)

    def fail_next(self, *faults: Fault) -> None:
        """Inject faults into the next proposals, one each, in order."""
        self.faults.extend(faults)

    def deliver_late(self) -> list[Outcome]:
        """Apply the proposals that met `Fault.LATE`."""
        late, self._late = self._late, []
        return [self.apply(batch) for batch in late]

    def restarted(self) -> LocalConsensus:
        """The node after a restart of its process: the same durable state, no listeners, not eligible."""
        fresh = LocalConsensus(self.node_id, role=self._role, leader_id=self._leader_id)
        fresh.records = dict(self.records)
        fresh._names.write([(key, b"") for key in self.records])
        fresh._requests = dict(self._requests)
        fresh._digest = self._digest.copy()
        fresh.applied_index, fresh.term = self.applied_index, self.term
        fresh.cluster_time_ms, fresh.members = self.cluster_time_ms, dict(self.members)
        return fresh

    def corrupt(self, key: bytes, value: bytes) -> None:
        """Replace a stored value behind the state machine's back, keeping its revision."""
        self.records[key] = Record(value, self.records[key].revision)

    def apply(self, batch: Batch) -> Outcome:
        """Append and apply a batch as the cluster would, whoever proposed it."""
        self.applied_index += 1
        self._digest.update(msgspec.msgpack.encode(batch))
        outcome = self._evaluate(batch)
        changed: list[bytes] = []
        if isinstance(outcome, Applied):
            for put in batch.puts:
                self.records[put.key] = Record(put.value, self.applied_index)
            for key in batch.deletes:
                self.records.pop(key, None)
            self._names.write([(put.key, b"") for put in batch.puts], batch.deletes)
            if batch.request is not None:
                self._requests[batch.request.key] = (batch.request.response, self.cluster_time_ms)
            changed = [put.key for put in batch.puts] + list(batch.deletes)
        for listener in list(self._listeners):
            listener(self.applied_index, changed)
        for follower in self._followers:
            follower.apply(batch)
        return outcome

    # --- the protocol

    async def propose(self, batch: Batch, *, timeout_s: float) -> Outcome:
        assert timeout_s > 0
        self._check_running()
        touched = [put.key for put in batch.puts] + list(batch.deletes)
        assert len(set(touched)) == len(touched), "a key is put or deleted twice in one batch"
        self.proposed.append(batch)
        if len(msgspec.msgpack.encode(batch)) > MAX_BATCH_BYTES:
            raise InvalidArgument(f"the request is larger than {MAX_BATCH_BYTES} bytes")
        fault = self.faults.popleft() if self.faults else None
        if self._role is not Role.LEADER or fault is Fault.NOT_LEADER:
            leader = self._leader_id if self._role is not Role.LEADER else ""
            raise NotLeader("this node does not lead", details={"leader_id": leader})
        if fault is Fault.OVERLOADED:
            raise Overloaded("the proposal queue is full")
        await asyncio.sleep(0)
        if fault is Fault.LATE:
            self._late.append(batch)
        if fault in (Fault.LATE, Fault.LOST_PROPOSAL):
            raise OutcomeUnknown("the outcome of the write is not known")
        outcome = self.apply(batch)
        await asyncio.sleep(0)
        if fault is Fault.LOST_REPLY:
            raise OutcomeUnknown("the outcome of the write is not known")
        return outcome

    async def read_barrier(self, *, timeout_s: float) -> int:
        assert timeout_s > 0
        self._check_running()
        await asyncio.sleep(0)
        if not self._leader_id or (self._role is Role.LEADER and not self._ready):
            raise NoLeader("no leader is known")
        return self.applied_index

    async def get(self, key: bytes) -> Record | None:
        self._check_running()
        return self.records.get(key)

    async def children(self, prefix: bytes, after: bytes, limit: int) -> list[tuple[bytes, bool, bool]]:
        self._check_running()
        return children(self._names, b"", prefix, after, limit)

    async def scan(self, after: bytes, limit: int) -> list[tuple[bytes, Record]]:
        self._check_running()
        return [(key, self.records[key]) for key in sorted(self.records) if key > after][:limit]

    async def duplicate_of(self, request_key: bytes) -> bytes | None:
        self._check_running()
        return self._remembered(request_key)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def on_role_change(self, listener: RoleListener) -> Callable[[], None]:
        self._role_listeners.append(listener)
        return lambda: self._role_listeners.remove(listener)

    def status(self) -> ConsensusStatus:
        return ConsensusStatus(
            node_id=self.node_id,
            role=self._role,
            term=self.term,
            leader_id=self._leader_id,
            ready=self._ready,
            last_index=self.applied_index,
            commit_index=self.applied_index,
            applied_index=self.applied_index,
            digest=self._digest.hexdigest(),
            quorum_contact_age_s=self.quorum_contact_age_s,
            cluster_time_ms=self.cluster_time_ms,
            peers=tuple(self._progress(self.members.values())),
        )

    def set_eligible(self, *, eligible: bool) -> None:
        self.eligible = eligible

    async def transfer_leadership(self, target: str = "", *, timeout_s: float) -> str:
        assert timeout_s > 0
        if self._role is not Role.LEADER:
            raise NotLeader("this node does not lead", details={"leader_id": self._leader_id})
        raise FailedPrecondition("no other member has caught up and can lead")

    async def add_member(self, member: Member, *, timeout_s: float) -> int:
        self._change_allowed(timeout_s)
        if member.node_id in self.members:
            raise AlreadyExists(f"{member.node_id} is a member already")
        self.members[member.node_id] = member
        self.applied_index += 1
        return self.applied_index

    async def remove_member(self, node_id: str, *, timeout_s: float) -> int:
        self._change_allowed(timeout_s)
        if node_id not in self.members:
            raise NotFound(f"{node_id} is not a member")
        del self.members[node_id]
        self.applied_index += 1
        return self.applied_index

    # --- parts

    def _evaluate(self, batch: Batch) -> Outcome:
        if batch.request is not None:
            response = self._remembered(batch.request.key)
            if response is not None:
                return Duplicate(response)
        for condition in batch.preconditions:
            record = self.records.get(condition.key)
            if (record.revision if record else 0) != condition.revision:
                return Conflicted(condition.key)
        return Applied(self.applied_index)

    def _remembered(self, request_key: bytes) -> bytes | None:
        entry = self._requests.get(request_key)
        if entry is None or self.cluster_time_ms - entry[1] > REQUEST_RECORD_LIFE_MS:
            return None
        return entry[0]

    def _check_running(self) -> None:
        if self.stopped:
            raise Unavailable("consensus is not running on this node")

    def _change_allowed(self, timeout_s: float) -> None:
        assert timeout_s > 0
        if self._role is not Role.LEADER:
            raise NotLeader("this node does not lead", details={"leader_id": self._leader_id})

    def _progress(self, members: Iterable[Member]) -> Iterable[PeerProgress]:
        for member in members:
            own = member.node_id == self.node_id
            yield PeerProgress(
                member=member,
                leader=member.node_id == self._leader_id,
                match_index=self.applied_index if own else 0,
                connected=own,
                last_contact_ms=0,
                eligible=own and self.eligible,
            )
