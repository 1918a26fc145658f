"""Bringing everything that is stored under the active key term, in the background, and dropping old terms.

The leader goes through the records in the order of their physical keys, a page at a time. One batch writes a page's
old records anew and the place it has come to, with the revision of each record as precondition, so that a write that
comes in between wins and the page is looked at again. After a change of leader the next one goes on from the stored
place.

What is written meanwhile is of the active term (see `rotation`), also behind the place. So when a pass for term T has
come to the end, no record is under a term below T. What remembers request ids is not gone through: it forgets by itself
(cluster time), and terms are dropped only when it has forgotten what it held when the pass began.

Engines are not asked: what is rewritten is ciphertext of the same plaintext. Its revision changes, so a request that
read the record before evaluates once more.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from holdfast.cluster.raft.consensus import Applied, Consensus
from holdfast.cluster.seal import rotation
from holdfast.cluster.seal.key_policy import KeyPolicy
from holdfast.cluster.seal.seal import SealManager
from holdfast.proto.errors import Corruption
from holdfast.storage import envelope
from holdfast.storage.barrier import Barrier
from holdfast.storage.batch import MAX_BATCH_BYTES, Batch, Precondition, Put, Record
from holdfast.storage.decoding import MALFORMED
from holdfast.storage.keys import CLEAR_SEGMENT_BYTES_MAX, KeyClass
from holdfast.storage.transaction import Transaction

PATH = "cluster/keys/reencryption"

PAGE = 64
"""How many records one step looks at together."""

PAGES_PER_STEP_MAX = 16
"""How many pages without anything to do one step passes over."""

REQUESTS_GONE_MS = 180_000
"""Cluster time after which no request id from before is remembered: 120 s, and a minute to be sure."""

TIMEOUT_S = 10.0

_FORMAT = 1
_REWRITTEN_BYTES_MAX = MAX_BATCH_BYTES // 2


class Pass(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a pass has come.

    target: the term that everything is brought to. cursor: the last physical key passed. scanned, rewritten: records.
    finished_ms: 0 while it goes on. requests_gone_ms: the cluster time from which old request ids are forgotten.
    """

    target: int
    cursor: bytes = b""
    scanned: int = 0
    rewritten: int = 0
    started_ms: int = 0
    finished_ms: int = 0
    requests_gone_ms: int = 0


async def load(transaction: Transaction) -> Pass | None:
    """The latest pass. Raises Corruption."""
    stored = await transaction.get(PATH)
    if stored is None:
        return None
    if stored[:1] != bytes((_FORMAT,)):
        raise Corruption("the progress of the re-encryption has an unknown format: run the version that wrote it")
    try:
        return msgspec.msgpack.decode(stored[1:], type=Pass)
    except MALFORMED:
        raise Corruption("the progress of the re-encryption does not parse: restore from a snapshot") from None


