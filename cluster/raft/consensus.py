"""The seam between the keyed side and the keyless side (law 2): bytes only, narrow and asynchronous.

Everything above consensus sees this protocol, so that the consensus module can later run in a process of its own,
and so that the chassis below it can be exchanged.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from holdfast.storage.batch import Batch, Record


class Role(enum.Enum):
    """A node's role in its current term."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Applied(msgspec.Struct, frozen=True):
    """The batch took effect on a quorum at log index `revision`."""

    revision: int


class Conflicted(msgspec.Struct, frozen=True):
    """A precondition did not hold; nothing changed. `key` is the first one that failed."""

    key: bytes


class Duplicate(msgspec.Struct, frozen=True):
    """The request id had been applied before; nothing changed. `response` is what was recorded then."""

    response: bytes


Outcome = Applied | Conflicted | Duplicate


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A member of the cluster. `node_id` is the common name of its certificate; addresses are host:port."""

    node_id: str
    cluster_address: str
    api_address: str
    voter: bool = True


class PeerProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What the leader knows of a member (on a follower: only what it knows itself)."""

    member: Member
    leader: bool
    match_index: int
    connected: bool
    last_contact_ms: int
    eligible: bool


class ConsensusStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of the consensus module's state. `leader_id` is empty when no leader is known.

    ready: the node leads and the no-op of its term has been applied, so that its local state holds every committed
    write and it may evaluate requests.
    quorum_contact_age_s: seconds since this node knew itself to be in contact with a quorum.
    cluster_time_ms: milliseconds of leadership this cluster has seen; never jumps, whatever wall clocks do.
    membership_index: the log index of the membership in force; 0 for the one the cluster was founded with.
    digest, state_digest: of the log and the state up to `applied_index`, in hexadecimal: equal on all replicas there.
    state_compared_index: the latest at which the state was found to be what a majority has. state_scrubbed_index: of
        the state whose records were all read again last. state_differing: whose state differed from this leader's.
    """

    node_id: str
    role: Role
    term: int
    leader_id: str
    ready: bool
    last_index: int
    commit_index: int
    applied_index: int
    digest: str
    quorum_contact_age_s: float
    cluster_time_ms: int
    peers: tuple[PeerProgress, ...]
    membership_index: int = 0
    state_digest: str = ""
    state_compared_index: int = 0
    state_scrubbed_index: int = 0
    state_differing: tuple[str, ...] = ()


SCAN_BYTES_MAX = 1024 * 1024
"""After how many bytes of values a page of a scan ends."""

Listener = Callable[[int, Sequence[bytes]], None]
"""Called after an apply with the highest log index applied and the keys that changed. Must not block."""

RoleListener = Callable[["ConsensusStatus"], None]
"""Called when role, leader or readiness changed. Must not block."""


class Consensus(Protocol):
    """A replicated state machine over opaque batches. All methods are called from the event-loop thread."""

    async def propose(self, batch: Batch, *, timeout_s: float) -> Outcome:
        """Commit and apply a batch; returns when it is durable on a quorum and applied here.

        Raises NotLeader (nothing was appended), Overloaded (the queue is full, or the batch was still in it after
        `timeout_s`; nothing was appended), InvalidArgument (over MAX_BATCH_BYTES) or OutcomeUnknown (leadership was
        lost or `timeout_s` passed after the append).
        """
        ...

    async def read_barrier(self, *, timeout_s: float) -> int:
        """Wait until the local state holds every write acknowledged before this call (ReadIndex, Raft thesis 6.4).

        Works on every node; a follower asks the leader. Returns the applied index. Raises NoLeader when that cannot be
        shown in time.
        """
        ...

    async def get(self, key: bytes) -> Record | None:
        """The record under a key in the local, applied state."""
        ...

    async def children(self, prefix: bytes, after: bytes, limit: int) -> list[tuple[bytes, bool, bool]]:
        """Up to `limit` encrypted segments directly below `prefix` that sort after the segment `after` (b"" for the
        first), in key order: (segment, has a record itself, has keys below it). Reads O(limit) keys, whatever the size
        of the subtrees (see `storage.keys` for the form of keys)."""
        ...

    async def scan(self, after: bytes, limit: int) -> list[tuple[bytes, Record]]:
        """Up to `limit` records of the local, applied state whose physical keys sort after `after` (b"" for the first),
        in key order; fewer once their values pass SCAN_BYTES_MAX together, and none only at the end."""
        ...

    async def duplicate_of(self, request_key: bytes) -> bytes | None:
        """The recorded response of a request id, if it was applied and is still remembered."""
        ...

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Register a listener for applied changes; returns its unsubscriber."""
        ...

    def on_role_change(self, listener: RoleListener) -> Callable[[], None]:
        """Register a listener for role changes; returns its unsubscriber."""
        ...

    def status(self) -> ConsensusStatus:
        """The current state."""
        ...

    def set_eligible(self, *, eligible: bool) -> None:
        """Say whether this node can serve as the active node (is unsealed). An ineligible leader hands leadership to an
        eligible member that has caught up, as soon as there is one; it keeps it while there is none."""
        ...

    async def transfer_leadership(self, target: str = "", *, timeout_s: float) -> str:
        """Hand leadership to `target` (empty: the best eligible member). Returns the new leader's id. Raises NotLeader,
        FailedPrecondition (no such member, or none has caught up), Unavailable (it did not happen in time, and will
        not) or OutcomeUnknown (it may still happen)."""
        ...

    async def add_member(self, member: Member, *, timeout_s: float) -> int:
        """Add a member, one change at a time. Returns the index of the change. Raises NotLeader, Conflict (another
        change is under way), AlreadyExists or OutcomeUnknown."""
        ...

    async def remove_member(self, node_id: str, *, timeout_s: float) -> int:
        """Remove a member. Raises as `add_member`, and NotFound."""
        ...
