"""A log entry and the digest chain that ties it to everything before it.

Two logs with the same digest at an index are the same log up to there. The digest is what turns "same index and term"
(Raft's log matching property, which assumes that nothing goes wrong) into something a replica can check.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Sequence
from typing import Annotated

import msgspec

from holdfast.storage.batch import MAX_BATCH_BYTES, Batch

DIGEST_BYTES = 16
"""BLAKE2b-128."""

ORIGIN_DIGEST = bytes(DIGEST_BYTES)
"""The digest before entry 1, the same in every log."""

PAYLOAD_BYTES_MAX = MAX_BATCH_BYTES + 64 * 1024
"""The largest payload of an entry: the largest batch and what wraps it. Fits in a stored value (4 MiB)."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Payload = Annotated[bytes, msgspec.Meta(max_length=PAYLOAD_BYTES_MAX)]

_HEADER = struct.Struct(">QQQB")


class Kind(enum.IntEnum):
    """What an entry is for. The numbers below 16 are pysyncobj's command types."""

    BATCHES = 0
    NOOP = 1
    MEMBERSHIP = 2
    RESTORE = 16


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One log entry.

    cluster_time_ms: milliseconds of leadership the cluster had seen when the leader appended it.
    payload: for BATCHES the encoded batches, for MEMBERSHIP the encoded configuration, for RESTORE what replaces the
        state (`restoring.py`), for NOOP empty.
    digest: BLAKE2b-128 of the previous entry's digest and this entry.
    """

    index: Count
    term: Count
    cluster_time_ms: Count
    kind: Kind
    payload: Payload
    digest: Digest


class Position(msgspec.Struct, frozen=True, array_like=True):
    """A place in the log and what identifies everything up to it."""

    index: Count = 0
    term: Count = 0
    cluster_time_ms: Count = 0
    digest: Digest = ORIGIN_DIGEST


def chain(previous: bytes, index: int, term: int, cluster_time_ms: int, kind: int, payload: bytes) -> bytes:
    """The digest of an entry that follows an entry with digest `previous`."""
    state = hashlib.blake2b(previous, digest_size=DIGEST_BYTES)
    state.update(_HEADER.pack(index, term, cluster_time_ms, kind))
    state.update(payload)
    return state.digest()


def follow(previous: Entry | Position, *, term: int, cluster_time_ms: int, kind: Kind, payload: bytes = b"") -> Entry:
    """The next entry after `previous`."""
    index = previous.index + 1
    digest = chain(previous.digest, index, term, cluster_time_ms, kind, payload)
    return Entry(index, term, cluster_time_ms, kind, payload, digest)


def follows(previous: Entry | Position, entry: Entry) -> bool:
    """Whether `entry` is a genuine successor of `previous`: next index, no step back in term or time, right digest."""
    return (
        entry.index == previous.index + 1
        and entry.term >= previous.term
        and entry.cluster_time_ms >= previous.cluster_time_ms
        and entry.digest
        == chain(previous.digest, entry.index, entry.term, entry.cluster_time_ms, entry.kind, entry.payload)
    )


def position(entry: Entry) -> Position:
    """Where the entry stands."""
    return Position(entry.index, entry.term, entry.cluster_time_ms, entry.digest)


_ENCODER = msgspec.msgpack.Encoder()
_BATCHES = msgspec.msgpack.Decoder(tuple[Batch, ...])
_ENTRY = msgspec.msgpack.Decoder(Entry)


def encode_batch(batch: Batch) -> bytes:
    """A batch in the form in which it joins others in an entry."""
    return _ENCODER.encode(batch)


def join_batches(encoded: Sequence[bytes]) -> bytes:
    """The payload of a BATCHES entry."""
    return _ENCODER.encode([msgspec.Raw(batch) for batch in encoded])


def split_batches(payload: bytes) -> tuple[Batch, ...]:
    """The batches of a BATCHES entry. Raises msgspec.DecodeError or msgspec.ValidationError."""
    return _BATCHES.decode(payload)


def encode_entry(entry: Entry) -> bytes:
    """An entry as the journal stores it."""
    return _ENCODER.encode(entry)


def decode_entry(stored: bytes) -> Entry:
    """A stored entry. Raises msgspec.DecodeError or msgspec.ValidationError."""
    return _ENTRY.decode(stored)
