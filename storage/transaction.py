"""What one request reads and writes, as plaintext paths, until it becomes one Batch of ciphertext (laws 1 and 3).

A transaction is for one attempt at one request: after a conflict a new one starts from nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from holdfast.proto.errors import InvalidArgument
from holdfast.storage import envelope
from holdfast.storage.barrier import Barrier
from holdfast.storage.batch import MAX_BATCH_BYTES, Batch, Precondition, Put, Record, RequestRecord
from holdfast.storage.keyring import UnknownTerm
from holdfast.storage.keys import CLEAR_SEGMENT_BYTES_MAX, KeyClass, frame

LIST_LIMIT_MAX = 10_000
"""How many names one page may hold."""

_AFTER_CLEAR_NAMES = frame(b"\xff" * CLEAR_SEGMENT_BYTES_MAX)
"""A cursor behind the readable names that stand at the root of the cluster class and belong to no path."""


class Reader(Protocol):
    """The part of Consensus that a transaction reads through: the local, applied state."""

    async def get(self, key: bytes) -> Record | None:
        """The record under a physical key."""
        ...

    async def children(self, prefix: bytes, after: bytes, limit: int) -> list[tuple[bytes, bool, bool]]:
        """The encrypted segments below a physical key (see `listing.children`)."""
        ...


class Transaction:
    """Reads through a reader, keeps writes to itself. Paths are absolute: "shared/..", "local/..", "cluster/..".

    Every path raises InvalidArgument when it is malformed or too long; every method raises Sealed once the barrier is
    closed, and Corruption when a stored record does not open. A path is read once: reading it again gives the same.
    """

    def __init__(self, reader: Reader, barrier: Barrier) -> None:
        self._reader = reader
        self._barrier = barrier
        self._read: dict[bytes, tuple[int, bytes | None]] = {}
        self._written: dict[bytes, bytes | None] = {}
        self._written_bytes = 0

    @property
    def writes(self) -> bool:
        """Whether anything was put or deleted."""
        return bool(self._written)

    async def get(self, path: str) -> bytes | None:
        """The plaintext at a path, this transaction's own writes included; None when there is none."""
        key = self._key(path)
        if key in self._written:
            return self._written[key]
        known = self._read.get(key)
        if known is None:
            known = await self._opened(key)
            # A concurrent get of the same path may have come first; all its callers must see one state.
            known = self._read.setdefault(key, known)
        return known[1]

    def put(self, path: str, value: bytes) -> None:
        """Store plaintext at a path. Raises InvalidArgument when the writes pass MAX_BATCH_BYTES together."""
        self._write(self._key(path), value)

    def delete(self, path: str) -> None:
        """Remove what is stored at a path, if anything; what is below it stays."""
        self._write(self._key(path), None)

    async def list(self, path: str, *, after: str = "", limit: int = 1000) -> Sequence[str]:
        """Up to `limit` names directly below a path, those with names below them ending in "/".

        A name that is both appears twice, adjacent: "a" and "a/"; both or neither are in a page, so a page may hold
        `limit` + 1. In the order of the encrypted names: stable, not alphabetical. `after`: the last name of the page
        before, with or without its "/". Shows committed state only, and is no precondition.
        """
        if not 1 <= limit <= LIST_LIMIT_MAX:
            raise InvalidArgument(f"a list's limit is 1 to {LIST_LIMIT_MAX}", field="limit")
        parent = self._barrier.physical(path.removesuffix("/"))
        if after:
            cursor = self._barrier.segment(parent, after.removesuffix("/"))
        else:
            cursor = _AFTER_CLEAR_NAMES if parent == KeyClass.CLUSTER.value else b""
        found: list[str] = []
        # A child gives at least one name, so `limit` children always fill the page.
        for segment, has_record, has_children in await self._reader.children(parent, cursor, limit):
            if len(found) >= limit:
                break
            name = self._barrier.open_segment(parent, segment)
            if has_record:
                found.append(name)
            if has_children:
                found.append(name + "/")
        return found

    async def unchanged(self) -> bool:
        """Whether everything read still stands at the revision it was read at: then all of it was true at one moment.
        For a request that only reads several paths; one that writes has its preconditions checked at apply."""
        for key, (revision, _) in self._read.items():
            record = await self._reader.get(key)
            if (0 if record is None else record.revision) != revision:
                return False
        return True

    def batch(self, request: RequestRecord | None = None) -> Batch:
        """The writes, encrypted, with the barrier's fence and everything read as preconditions."""
        written = sorted(self._written.items())
        fence = () if self._barrier.fence is None else (self._barrier.fence,)
        return Batch(
            puts=tuple(Put(key, self._barrier.encrypt(key, value)) for key, value in written if value is not None),
            deletes=tuple(key for key, value in written if value is None),
            preconditions=fence
            + tuple(Precondition(key, revision) for key, (revision, _) in sorted(self._read.items())),
            request=request,
        )

    def view(self, prefix: str) -> View:
        """The part of the tree below `prefix` (with or without a trailing "/"), as a tree of its own."""
        return View(self, prefix)

    def __repr__(self) -> str:
        return f"<Transaction reads={len(self._read)} writes={len(self._written)}>"

    async def _opened(self, key: bytes) -> tuple[int, bytes | None]:
        """The revision and the plaintext of a record as it stands, whatever becomes of the keyring meanwhile."""
        while True:
            record = await self._reader.get(key)
            if record is None:
                return 0, None
            try:
                return record.revision, self._barrier.decrypt(key, record.value)
            except UnknownTerm:
                if not await self._barrier.refresh():
                    raise

    def _key(self, path: str) -> bytes:
        key = self._barrier.physical(path)
        if len(key) == 1:
            raise InvalidArgument("the root of a class holds no record: name a path below it", field="path")
        return key

    def _write(self, key: bytes, value: bytes | None) -> None:
        total = self._written_bytes - self._cost(key) + _cost(key, value)
        if total > MAX_BATCH_BYTES:
            raise InvalidArgument(f"the request writes more than {MAX_BATCH_BYTES} bytes: split it", field="data")
        self._written[key] = value
        self._written_bytes = total

    def _cost(self, key: bytes) -> int:
        return _cost(key, self._written[key]) if key in self._written else 0


class View:
    """A subtree as its own tree: the StorageView that an engine is given. Paths are relative to the prefix and, having
    no ".." and no empty segment, cannot leave it."""

    __slots__ = ("_prefix", "_transaction")

    def __init__(self, transaction: Transaction, prefix: str) -> None:
        self._transaction = transaction
        self._prefix = prefix.removesuffix("/")

    async def get(self, path: str) -> bytes | None:
        """See Transaction."""
        return await self._transaction.get(self._absolute(path))

    def put(self, path: str, value: bytes) -> None:
        """See Transaction."""
        self._transaction.put(self._absolute(path), value)

    def delete(self, path: str) -> None:
        """See Transaction."""
        self._transaction.delete(self._absolute(path))

    async def list(self, path: str, *, after: str = "", limit: int = 1000) -> Sequence[str]:
        """See Transaction. The empty path lists the view's root."""
        return await self._transaction.list(self._absolute(path) if path else self._prefix, after=after, limit=limit)

    def __repr__(self) -> str:
        return f"<View of {self._transaction!r}>"

    def _absolute(self, path: str) -> str:
        return f"{self._prefix}/{path}"


def _cost(key: bytes, value: bytes | None) -> int:
    return len(key) + (0 if value is None else len(value) + envelope.OVERHEAD_BYTES)
