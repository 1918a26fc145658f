"""Restoring, as the leader conducts it: the keys are checked, a majority has the content durably, and only then does
the restore go into the log (`raft/DESIGN.md`, "Restoring"). Up to there nothing has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from holdfast.cluster.raft.consensus import Consensus, ConsensusStatus
from holdfast.cluster.raft.node import RaftNode
from holdfast.cluster.raft.quorum import is_majority
from holdfast.cluster.raft.restoring import Restoration
from holdfast.cluster.seal.records import KEYRING_KEY, SEAL_KEY, decode_config
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.snapshot.distribution import Distribution
from holdfast.proto.errors import Conflict, Corruption, FailedPrecondition, Fatal, HoldfastError, Unavailable
from holdfast.proto.snapshot_file import SnapshotDamaged, SnapshotMetadata, SnapshotReader
from holdfast.storage.batch import Precondition
from holdfast.storage.keyring import Keyring
from holdfast.storage.keys import CLEAR_NAMES_END

BARRIER_TIMEOUT_S = 10.0
APPLY_TIMEOUT_S = 120.0
"""How long the leader waits for the restore that it has appended."""

_log = structlog.stdlib.get_logger(__name__)


class Restored(msgspec.Struct, frozen=True):
    """What became of a restore. index: where it stands in the log. prepared: members that had the content by then."""

    index: int
    snapshot_index: int
    keys_replaced: bool
    prepared: tuple[str, ...]
    unprepared: tuple[str, ...]


class Head(msgspec.Struct, frozen=True):
    """What is looked at before anything is done. The records that a sealed node needs come first in a file."""

    metadata: SnapshotMetadata
    seal: bytes
    keyring: bytes


class Restorer:
    """Restores on the leader, one at a time."""

    def __init__(
        self, raft: RaftNode, consensus: Consensus, seal: SealManager, distribution: Distribution, *, node_id: str
    ) -> None:
        self._raft = raft
        self._consensus = consensus
        self._seal = seal
        self._distribution = distribution
        self._node_id = node_id
        self._one = asyncio.Lock()

    async def restore(self, sha256: bytes, *, holder: str, force: bool) -> Restored:
        """Replace the state of the cluster by the file that `holder` has. Raises FailedPrecondition when the keys do
        not fit, Unavailable when no majority can take the content, NotLeader, Conflict (nothing was changed in any of
        these cases) and OutcomeUnknown."""
        if self._one.locked():
            raise Conflict("a restore is under way: wait until it is done, and look at its outcome")
        async with self._one:
            await self._distribution.fetch(sha256, [holder])
            head = await self._distribution.work(lambda: read_head(self._distribution.spool.path(sha256)))
            replace_keys = await self._must_replace_keys(head, force=force)
            await self._distribution.prepare(sha256, [holder])
            prepared, unprepared = await self._prepare_members(sha256)
            replace_keys = await self._must_replace_keys(head, force=force)  # they may have been rotated meanwhile
            keyring = await self._consensus.get(KEYRING_KEY)
            assert keyring is not None, "its keys were compared"
            # What was found of the keys must be true when the entry is applied, not only now.
            restoration = Restoration(sha256, replace_keys, (Precondition(KEYRING_KEY, keyring.revision),))
            _log.warning("restore_begins", snapshot_index=head.metadata.index, keys_replaced=replace_keys)
            index = await self._raft.restore(restoration, timeout_s=APPLY_TIMEOUT_S)
            return Restored(index, head.metadata.index, replace_keys, tuple(prepared), tuple(unprepared))

    async def _must_replace_keys(self, head: Head, *, force: bool) -> bool:
        """Whether the file's keys are others than the cluster's. Raises FailedPrecondition then, unless forced."""
        await self._consensus.read_barrier(timeout_s=BARRIER_TIMEOUT_S)
        problem = await self._key_problem(head)
        if problem and not force:
            raise FailedPrecondition(
                f"{problem}; nothing was changed. To restore it all the same, with its own keys, add -force: all nodes"
                " are sealed then, and open with the shares that belonged to the snapshot"
            )
        return bool(problem)

    async def _key_problem(self, head: Head) -> str:
        seal_record, keyring_record = await self._consensus.get(SEAL_KEY), await self._consensus.get(KEYRING_KEY)
        if seal_record is None or keyring_record is None:
            raise Corruption("an unsealed cluster has no seal or no keyring in its state: restore it with -force")
        ours = decode_config(seal_record.value)
        if ours.cluster_id != head.metadata.cluster_id:
            return f"the snapshot is of another cluster ({head.metadata.cluster_name}, {head.metadata.cluster_id})"
        current = self._seal.with_root_key(lambda root_key: Keyring.unwrap(keyring_record.value, root_key))
        try:
            earlier = self._seal.with_root_key(lambda root_key: Keyring.unwrap(head.keyring, root_key))
        except Corruption:
            return "the snapshot's keyring does not open with this cluster's root key: it was replaced since"
        if not current.covers(earlier):
            return "the snapshot needs data keys that this cluster does not have (any more)"
        return ""

    async def _prepare_members(self, sha256: bytes) -> tuple[list[str], list[str]]:
        """Every member that can be reached. Raises Unavailable when they are no majority of the voters."""
        members = self._distribution.others()
        outcomes = await asyncio.gather(*(self._prepare_one(member, sha256) for member in members))
        prepared = [self._node_id, *(member for member, done in zip(members, outcomes, strict=True) if done)]
        voters = _voters(self._consensus.status())
        if not is_majority(sum(voter in prepared for voter in voters), len(voters)):
            raise Unavailable(
                "the snapshot could not be brought to a majority of the nodes; nothing was changed: see that they run,"
                " can be reached and have room on their disks, then try again"
            )
        return prepared, [member for member in members if member not in prepared]

    async def _prepare_one(self, member: str, sha256: bytes) -> bool:
        try:
            await self._distribution.prepare_on(member, sha256, self._node_id)
        except HoldfastError as error:  # its Fatal is not ours
            _log.warning("member_not_prepared", member=member, reason=error.reason, message=error.message)
            return False
        return True


def read_head(path: Path) -> Head:
    """The metadata, the seal and the keyring of a verified file. Blocks. Raises SnapshotDamaged."""
    found: dict[bytes, bytes] = {}
    with path.open("rb") as file:
        reader = SnapshotReader(file)
        for key, value in reader.records():
            if key >= CLEAR_NAMES_END:
                break
            found[key] = value
    if SEAL_KEY not in found or KEYRING_KEY not in found:
        raise SnapshotDamaged("the snapshot has no seal or no keyring, so that nothing could ever open it: use another")
    try:
        config = decode_config(found[SEAL_KEY])
    except Fatal as error:
        raise SnapshotDamaged(f"the snapshot's seal cannot be used: {error.message}") from None
    if config.cluster_id != reader.metadata.cluster_id:
        raise SnapshotDamaged("the snapshot says that it is of another cluster than its seal: use another one")
    return Head(reader.metadata, found[SEAL_KEY], found[KEYRING_KEY])


def _voters(status: ConsensusStatus) -> Sequence[str]:
    return [peer.member.node_id for peer in status.peers if peer.member.voter]
