"""How many values the active term has encrypted, cluster-wide, so that it is replaced long before nonces may repeat.

Only the leader encrypts what is stored, and it counts in memory. So it reserves in advance: a record says how many
encryptions were reserved under the term, in blocks, and a leader takes a new block when half of its last one is used.
What a leader reserved and did not use is lost when it stops leading or is sealed: the count is too high then, never
too low. What it used before its first reservation was applied is made up for by the next leader's, which is larger by
SLACK.
"""

from __future__ import annotations

import msgspec

from holdfast.cluster.raft.consensus import Applied, Consensus
from holdfast.cluster.seal.seal import SealManager
from holdfast.proto.errors import Corruption
from holdfast.storage.barrier import Barrier
from holdfast.storage.decoding import MALFORMED
from holdfast.storage.transaction import Transaction

PATH = "cluster/keys/usage"

BLOCK = 2**20
"""How many encryptions are reserved at a time."""

SLACK = 2**17
"""More than a leader can encrypt before its first reservation: the requests that a node handles at once (8,192), each
evaluated as often as it may be (16)."""

TIMEOUT_S = 10.0

_FORMAT = 1


class Usage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What was reserved under a term."""

    term: int
    reserved: int


async def reserved(transaction: Transaction, term: int) -> int:
    """How many encryptions were reserved under a term: at least as many as there were. Raises Corruption."""
    stored = await transaction.get(PATH)
    if stored is None:
        return 0
    if stored[:1] != bytes((_FORMAT,)):
        raise Corruption("the count of encryptions has an unknown format: run the version that wrote it")
    try:
        usage = msgspec.msgpack.decode(stored[1:], type=Usage)
    except MALFORMED:
        raise Corruption("the count of encryptions does not parse: restore this cluster from a snapshot") from None
    return usage.reserved if usage.term == term else 0


class EncryptionCount:
    """The leader's reservations. block, slack: see the module."""

    def __init__(self, consensus: Consensus, seal: SealManager, *, block: int = BLOCK, slack: int = SLACK) -> None:
        self._consensus = consensus
        self._seal = seal
        self._block = block
        self._slack = slack
        self._granted_for: tuple[int, int, Barrier] | None = None  # the term of leadership, the key term, who encrypts
        self._granted = 0  # up to which of this node's own encryptions it has reserved

    async def step(self) -> int:
        """Reserve what is needed. On the leader, again and again. Returns what is reserved under the active term by
        all nodes. Raises what `propose` raises; nothing is lost then."""
        barrier = self._seal.barrier
        key_term, used = barrier.keyring.active_term, barrier.encryptions
        # A node that was sealed and opened again counts from 0, and may have led all the while.
        reign = (self._consensus.status().term, key_term, barrier)
        first = reign != self._granted_for
        transaction = Transaction(self._consensus, barrier)
        total = await reserved(transaction, key_term)
        if not first and used + self._block // 2 <= self._granted:
            return total
        more = self._block + (self._slack if first else 0)
        transaction.put(PATH, bytes((_FORMAT,)) + msgspec.msgpack.encode(Usage(key_term, total + more)))
        outcome = await self._consensus.propose(transaction.batch(), timeout_s=TIMEOUT_S)
        if not isinstance(outcome, Applied):
            return total
        self._granted_for = reign
        self._granted = used + self._block if first else self._granted + self._block
        return total + more

    def __repr__(self) -> str:
        return "<EncryptionCount>"
