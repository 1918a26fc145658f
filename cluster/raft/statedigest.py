"""What a state amounts to, in a few bytes, so that replicas can be compared at every index.

*Content* is the sum, modulo 2^256, of a hash of each record. It can be kept current with each change (the record that
goes is subtracted, the one that comes is added) and worked out anew from the records in any order. Kept on one side and
worked out on the other, it must give the same number: that shows a record that was altered where it lies. Wherever the
kept numbers of two replicas differ, their records do.
*Outcomes* rolls over what every batch did: applied, conflicted or known already.

Both find accidents (disks, memory, faults in the program), not an attacker, who could write a fitting digest.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence

from holdfast.cluster.raft.consensus import Applied, Conflicted, Outcome
from holdfast.cluster.raft.entries import DIGEST_BYTES

CONTENT_BYTES = 32
_MODULUS = 1 << (8 * CONTENT_BYTES)
_KEY = struct.Struct(">I")
_INDEX = struct.Struct(">Q")


def record_hash(key: bytes, stored: bytes) -> int:
    """What one record, as it is stored, adds to the content."""
    state = hashlib.blake2b(_KEY.pack(len(key)) + key, digest_size=CONTENT_BYTES)
    state.update(stored)
    return int.from_bytes(state.digest(), "big")


class Content:
    """The sum over a set of records."""

    __slots__ = ("_sum",)

    def __init__(self, encoded: bytes = bytes(CONTENT_BYTES)) -> None:
        self._sum = int.from_bytes(encoded, "big")

    def replace(self, key: bytes, before: bytes | None, after: bytes | None) -> None:
        """A record changed, came (`before` is None) or went (`after` is None)."""
        if before is not None:
            self._sum -= record_hash(key, before)
        if after is not None:
            self._sum += record_hash(key, after)
        self._sum %= _MODULUS

    def add_all(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Take in records that were not there."""
        self._sum = (self._sum + sum(record_hash(key, stored) for key, stored in records)) % _MODULUS

    def encoded(self) -> bytes:
        """The sum, in CONTENT_BYTES bytes."""
        return self._sum.to_bytes(CONTENT_BYTES, "big")


def roll(outcomes: bytes, index: int, results: Sequence[Outcome]) -> bytes:
    """The digest of all outcomes after those of the entry at `index`."""
    state = hashlib.blake2b(outcomes, digest_size=DIGEST_BYTES)
    state.update(_INDEX.pack(index))
    for outcome in results:
        if isinstance(outcome, Applied):
            state.update(b"a")
        elif isinstance(outcome, Conflicted):
            state.update(b"c" + outcome.key)
        else:
            state.update(b"d" + outcome.response)
    return state.digest()


def roll_restore(outcomes: bytes, index: int, sha256: bytes) -> bytes:
    """The digest of all outcomes after an entry at `index` that replaced all records by those of a file."""
    return hashlib.blake2b(outcomes + _INDEX.pack(index) + b"r" + sha256, digest_size=DIGEST_BYTES).digest()


def together(outcomes: bytes, content: bytes) -> bytes:
    """The digest that replicas compare."""
    return hashlib.blake2b(outcomes + content, digest_size=DIGEST_BYTES).digest()
