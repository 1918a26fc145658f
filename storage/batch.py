"""The unit of change: what one request does to the replicated state, as ciphertext (laws 1 and 3).

A Batch is made on the leader, travels through the log, and is applied on every replica in one atomic step. It carries
no clock, no key and nothing readable.
"""

from __future__ import annotations

import msgspec

MAX_BATCH_BYTES = 2 * 1024 * 1024
"""The largest encoded batch, in bytes. A secret is at most 1 MiB."""


class Precondition(msgspec.Struct, frozen=True, array_like=True):
    """`key` must be at exactly this revision when the batch is applied; 0 means the key must not exist."""

    key: bytes
    revision: int


class Put(msgspec.Struct, frozen=True, array_like=True):
    """Store `value` (an envelope) under `key` (an encrypted name)."""

    key: bytes
    value: bytes


class RequestRecord(msgspec.Struct, frozen=True, array_like=True):
    """Makes a batch take effect once (Raft thesis, section 6.3): when `key` is known already, the batch changes
    nothing and its outcome is the `response` recorded the first time."""

    key: bytes
    response: bytes


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Puts, deletes and preconditions of one request. Either all of it happens, or nothing.

    puts, deletes: each key at most once over both.
    preconditions: checked against the state that all earlier batches left.
    request: set for a write that carries a request id.
    """

    puts: tuple[Put, ...] = ()
    deletes: tuple[bytes, ...] = ()
    preconditions: tuple[Precondition, ...] = ()
    request: RequestRecord | None = None


class Record(msgspec.Struct, frozen=True, array_like=True):
    """A stored value and the log index of its last write."""

    value: bytes
    revision: int
