"""Making a cluster's keys, and committing them exactly once.

Everything an initialisation writes (the seal, the keyring, what the upper floors put beside them) is one batch with the
precondition that no seal exists, so that of two initialisations that race one changes nothing.

The shares exist only in the memory of the node that made them until its answer is out. A batch whose outcome is lost is
therefore the one dangerous case: it would leave a cluster with keys that nobody can hold. `commit` does not give up
until the outcome is certain, as long as its time allows:

- The batch carries a request record, and proposing it again gives the first attempt's outcome.
- The seal record itself is proof: it holds random bytes of this attempt, so that finding it means success, and finding
  another one means that another initialisation won.
- When leadership is lost, a read barrier of a later term settles it. A leader of a later term answers one only after it
  has committed an entry of its own term, and then an older entry is either in the state by now or never will be (Raft
  thesis, sections 3.6.2 and 6.4).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from holdfast.cluster.raft.consensus import Conflicted, Consensus, ConsensusStatus, Role
from holdfast.cluster.seal import shamir
from holdfast.cluster.seal.records import KEYRING_KEY, SEAL_KEY, encode_config, make_config
from holdfast.cluster.seal.shares import SECRET_BYTES, SET_ID_BYTES, Share, Shares
from holdfast.proto.errors import (
    AlreadyInitialized,
    Corruption,
    HoldfastError,
    InvalidArgument,
    NoLeader,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)
from holdfast.storage.barrier import Barrier
from holdfast.storage.batch import Batch, Precondition, Put, RequestRecord
from holdfast.storage.keyring import KEY_BYTES, REQUEST_KEY_BYTES, Keyring
from holdfast.storage.transaction import Transaction

SHARES_DEFAULT = 5
THRESHOLD_DEFAULT = 3

ATTEMPT_TIMEOUT_S = 10.0
"""How long one proposal or read barrier may take."""

RECHECK_S = 0.25
"""How long to wait for news before asking again, while the outcome is unknown."""

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
    root_key, share_key, set_id = random_bytes(KEY_BYTES), random_bytes(SECRET_BYTES), random_bytes(SET_ID_BYTES)
    record = encode_config(
        make_config(
            root_key=root_key,
            share_key=share_key,
            cluster_id=str(uuid.UUID(bytes=random_bytes(16), version=4)),
            cluster_name=cluster_name,
            created_ms=created_ms,
            set_id=set_id,
            shares=shares,
            threshold=threshold,
            random_bytes=random_bytes,
        )
    )
    keyring = Keyring.generate(random_bytes)
    wrapped_keyring = keyring.wrap(root_key, random_bytes)
    barrier = Barrier(keyring, random_bytes)
    try:
        transaction = Transaction(consensus, barrier)
        bootstrapped = await bootstrap(transaction)
        first = transaction.batch()
    finally:
        barrier.close()
    cores = shamir.split(share_key, shares, threshold, random_bytes)
    _check_recovers(cores, threshold, share_key)
    return Initialization(
        batch=_with_keys(first, record, wrapped_keyring, random_bytes),
        seal_record=record,
        shares=Shares(
            set_id=set_id,
            threshold=threshold,
            texts=tuple(Share(set_id=set_id, threshold=threshold, core=core).encode() for core in cores),
        ),
        bootstrapped=bootstrapped,
    )


async def commit(consensus: Consensus, batch: Batch, seal_record: bytes, *, wait_s: float) -> None:
    """Commit an initialisation. Returns when it is certain that this one, and no other, made the cluster's keys.

    wait_s: how long to go on asking for the outcome. Raises AlreadyInitialized when another one won; NotLeader,
    NoLeader, Overloaded or InvalidArgument when it is certain that nothing was changed; OutcomeUnknown when it is not.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    news = _News(consensus)
    appended = False  # whether the batch may be in some log
    try:
        while (remaining_s := deadline - loop.time()) > 0:
            news.clear()
            news.note(consensus.status())  # a batch is appended in the term in which it is proposed, or not at all
            try:
                outcome = await consensus.propose(batch, timeout_s=min(ATTEMPT_TIMEOUT_S, remaining_s))
                if not isinstance(outcome, Conflicted):
                    return  # a Duplicate is this batch: the request key is its own random bytes
                if await _is_stored(consensus, seal_record):
                    return
                raise Corruption("there are keys or data and no seal: restore this cluster from a snapshot")
            except OutcomeUnknown:
                appended = True
                news.note(consensus.status())
            except (NotLeader, Overloaded):
                if not appended:
                    raise
            if await _is_stored(consensus, seal_record):
                return
            if await _superseded(consensus, news.last_term_led, min(ATTEMPT_TIMEOUT_S, remaining_s)):
                if await _is_stored(consensus, seal_record):
                    return
                appended = False  # nor will it ever be
                raise not_leading(consensus.status())
            with suppress(TimeoutError):
                async with asyncio.timeout(min(RECHECK_S, remaining_s)):
                    await news.arrived()
    except Unavailable:  # this node is stopping, and can learn no more
        if not appended:
            raise
    finally:
        news.close()
    raise OutcomeUnknown(
        "whether the cluster was initialised is not known, and the shares that were made for it are lost. Ask for the"
        " status once a leader is known. If the cluster is initialised, its keys cannot be recovered and nothing was"
        " stored yet: stop all nodes, empty their data folders and initialise again. If it is not, initialise again",
        details={"shares": "lost"},
    )


