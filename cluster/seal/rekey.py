"""Rekey: new shares, and a new threshold, over the same root key. A ceremony of the holders of the shares in force.

    init -> current shares up to their threshold -> new shares handed out, once
         -> (verification) new shares up to the new threshold -> the new set is in force

With verification, the new seal waits in the ceremony's record, encrypted, and the old one stays in force until a
threshold of the *new* shares has been seen to work. So no crash and no lost answer can leave a cluster whose shares
nobody holds. Without it, the answer that carries the shares may be lost after the switch.

The seal is one record, so that at any moment exactly one set opens the cluster. The root key does not change: a
provider's wrap of it and what an open node holds stay as they are.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable

import msgspec

from holdfast.cluster.raft.consensus import Consensus
from holdfast.cluster.seal.ceremony import (
    NONCE_BYTES,
    CeremonyStore,
    CeremonyView,
    ShareCollector,
    check_nonce,
    none_under_way,
    under_way,
)
from holdfast.cluster.seal.initialize import split_counts
from holdfast.cluster.seal.recipients import Recipients
from holdfast.cluster.seal.records import SealConfig, decode_config, encode_config
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.share_set import make_share_set
from holdfast.cluster.seal.shares import Shares
from holdfast.proto.errors import Conflict, Corruption, FailedPrecondition, OutcomeUnknown, Unavailable

PATH = "cluster/ceremony/rekey"

_WHAT = "rekey"
_BEGIN = "holdfast operator rekey -init"
_ATTEMPTS_MAX = 5


class RekeyRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is replicated of a rekey.

    pending: the seal that waits for verification, in its stored form; empty before. verification_nonce: names the
    verification round; empty before. replaces: the set whose holders had the new shares made; empty before.
    """

    nonce: str
    shares: int
    threshold: int
    verify: bool
    recipients: Recipients | None = None
    pending: bytes = b""
    verification_nonce: str = ""
    replaces: str = ""

    def __repr__(self) -> str:
        return f"<RekeyRecord pending={bool(self.pending)}>"


class RekeyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A rekey as people are shown it. Nothing in it is secret.

    nonce: names the ceremony; empty when none is under way. progress, required: current shares given and needed.
    verification_*: the same of the verification round, once there is one. set_id: of the shares in force.
    """

    set_id: str
    required: int
    nonce: str = ""
    shares: int = 0
    threshold: int = 0
    progress: int = 0
    verify: bool = False
    verification_nonce: str = ""
    verification_progress: int = 0
    recipients: str = ""
    fingerprints: tuple[str, ...] = ()
    complete: bool = False


class NewShares(msgspec.Struct, frozen=True, kw_only=True):
    """New shares, handed out this once. texts: the shares, or their encrypted forms. in_force: "yes"; "pending" until
    they are verified; "unknown" when that cannot be found out now: keep both sets, the status will tell."""

    texts: tuple[str, ...]
    set_id: str
    threshold: int
    in_force: str
    verification_nonce: str = ""
    fingerprints: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<NewShares {len(self.texts)}, set {self.set_id}, in force: {self.in_force}>"


class Rekey:
    """The ceremony, on the leader. One at a time in a cluster."""

    def __init__(
        self, consensus: Consensus, seal: SealManager, *, random_bytes: Callable[[int], bytes], wait_s: float = 60.0
    ) -> None:
        self._seal = seal
        self._random_bytes = random_bytes
        self._current = ShareCollector(random_bytes)
        self._new = ShareCollector(random_bytes)
        self._one_by_one = asyncio.Lock()
        self._store = CeremonyStore(
            PATH, RekeyRecord, consensus=consensus, seal=seal, random_bytes=random_bytes, wait_s=wait_s
        )

    def forget(self) -> None:
        """Drop the shares given so far: this node leads no more, or is sealed. The ceremony itself goes on."""
        self._current.forget()
        self._new.forget()

    async def status(self) -> RekeyStatus:
        """What is under way. Raises as `CeremonyStore.open`."""
        return self._status(await self._store.open())

    async def init(self, *, shares: int, threshold: int, verify: bool, recipients: Recipients | None) -> RekeyStatus:
        """Begin. shares, threshold: 0 stands for 5 and 3. Raises InvalidArgument; FailedPrecondition when one is under
        way; OutcomeUnknown (the status tells)."""
        shares, threshold = split_counts(shares, threshold)
        async with self._one_by_one:
            view = await self._store.open()
            if view.record is not None:
                raise under_way(_WHAT, view.record.nonce)
            record = RekeyRecord(
                nonce=self._nonce(), shares=shares, threshold=threshold, verify=verify, recipients=recipients
            )
            self._store.put(view, record)
            await self._commit(view)
            view.record = record
            return self._status(view)

    async def give(self, nonce: str, text: str, *, answer_by: float | None = None) -> RekeyStatus | NewShares:
        """Give one of the shares in force. The one that reaches the threshold gets the new shares. answer_by: when to
        stop asking whether they are in force (time of the event loop), so that the answer that brings them is in time.

        Raises InvalidArgument (nonce), ShareRejected, FailedPrecondition; NotLeader, NoLeader, Overloaded or Conflict
        when the new shares were not made: all shares are to be given again."""
        async with self._one_by_one:
            view = await self._store.open()
            record = _under_way(view)
            if record.pending:
                raise FailedPrecondition(
                    "the new shares were made and handed out and wait for verification: give them with"
                    " `holdfast operator rekey -verify`, or cancel the rekey and begin again",
                    details={"verification_nonce": record.verification_nonce},
                )
            check_nonce(nonce, record.nonce)
            share_key = self._current.give(record.nonce, view.config, text)
            if share_key is None:
                return self._status(view)
            return await self._make(view, view.config.unwrap(share_key), answer_by)

    async def verify(self, nonce: str, text: str) -> RekeyStatus:
        """Give one of the new shares. The one that reaches the new threshold puts them in force. Raises as `give`;
        OutcomeUnknown when it is not known whether they are (the status tells, by its set id)."""
        async with self._one_by_one:
            view = await self._store.open()
            record = _under_way(view)
            if not record.pending:
                raise FailedPrecondition("there are no new shares to verify yet: give the current ones first")
            check_nonce(nonce, record.verification_nonce)
            if record.replaces not in ("", view.config.set_id.hex()):
                raise FailedPrecondition(
                    f"these new shares were to replace the set {record.replaces}, which is in force no more: a snapshot"
                    " from the middle of a rekey was restored; cancel the rekey and begin again"
                )
            pending = decode_config(record.pending)
            share_key = self._new.give(record.verification_nonce, pending, text)
            if share_key is None:
                return self._status(view)
            return await self._put_in_force(view, pending, pending.unwrap(share_key))

    async def cancel(self, nonce: str = "") -> RekeyStatus:
        """End the ceremony; the shares in force stay, and new ones that wait for verification are void. nonce: when
        given, it must be the ceremony's. Raises FailedPrecondition when none is under way."""
        async with self._one_by_one:
            view = await self._store.open()
            record = _under_way(view)
            if nonce:
                check_nonce(nonce, record.nonce)
            self._store.delete(view)
            await self._commit(view)
            self.forget()
            view.record = None
            return self._status(view)

    async def restart_verification(self) -> RekeyStatus:
        """Forget the new shares given so far and name the round anew. Raises FailedPrecondition."""
        async with self._one_by_one:
            view = await self._store.open()
            record = _under_way(view)
            if not record.pending:
                raise FailedPrecondition("there are no new shares to verify yet: give the current ones first")
            view.record = msgspec.structs.replace(record, verification_nonce=self._nonce())
            self._store.put(view, view.record)
            await self._commit(view)
            self._new.forget()
            return self._status(view)

    async def recover(self, nonce: str, root_key: bytes, *, answer_by: float | None = None) -> NewShares:
        """Make the new shares of the ceremony under way without any of the current ones, for whoever came by the root
        key in another way. Raises FailedPrecondition when the key is not the one that this node holds."""
        async with self._one_by_one:
            view = await self._store.open()
            record = _under_way(view)
            check_nonce(nonce, record.nonce)
            if record.pending:
                raise FailedPrecondition("new shares wait for verification: verify them, or cancel the rekey")
            if not self._holds(root_key):
                raise FailedPrecondition("what was recovered is not this cluster's root key: nothing was made")
            return await self._make(view, root_key, answer_by)

    async def _make(self, view: CeremonyView[RekeyRecord], root_key: bytes, answer_by: float | None) -> NewShares:
        """New shares over the root key, in force or pending, and certainly so."""
        record = _under_way(view)
        config, made = make_share_set(
            root_key=root_key,
            shares=record.shares,
            threshold=record.threshold,
            cluster_id=view.config.cluster_id,
            cluster_name=view.config.cluster_name,
            created_ms=view.config.created_ms,
            random_bytes=self._random_bytes,
        )
        recipients = record.recipients
        texts = made.texts if recipients is None else recipients.encrypt(made.texts)
        pending_nonce = self._nonce() if record.verify else ""
        for _ in range(_ATTEMPTS_MAX):
            if pending_nonce:
                changed = msgspec.structs.replace(
                    record,
                    pending=encode_config(config),
                    verification_nonce=pending_nonce,
                    replaces=view.config.set_id.hex(),
                )
                self._store.put(view, changed)
            else:
                self._store.delete(view)
            wait_s = None if answer_by is None else answer_by - asyncio.get_running_loop().time()
            if wait_s is not None and wait_s <= 0:
                raise Unavailable("there is no time left to answer: nothing was made; give the shares again, faster")
            try:
                done = await self._store.commit(view, seal=None if pending_nonce else config, wait_s=wait_s)
            except OutcomeUnknown:
                return _handed_out(record, made, texts, "unknown", pending_nonce)
            if done:
                return _handed_out(record, made, texts, "pending" if pending_nonce else "yes", pending_nonce)
            # Something else came in between: a rotation, a re-encryption, or the end of this ceremony.
            seen = view.seal_revision
            view = await self._store.open()
            if view.record != record or view.seal_revision != seen:
                break
        raise Conflict("the rekey was changed by someone else at the same time: nothing was made; ask for the status")

    async def _put_in_force(self, view: CeremonyView[RekeyRecord], pending: SealConfig, root_key: bytes) -> RekeyStatus:
        if not self._holds(root_key):
            raise Corruption("the new seal opens another root key than this node holds: cancel the rekey")
        record, seen = view.record, view.seal_revision
        for _ in range(_ATTEMPTS_MAX):
            self._store.delete(view)
            if await self._store.commit(view, seal=pending):
                return RekeyStatus(set_id=pending.set_id.hex(), required=pending.threshold, complete=True)
            view = await self._store.open()
            if view.record != record or view.seal_revision != seen:
                break
        raise Conflict("the rekey was changed by someone else at the same time: ask for the status")

    def _holds(self, root_key: bytes) -> bool:
        return self._seal.with_root_key(lambda held: hmac.compare_digest(held, root_key))

    async def _commit(self, view: CeremonyView[RekeyRecord]) -> None:
        if not await self._store.commit(view):
            raise Conflict("the rekey was changed by someone else at the same time: ask for the status, try again")

    def _status(self, view: CeremonyView[RekeyRecord]) -> RekeyStatus:
        config, record = view.config, view.record
        if record is None:
            return RekeyStatus(set_id=config.set_id.hex(), required=config.threshold)
        return RekeyStatus(
            set_id=config.set_id.hex(),
            required=config.threshold,
            nonce=record.nonce,
            shares=record.shares,
            threshold=record.threshold,
            progress=self._current.given(record.nonce),
            verify=record.verify,
            verification_nonce=record.verification_nonce,
            verification_progress=self._new.given(record.verification_nonce) if record.pending else 0,
            recipients="" if record.recipients is None else record.recipients.kind,
            fingerprints=() if record.recipients is None else record.recipients.fingerprints(),
        )

    def _nonce(self) -> str:
        return self._random_bytes(NONCE_BYTES).hex()

    def __repr__(self) -> str:
        return "<Rekey>"


def _under_way(view: CeremonyView[RekeyRecord]) -> RekeyRecord:
    if view.record is None:
        raise none_under_way(_WHAT, _BEGIN)
    return view.record


def _handed_out(record: RekeyRecord, made: Shares, texts: tuple[str, ...], in_force: str, nonce: str) -> NewShares:
    return NewShares(
        texts=texts,
        set_id=made.set_id.hex(),
        threshold=made.threshold,
        in_force=in_force,
        verification_nonce=nonce,
        fingerprints=() if record.recipients is None else record.recipients.fingerprints(),
    )
