"""The replicated state: ciphertext records under ciphertext names. Knows no clock, no randomness and no key (law 1).

    "d" physical key                     -> revision (8 bytes, big-endian), value
    "r" request key                      -> cluster time (8 bytes), response
    "t" cluster time (8 bytes) request key -> empty: request records in the order of time, for pruning
    "m"                                  -> how far it has applied (`AppliedMeta`)
    "c"                                  -> the configuration at that point
    "s"                                  -> only in a state that was restored: see `take_over`

Every chunk of entries is one atomic write of data and `AppliedMeta`, which holds the digests of `statedigest.py`. The
write is not synced: after a crash the log is applied again from wherever the store stands.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import msgspec

from holdfast.cluster.raft.consensus import SCAN_BYTES_MAX, Applied, Conflicted, Duplicate, Outcome
from holdfast.cluster.raft.entries import ORIGIN_DIGEST, Digest, Entry, Kind, Position, split_batches
from holdfast.cluster.raft.statedigest import CONTENT_BYTES, Content, roll, roll_restore, together
from holdfast.proto.errors import Corruption, Fatal
from holdfast.storage.batch import Batch, Record
from holdfast.storage.decoding import MALFORMED
from holdfast.storage.keys import successor
from holdfast.storage.store import Store

REQUEST_WINDOW_MS = 120_000
"""How long a request id is remembered, in cluster time. A retry must come well before (core refuses older ones)."""

PRUNED_PER_APPLY_MAX = 1024
"""Expired request records removed in one apply."""

DATA = b"d"
_REQUEST = b"r"
_REQUEST_TIME = b"t"
_META = b"m"
_CONFIGURATION = b"c"
RESTORED_SUM = b"s"
_U64 = struct.Struct(">Q")
FORMAT = 2

DIGESTS_KEPT = 4096
"""For how many of the latest entries the state's digest is remembered, so that it can be compared."""

_Content = Annotated[bytes, msgspec.Meta(min_length=CONTENT_BYTES, max_length=CONTENT_BYTES)]


class AppliedMeta(msgspec.Struct, frozen=True, array_like=True):
    """How far the state machine has come.

    at: the last entry applied. outcomes, content: the digests of all outcomes and of all records there.
    restored_at: the entry that replaced the state last; 0 when none did. Every record counts as written there or later.
    keys_replaced_at: the same of the last one that also replaced the seal and the keyring.
    """

    format: int = FORMAT
    at: Position = Position()
    outcomes: Digest = ORIGIN_DIGEST
    content: _Content = bytes(CONTENT_BYTES)
    restored_at: int = 0
    keys_replaced_at: int = 0


@dataclass(frozen=True)
class Chunk:
    """What applying a run of entries did: the outcomes of each entry's batches, and the keys that changed."""

    outcomes: list[list[Outcome]]
    changed: list[bytes]


