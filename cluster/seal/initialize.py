"""Making a cluster's keys, and committing them exactly once.

Everything an initialisation writes (the seal, the keyring, what the upper floors put beside them) is one batch with the
precondition that no seal exists, so that of two initialisations that race one changes nothing.

The shares exist only in the memory of the node that made them until its answer is out. A batch whose outcome is lost is
therefore the one dangerous case: it would leave a cluster with keys that nobody can hold. `settle` asks until the
outcome is certain; its proof is the seal record itself, which holds random bytes of this attempt, so that finding it
means success, and finding another one means that another initialisation won.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from holdfast.cluster.raft.consensus import Consensus
from holdfast.cluster.seal import settle, shamir
from holdfast.cluster.seal.records import KEYRING_KEY, SEAL_KEY, encode_config
from holdfast.cluster.seal.share_set import make_share_set
from holdfast.cluster.seal.shares import Shares
from holdfast.proto.errors import (
    AlreadyInitialized,
    Corruption,
    InvalidArgument,
    OutcomeUnknown,
)
from holdfast.storage.barrier import Barrier
from holdfast.storage.batch import Batch, Precondition, Put, RequestRecord
from holdfast.storage.keyring import KEY_BYTES, REQUEST_KEY_BYTES, Keyring
from holdfast.storage.transaction import Transaction

SHARES_DEFAULT = 5
THRESHOLD_DEFAULT = 3

T = TypeVar("T")


def split_counts(shares: int, threshold: int) -> tuple[int, int]:
    """The number of shares and the threshold, with 0 standing for the defaults of 5 and 3 (or as many as there are
    shares). Raises InvalidArgument when they are out of range."""
    shares = shares or SHARES_DEFAULT
    threshold = threshold or min(THRESHOLD_DEFAULT, shares)
    if not 1 <= shares <= shamir.SHARES_MAX:
        raise InvalidArgument(f"the number of shares is 1 to {shamir.SHARES_MAX}, not {shares}", field="secret_shares")
    if not 1 <= threshold <= shares:
        raise InvalidArgument(
            f"the threshold is at most the number of shares ({shares}), not {threshold}", field="secret_threshold"
        )
    if threshold == 1 and shares > 1:
        raise InvalidArgument(
            "a threshold of 1 would make every share the whole key: use 1 share, or a threshold of 2 or more",
            field="secret_threshold",
        )
    return shares, threshold


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Initialization(Generic[T]):
    """A cluster's first batch, and what its proposer hands out once it is committed."""

    batch: Batch
    seal_record: bytes
    shares: Shares
    bootstrapped: T

    def __repr__(self) -> str:
        return f"<Initialization {self.shares!r}>"


async def prepare(
    consensus: Consensus,
    *,
    shares: int,
    threshold: int,
    cluster_name: str,
    created_ms: int,
    bootstrap: Callable[[Transaction], Awaitable[T]],
    random_bytes: Callable[[int], bytes],
) -> Initialization[T]:
    """New keys, split and wrapped, and the batch that stores them. Changes nothing."""
    root_key = random_bytes(KEY_BYTES)
    config, made = make_share_set(
        root_key=root_key,
        shares=shares,
        threshold=threshold,
        cluster_id=str(uuid.UUID(bytes=random_bytes(16), version=4)),
        cluster_name=cluster_name,
        created_ms=created_ms,
        random_bytes=random_bytes,
    )
    record = encode_config(config)
    keyring = Keyring.generate(random_bytes, now_ms=created_ms)
    wrapped_keyring = keyring.wrap(root_key, random_bytes)
    barrier = Barrier(keyring, random_bytes)
    try:
        transaction = Transaction(consensus, barrier)
        bootstrapped = await bootstrap(transaction)
        first = transaction.batch()
    finally:
        barrier.close()
    return Initialization(
        batch=_with_keys(first, record, wrapped_keyring, random_bytes),
        seal_record=record,
        shares=made,
        bootstrapped=bootstrapped,
    )


async def commit(consensus: Consensus, batch: Batch, seal_record: bytes, *, wait_s: float) -> None:
    """Commit an initialisation. Returns when it is certain that this one, and no other, made the cluster's keys.

    wait_s: how long to go on asking for the outcome. Raises AlreadyInitialized when another one won; NotLeader,
    NoLeader, Overloaded or InvalidArgument when it is certain that nothing was changed; OutcomeUnknown when it is not.
    """

    async def stored() -> bool:
        return await _is_stored(consensus, seal_record)

    try:
        if await settle.commit(consensus, batch, in_effect=stored, news_of=SEAL_KEY, wait_s=wait_s):
            return
    except OutcomeUnknown:
        raise _shares_lost() from None
    raise Corruption("there are keys or data and no seal: restore this cluster from a snapshot")


def _shares_lost() -> OutcomeUnknown:
    return OutcomeUnknown(
        "whether the cluster was initialised is not known, and the shares that were made for it are lost. Ask for the"
        " status once a leader is known. If the cluster is initialised, its keys cannot be recovered and nothing was"
        " stored yet: stop all nodes, empty their data folders and initialise again. If it is not, initialise again",
        details={"shares": "lost"},
    )


async def _is_stored(consensus: Consensus, seal_record: bytes) -> bool:
    """Whether this very seal is in the local state. Raises AlreadyInitialized when another one is."""
    record = await consensus.get(SEAL_KEY)
    if record is not None and record.value != seal_record:
        raise already_initialized()
    return record is not None


def already_initialized() -> AlreadyInitialized:
    """The error of an initialisation that came second."""
    return AlreadyInitialized("the cluster has its keys: unseal its nodes with the shares that were made then")


def _with_keys(first: Batch, seal_record: bytes, wrapped_keyring: bytes, random_bytes: Callable[[int], bytes]) -> Batch:
    own = (Put(SEAL_KEY, seal_record), Put(KEYRING_KEY, wrapped_keyring))
    absent = tuple(Precondition(put.key, 0) for put in own)
    touched = {put.key for put in first.puts} | set(first.deletes) | {check.key for check in first.preconditions}
    assert touched.isdisjoint(put.key for put in own), "the bootstrap touched the keys' own records"
    return Batch(
        puts=own + first.puts,
        deletes=first.deletes,
        preconditions=absent + first.preconditions,
        request=RequestRecord(key=random_bytes(REQUEST_KEY_BYTES), response=b""),
    )
