"""What the ceremonies of key holders have in common: what is replicated of one, and how its shares are collected.

Replicated, as a record behind the barrier: that the ceremony is under way, its nonce and its parameters. So it goes on
after a restart or a change of leader. The shares given so far are in the memory of the leader and nowhere else: stored
in any form, they would lower the threshold for whoever reads them. After a change of leader they are given again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from holdfast.cluster.raft.consensus import Consensus, Role
from holdfast.cluster.seal import settle, shares
from holdfast.cluster.seal.records import SEAL_KEY, SealConfig, decode_config, encode_config
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.unseal import UnsealProgress
from holdfast.proto.errors import Corruption, FailedPrecondition, InvalidArgument, Uninitialized
from holdfast.storage.batch import Batch, Precondition, Put, RequestRecord
from holdfast.storage.decoding import MALFORMED
from holdfast.storage.keyring import REQUEST_KEY_BYTES
from holdfast.storage.transaction import Transaction

NONCE_BYTES = 16
"""The length of the nonce that names a ceremony. No secret."""

_FORMAT = 1

R = TypeVar("R", bound=msgspec.Struct)


class ShareCollector:
    """The shares given towards one ceremony: to one nonce and one set. Forgotten when either is another one."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._nonce = ""
        self._progress: UnsealProgress | None = None

    def give(self, nonce: str, config: SealConfig, text: str) -> bytes | None:
        """Take a share; returns the share key when the threshold is reached. Raises ShareRejected."""
        share = shares.decode(text)
        if self._progress is None or (self._nonce, self._progress.set_id) != (nonce, config.set_id):
            self.forget()
            self._nonce = nonce
            self._progress = UnsealProgress(
                set_id=config.set_id,
                threshold=config.threshold,
                verify=config.verify,
                random_bytes=self._random_bytes,
            )
        return self._progress.give(share)

    def given(self, nonce: str) -> int:
        """How many shares were given towards this ceremony."""
        return self._progress.given if self._progress is not None and self._nonce == nonce else 0

    def forget(self) -> None:
        """Drop all shares."""
        if self._progress is not None:
            self._progress.reset()
        self._progress, self._nonce = None, ""

    def __repr__(self) -> str:
        return f"<ShareCollector {self._progress!r}>"


class CeremonyStore(Generic[R]):
    """One ceremony's record, and the batches that change it and what it is about."""

    def __init__(
        self,
        path: str,
        record_type: type[R],
        *,
        consensus: Consensus,
        seal: SealManager,
        random_bytes: Callable[[int], bytes],
        wait_s: float,
    ) -> None:
        self._path = path
        self._decoder = msgspec.msgpack.Decoder(record_type)
        self._consensus = consensus
        self._seal = seal
        self._random_bytes = random_bytes
        self._wait_s = wait_s

    async def open(self) -> CeremonyView[R]:
        """The current state: what is under way, and the seal. On the leader. Raises Sealed, NotLeader, NoLeader."""
        _ = self._seal.barrier
        if self._consensus.status().role is not Role.LEADER:
            raise settle.not_leading(self._consensus.status())
        await self._consensus.read_barrier(timeout_s=settle.ATTEMPT_TIMEOUT_S)
        transaction = Transaction(self._consensus, self._seal.barrier)
        stored = await transaction.get(self._path)
        seal_record = await self._consensus.get(SEAL_KEY)
        if seal_record is None:
            raise Uninitialized("the cluster has no keys yet: run `holdfast operator init`")
        return CeremonyView(
            transaction=transaction,
            record=None if stored is None else self._decode(stored),
            config=decode_config(seal_record.value),
            seal_revision=seal_record.revision,
        )

    def put(self, view: CeremonyView[R], record: R) -> None:
        """Have the view's transaction store the record."""
        view.transaction.put(self._path, bytes((_FORMAT,)) + msgspec.msgpack.encode(record))

    def delete(self, view: CeremonyView[R]) -> None:
        """Have the view's transaction end the ceremony."""
        view.transaction.delete(self._path)

    async def commit(
        self, view: CeremonyView[R], *, seal: SealConfig | None = None, wait_s: float | None = None
    ) -> bool:
        """Commit the view's transaction, with the seal as it was seen; `seal` replaces it. Returns whether it took
        effect; False: something else changed meanwhile. wait_s: how long at most to ask for the outcome. Raises as
        `settle.commit`."""
        first = view.transaction.batch()
        puts = () if seal is None else (Put(SEAL_KEY, encode_config(seal)),)
        request = RequestRecord(key=self._random_bytes(REQUEST_KEY_BYTES), response=b"")
        batch = Batch(
            puts=puts + first.puts,
            deletes=first.deletes,
            preconditions=(*first.preconditions, Precondition(SEAL_KEY, view.seal_revision)),
            request=request,
        )

        async def in_effect() -> bool:
            return await self._consensus.duplicate_of(request.key) is not None

        news_of = (*batch.puts, *(Put(key, b"") for key in batch.deletes))[0].key
        done = await settle.commit(
            self._consensus,
            batch,
            in_effect=in_effect,
            news_of=news_of,
            wait_s=self._wait_s if wait_s is None else min(self._wait_s, wait_s),
        )
        if done:
            await self._seal.refresh()
        return done

    def _decode(self, stored: bytes) -> R:
        if stored[:1] != bytes((_FORMAT,)):
            raise Corruption("a ceremony's record has an unknown format: run the version that wrote it")
        try:
            return self._decoder.decode(stored[1:])
        except MALFORMED:
            raise Corruption("a ceremony's record does not parse: restore this cluster from a snapshot") from None


class CeremonyView(Generic[R]):
    """The state of a ceremony at one moment, and the transaction that may change it."""

    __slots__ = ("config", "record", "seal_revision", "transaction")

    def __init__(self, *, transaction: Transaction, record: R | None, config: SealConfig, seal_revision: int) -> None:
        self.transaction = transaction
        self.record = record
        self.config = config
        self.seal_revision = seal_revision

    def __repr__(self) -> str:
        return f"<CeremonyView under_way={self.record is not None}>"


def check_nonce(given: str, nonce: str, *, field: str = "nonce") -> None:
    """Raise InvalidArgument unless `given` names the ceremony under way."""
    if given != nonce:
        raise InvalidArgument(
            "the nonce is not that of the ceremony under way, so the share may have been meant for another one: ask"
            " for the status, compare the nonce with whoever began the ceremony, and give it with the share",
            field=field,
        )


def under_way(what: str, nonce: str) -> FailedPrecondition:
    """The error of a second ceremony of a kind."""
    return FailedPrecondition(
        f"a {what} is under way (nonce {nonce}): finish it, or cancel it first", details={"nonce": nonce}
    )


def none_under_way(what: str, command: str) -> FailedPrecondition:
    """The error of a share or a cancellation for a ceremony that nobody began."""
    return FailedPrecondition(f"no {what} is under way: it was finished or cancelled, or not begun (`{command}`)")
