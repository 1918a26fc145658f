"""The mount table: which engine serves which paths, and where in the tree each mount keeps its records.

Stored whole under one record, `shared/core/mounts`. Every mount owns `shared/mount/<uuid>/`: moving a mount changes its
path and nothing it stores, and a mount made anew under an old path sees nothing of the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

import msgspec

from holdfast.proto.errors import Corruption, NotFound
from holdfast.storage.decoding import MALFORMED

CORE_PREFIX, MOUNTS_NAME = "shared/core", "mounts"

MOUNTS_PATH = f"{CORE_PREFIX}/{MOUNTS_NAME}"

_FORMAT = 1


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """One mount. `created`: RFC 3339, UTC."""

    type: str
    uuid: str
    created: str
    options: dict[str, str] = {}
    description: str = ""

    @property
    def view_prefix(self) -> str:
        """Where the mount's records are."""
        return f"shared/mount/{self.uuid}"


class _Table(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    mounts: dict[str, Mount]
    dropping: tuple[str, ...] = ()


class MountTable:
    """Mounts by path; a path ends in "/". dropping: where records of disabled mounts are that are not removed yet."""

    def __init__(self, mounts: Mapping[str, Mount], dropping: Sequence[str] = ()) -> None:
        self._mounts = dict(mounts)
        self.dropping = tuple(dropping)
        self._by_segments = {tuple(path.removesuffix("/").split("/")): path for path in self._mounts}

    @property
    def mounts(self) -> Mapping[str, Mount]:
        """Every mount by its path."""
        return self._mounts

    def lookup(self, path: Sequence[str]) -> tuple[str, Mount, Sequence[str]]:
        """The mount with the longest path that `path` begins with: (its path, itself, the segments below it).

        Raises NotFound when no mount serves the path."""
        for length in range(len(path), 0, -1):
            found = self._by_segments.get(tuple(path[:length]))
            if found is not None:
                return found, self._mounts[found], path[length:]
        raise NotFound("no mount serves this path: see the mounts at sys/mounts")

    def encode(self) -> bytes:
        """The stored form."""
        return msgspec.msgpack.encode(_Table(format=_FORMAT, mounts=self._mounts, dropping=self.dropping))

    @classmethod
    def decode(cls, record: bytes) -> MountTable:
        """Raises Corruption when the record is none of ours."""
        try:
            table = msgspec.msgpack.decode(record, type=_Table)
        except MALFORMED:
            raise Corruption("the mount table's record does not parse: restore this node from its peers") from None
        if table.format != _FORMAT:
            raise Corruption(f"the mount table has format {table.format}, this build reads {_FORMAT}: upgrade the node")
        return cls(table.mounts, table.dropping)

    def __repr__(self) -> str:
        return f"<MountTable of {len(self._mounts)}>"


class _Getter(Protocol):
    async def get(self, path: str) -> bytes | None: ...


class MountCache:
    """The table as a transaction sees it, parsed again only when its record has changed.

    The record is always read through the transaction, so that every write that depended on the table has the table's
    revision among its preconditions: a mount cannot be removed under a write in flight.
    """

    def __init__(self) -> None:
        self._record: bytes | None = None
        self._table: MountTable | None = None

    async def table(self, txn: _Getter) -> MountTable:
        """The mounts as of the transaction. Raises Corruption when an initialised cluster has no table."""
        record = await txn.get(MOUNTS_PATH)
        if record is None:
            raise Corruption("the mount table is missing from an initialised cluster: restore it from a snapshot")
        if record != self._record or self._table is None:
            self._table = MountTable.decode(record)
            self._record = record
        return self._table

    def forget(self) -> None:
        """Drop what was decrypted."""
        self._record = self._table = None


def new_mount(
    *, engine: str, created: str, options: Mapping[str, str], description: str, random_bytes: Callable[[int], bytes]
) -> Mount:
    """A mount of an engine type under a storage prefix of its own. `created`: RFC 3339."""
    uuid = str(UUID(bytes=random_bytes(16), version=4))
    return Mount(type=engine, uuid=uuid, created=created, options=dict(options), description=description)