class StateMachine:
    """Applies entries to a store. Raises Fatal when an entry cannot be applied: replicas that carry on would differ."""

    def __init__(self, store: Store) -> None:
        self.adopt(store)

    def adopt(self, store: Store) -> None:
        """Go on with another store, as it stands."""
        self._store = store
        stored = store.get(_META)
        try:
            self._meta = AppliedMeta() if stored is None else msgspec.msgpack.decode(stored, type=AppliedMeta)
        except MALFORMED as error:
            raise Corruption("the state's header does not decode; rebuild this node from its peers") from error
        if self._meta.format != FORMAT:
            raise Corruption(f"the state has format {self._meta.format}; this build reads format {FORMAT}")
        if stored is None and store.seek(b"") is not None:
            raise Corruption("the state has records but no header; rebuild this node from its peers")
        self._digests = {self.applied.index: self.state_digest}

    @property
    def store(self) -> Store:
        """The store in use."""
        return self._store

    @property
    def applied(self) -> Position:
        """The last entry applied."""
        return self._meta.at

    @property
    def keys_replaced_at(self) -> int:
        """The last entry that replaced the seal and the keyring; 0 when none did."""
        return self._meta.keys_replaced_at

    @property
    def state_digest(self) -> bytes:
        """What the state at `applied` amounts to: equal on every replica that has come as far."""
        return together(self._meta.outcomes, self._meta.content)

    def digest_at(self, index: int) -> bytes | None:
        """The state's digest after the entry at `index`; None when it is not remembered."""
        return self._digests.get(index)

    @property
    def content(self) -> bytes:
        """The kept sum over all records."""
        return self._meta.content

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """All records as they are stored at the time of the call: what `content` is the sum of."""
        for key, stored in self._store.scan(DATA, successor(DATA)):
            yield key[len(DATA) :], stored

    def get(self, key: bytes) -> Record | None:
        """The record under a physical key."""
        stored = self.stored(key)
        return None if stored is None else Record(stored[8:], self.revision_of(stored))

    def keys(self, prefix: bytes) -> list[bytes]:
        """The physical keys that begin with a prefix."""
        end = successor(DATA + prefix)
        return [key[len(DATA) :] for key, _ in self._store.scan(DATA + prefix, end)]

    def scan(self, after: bytes, limit: int) -> list[tuple[bytes, Record]]:
        """Records in key order (see Consensus)."""
        found: list[tuple[bytes, Record]] = []
        size = 0
        for key, stored in self._store.scan(DATA + after + b"\x00" if after else DATA, successor(DATA)):
            found.append((key[len(DATA) :], Record(stored[8:], self.revision_of(stored))))
            size += len(stored)
            if len(found) >= limit or size >= SCAN_BYTES_MAX:
                break
        return found

    def duplicate_of(self, request_key: bytes) -> bytes | None:
        """The recorded response of a request id that is still remembered."""
        return self._remembered(request_key, self._meta.at.cluster_time_ms)

    def sync(self) -> None:
        """Make what has been applied durable. Blocks; may run in another thread."""
        self._store.sync()

    def apply(self, entries: Sequence[Entry]) -> Chunk:
        """Apply entries that directly follow what has been applied, in one atomic write."""
        run = _Run(self, self._meta)
        outcomes = [run.entry(entry) for entry in entries]
        puts, deletes = run.writes()
        pruned = self._expired(run.meta.at.cluster_time_ms, run.requests)
        puts.append((_META, msgspec.msgpack.encode(run.meta)))
        self._store.write(puts, deletes + pruned)
        self._meta = run.meta
        self._remember(run.digests)
        return Chunk(outcomes, list(run.records))

    def _remember(self, digests: dict[int, bytes]) -> None:
        self._digests.update(digests)
        excess = len(self._digests) - DIGESTS_KEPT
        for index in list(islice(self._digests, max(0, excess))):
            del self._digests[index]

    def stored(self, key: bytes) -> bytes | None:
        """A record as it is stored."""
        return self._store.get(DATA + key)

    def revision(self, key: bytes) -> int:
        """The revision of a record; 0 when there is none."""
        stored = self.stored(key)
        return 0 if stored is None else self.revision_of(stored)

    def revision_of(self, stored: bytes) -> int:
        """The revision of a stored record."""
        return max(int(_U64.unpack_from(stored)[0]), self._meta.restored_at)

    def _remembered(self, request_key: bytes, now_ms: int) -> bytes | None:
        stored = self._store.get(_REQUEST + request_key)
        if stored is None or _expired_at(_U64.unpack_from(stored)[0], now_ms):
            return None
        return stored[8:]

    def _expired(self, now_ms: int, renewed: dict[bytes, tuple[int, bytes]]) -> list[bytes]:
        """Keys of request records to remove. Which records *count* is decided by cluster time alone, in the same way
        on every replica; this only gives the space back, a bounded amount at a time."""
        if now_ms <= REQUEST_WINDOW_MS:
            return []
        keys: list[bytes] = []
        scan = self._store.scan(_REQUEST_TIME, _REQUEST_TIME + _U64.pack(now_ms - REQUEST_WINDOW_MS))
        for _, (index_key, _empty) in zip(range(PRUNED_PER_APPLY_MAX), scan, strict=False):
            keys.append(index_key)
            request_key = index_key[9:]
            stored = self._store.get(_REQUEST + request_key)
            if request_key not in renewed and stored is not None and stored[:8] == index_key[1:9]:
                keys.append(_REQUEST + request_key)
        return keys