def not_leading(status: ConsensusStatus) -> HoldfastError:
    """The error of a node that was asked to do what only a leader can do. Nothing was changed."""
    if status.leader_id and status.leader_id != status.node_id:
        return NotLeader("another node leads the cluster", details={"leader_id": status.leader_id})
    return NoLeader("no leader is known: check that a majority of the nodes runs and can reach each other")


class _News:
    """Watches for what can settle an unknown outcome, and for the terms in which this node leads."""

    def __init__(self, consensus: Consensus) -> None:
        self.last_term_led = consensus.status().term
        self._event = asyncio.Event()
        self._unsubscribe = (consensus.on_role_change(self._role_changed), consensus.subscribe(self._applied))

    def note(self, status: ConsensusStatus) -> None:
        if status.role is Role.LEADER:
            self.last_term_led = max(self.last_term_led, status.term)

    def clear(self) -> None:
        self._event.clear()

    async def arrived(self) -> None:
        await self._event.wait()

    def close(self) -> None:
        for unsubscribe in self._unsubscribe:
            unsubscribe()

    def _role_changed(self, status: ConsensusStatus) -> None:
        self.note(status)
        self._event.set()

    def _applied(self, _index: int, keys: Sequence[bytes]) -> None:
        if SEAL_KEY in keys:
            self._event.set()


async def _is_stored(consensus: Consensus, seal_record: bytes) -> bool:
    """Whether this very seal is in the local state. Raises AlreadyInitialized when another one is."""
    record = await consensus.get(SEAL_KEY)
    if record is not None and record.value != seal_record:
        raise already_initialized()
    return record is not None


async def _superseded(consensus: Consensus, last_term_led: int, timeout_s: float) -> bool:
    """Whether the local state now holds every entry that was ever appended in a term up to `last_term_led` and that
    any later leader kept. This node appends only while it leads."""
    if consensus.status().term <= last_term_led:
        return False
    try:
        await consensus.read_barrier(timeout_s=timeout_s)
    except (NoLeader, Overloaded):
        return False
    return True


def already_initialized() -> AlreadyInitialized:
    """The error of an initialisation that came second."""
    return AlreadyInitialized("the cluster has its keys: unseal its nodes with the shares that were made then")


def _check_recovers(cores: Sequence[bytes], threshold: int, share_key: bytes) -> None:
    """The shares are the only way to the root key: see them work before anything depends on them."""
    assert shamir.combine(cores[:threshold]) == share_key, "the first shares do not recover the key"
    assert shamir.combine(cores[-threshold:]) == share_key, "the last shares do not recover the key"


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