class Reencryption:
    """The work, on the leader. now_ms: Unix time in milliseconds, for display."""

    def __init__(
        self,
        consensus: Consensus,
        seal: SealManager,
        *,
        random_bytes: Callable[[int], bytes],
        now_ms: Callable[[], int],
        page: int = PAGE,
    ) -> None:
        self._consensus = consensus
        self._seal = seal
        self._random_bytes = random_bytes
        self._now_ms = now_ms
        self._page = page

    async def step(self, policy: KeyPolicy) -> int | None:
        """Do a little. Returns how many records were rewritten; None when there is nothing to do. Raises what
        `propose` raises; nothing is lost then."""
        barrier = self._seal.barrier
        transaction = Transaction(self._consensus, barrier)
        at = await load(transaction)
        active = barrier.keyring.active_term
        if not policy.reencrypt and (at is None or not at.finished_ms):
            return None
        if at is None or at.target < active:
            if not policy.reencrypt or len(barrier.keyring.terms) == 1:
                return None
            began = Pass(
                target=active,
                started_ms=self._now_ms(),
                requests_gone_ms=self._consensus.status().cluster_time_ms + REQUESTS_GONE_MS,
            )
            await self._commit(transaction, began, [])
            return 0
        if not at.finished_ms:
            return await self._go_on(transaction, at)
        await self._drop_terms(at, policy)
        return None

    async def _go_on(self, transaction: Transaction, at: Pass) -> int:
        """Pass over what is new, up to a page that has old records; rewrite those."""
        barrier = self._seal.barrier
        own = barrier.physical(PATH)
        for _ in range(PAGES_PER_STEP_MAX):
            page = await self._consensus.scan(at.cursor, self._page)
            if not page:
                at = msgspec.structs.replace(at, finished_ms=max(self._now_ms(), 1))
                break
            old: list[tuple[bytes, Record]] = []
            size = 0
            for key, record in page:
                if key != own and _is_under_a_term_before(at.target, key, record):
                    size += len(key) + len(record.value)
                    if old and size > _REWRITTEN_BYTES_MAX:
                        break
                    old.append((key, record))
                at = msgspec.structs.replace(at, cursor=key, scanned=at.scanned + 1)
            if old:
                return await self._rewrite(transaction, at, old)
        await self._commit(transaction, at, [])
        return 0

    async def _rewrite(self, transaction: Transaction, at: Pass, old: list[tuple[bytes, Record]]) -> int:
        if len(old) == 1 and len(old[0][1].value) > _REWRITTEN_BYTES_MAX:
            # As large as a batch may be, so it goes alone; the next step finds it done and passes over it.
            done = await self._commit(None, at, old)
        else:
            done = await self._commit(transaction, msgspec.structs.replace(at, rewritten=at.rewritten + len(old)), old)
        return len(old) if done else 0

    async def _commit(self, transaction: Transaction | None, at: Pass, old: list[tuple[bytes, Record]]) -> bool:
        """Rewrite records and, with a transaction, store the place. False: something was written in between."""
        barrier = self._seal.barrier
        if transaction is None:
            assert barrier.fence is not None, "the keyring of an open node is stored"
            first = Batch(preconditions=(barrier.fence,))
        else:
            transaction.put(PATH, bytes((_FORMAT,)) + msgspec.msgpack.encode(at))
            first = transaction.batch()
        batch = Batch(
            puts=first.puts + tuple(Put(key, _anew(barrier, key, record)) for key, record in old),
            preconditions=first.preconditions + tuple(Precondition(key, record.revision) for key, record in old),
        )
        return isinstance(await self._consensus.propose(batch, timeout_s=TIMEOUT_S), Applied)

    async def _drop_terms(self, at: Pass, policy: KeyPolicy) -> None:
        """Drop the terms that nothing is under and that the policy does not keep."""
        if self._consensus.status().cluster_time_ms < at.requests_gone_ms:
            return
        barrier = self._seal.barrier
        unused = [term for term in barrier.keyring.terms[: -policy.keep_terms] if term < at.target]
        if not unused:
            return
        key = barrier.physical(PATH)
        record = await self._consensus.get(key)
        transaction = Transaction(self._consensus, barrier)
        if record is None or await load(transaction) != at:
            return
        guard = Precondition(key, record.revision)
        await rotation.drop_terms(self._consensus, self._seal, unused, random_bytes=self._random_bytes, guard=guard)

    def __repr__(self) -> str:
        return "<Reencryption>"


def _is_under_a_term_before(target: int, key: bytes, record: Record) -> bool:
    if key[:1] == KeyClass.CLUSTER.value and int.from_bytes(key[1:3], "big") <= CLEAR_SEGMENT_BYTES_MAX:
        return False  # the records that a sealed node reads: not behind the barrier
    return envelope.term_of(record.value) < target


def _anew(barrier: Barrier, key: bytes, record: Record) -> bytes:
    return barrier.encrypt(key, barrier.decrypt(key, record.value))