def take_over(
    store: Store, machine: StateMachine, entry: Entry, *, keys_replaced: bool, sha256: bytes, content: bytes
) -> None:
    """Give a store that holds other records the place of a machine's state after `entry`, which replaces all records.
    sha256: of the file that they came from. content: the sum over them.

    Request records are not taken over: what they say was done is gone, so that a retry must do it again."""
    before = machine._meta  # noqa: SLF001 - the two are one
    position = Position(entry.index, entry.term, entry.cluster_time_ms, entry.digest)
    outcomes = roll_restore(before.outcomes, entry.index, sha256)
    keys_replaced_at = entry.index if keys_replaced else before.keys_replaced_at
    meta = AppliedMeta(FORMAT, position, outcomes, content, entry.index, keys_replaced_at)
    configuration = machine.store.get(_CONFIGURATION)
    puts = [(_META, msgspec.msgpack.encode(meta))]
    if configuration is not None:
        puts.append((_CONFIGURATION, configuration))
    store.write(puts)


def _expired_at(recorded_ms: int, now_ms: int) -> bool:
    return now_ms - recorded_ms > REQUEST_WINDOW_MS


class _Run:
    """One apply: what its entries have changed so far, over the store as it was before.

    records: as they will be stored; None for those that go. digests: of the state after each entry.
    """

    def __init__(self, machine: StateMachine, meta: AppliedMeta) -> None:
        self._machine = machine
        self.meta = meta
        self.records: dict[bytes, bytes | None] = {}
        self.requests: dict[bytes, tuple[int, bytes]] = {}
        self.digests: dict[int, bytes] = {}
        self._read: dict[bytes, bytes | None] = {}
        self._content = Content(meta.content)
        self._configuration: bytes | None = None

    def entry(self, entry: Entry) -> list[Outcome]:
        """Apply one entry."""
        at = self.meta.at
        if entry.index != at.index + 1 or entry.term < at.term or entry.cluster_time_ms < at.cluster_time_ms:
            raise Fatal(f"entry {entry.index} does not follow what was applied ({at.index})")
        outcomes: list[Outcome] = []
        if entry.kind is Kind.BATCHES:
            try:
                batches = split_batches(entry.payload)
            except MALFORMED as error:
                raise Fatal(f"committed entry {entry.index} does not decode; the node must not carry on") from error
            outcomes = [self._batch(batch, entry) for batch in batches]
        elif entry.kind is Kind.MEMBERSHIP:
            self._configuration = entry.payload
        position = Position(entry.index, entry.term, entry.cluster_time_ms, entry.digest)
        rolled, content = roll(self.meta.outcomes, entry.index, outcomes), self._content.encoded()
        self.meta = msgspec.structs.replace(self.meta, at=position, outcomes=rolled, content=content)
        self.digests[entry.index] = together(rolled, content)
        return outcomes

    def _batch(self, batch: Batch, entry: Entry) -> Outcome:
        if batch.request is not None:
            response = self._remembered(batch.request.key, entry.cluster_time_ms)
            if response is not None:
                return Duplicate(response)
        for precondition in batch.preconditions:
            if self._revision(precondition.key) != precondition.revision:
                return Conflicted(precondition.key)
        for put in batch.puts:
            self._change(put.key, _U64.pack(entry.index) + put.value)
        for key in batch.deletes:
            self._change(key, None)
        if batch.request is not None:
            self.requests[batch.request.key] = (entry.cluster_time_ms, batch.request.response)
        return Applied(entry.index)

    def _change(self, key: bytes, stored: bytes | None) -> None:
        self._content.replace(key, self._stored(key), stored)
        self.records[key] = stored

    def _revision(self, key: bytes) -> int:
        stored = self._stored(key)
        return 0 if stored is None else self._machine.revision_of(stored)

    def _stored(self, key: bytes) -> bytes | None:
        if key in self.records:
            return self.records[key]
        if key not in self._read:
            self._read[key] = self._machine.stored(key)
        return self._read[key]

    def _remembered(self, request_key: bytes, now_ms: int) -> bytes | None:
        recorded = self.requests.get(request_key)
        if recorded is None:
            return self._machine._remembered(request_key, now_ms)  # noqa: SLF001 - the two are one
        return None if _expired_at(recorded[0], now_ms) else recorded[1]

    def writes(self) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
        """The puts and deletes of this run."""
        puts: list[tuple[bytes, bytes]] = []
        deletes: list[bytes] = []
        for key, record in self.records.items():
            if record is None:
                deletes.append(DATA + key)
            else:
                puts.append((DATA + key, record))
        for key, (time_ms, response) in self.requests.items():
            puts.append((_REQUEST + key, _U64.pack(time_ms) + response))
            puts.append((_REQUEST_TIME + _U64.pack(time_ms) + key, b""))
        if self._configuration is not None:
            puts.append((_CONFIGURATION, self._configuration))
        return puts, deletes
