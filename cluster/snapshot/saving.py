"""The state as a snapshot file: a copy at one position, read twice in the background and never fast.

The first reading opens the copy as a store, in a folder of its own, and looks at every record: that is the verification
(RocksDB's checksums, the position, the keys' form), and gives the counts and the SHA-256 of the head. The second makes
the file and must come to the same. Both are done in slices, in a thread of their own, with pauses in between: a slice
holds the interpreter, and that is what requests would feel.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog

from holdfast.cluster.raft.copying import CopiedState
from holdfast.cluster.raft.statemachine import DATA, StateMachine
from holdfast.cluster.seal.records import SEAL_KEY, decode_config
from holdfast.proto.errors import Corruption, Overloaded, Uninitialized
from holdfast.proto.snapshot_file import (
    BLOCK_BYTES,
    CLASSES,
    SnapshotMember,
    SnapshotMetadata,
    SnapshotWriter,
    encode_record,
)
from holdfast.storage.keys import successor
from holdfast.storage.store import Store

SLICE_RECORDS = 128
"""The most records in a block: small ones are what takes time, not bytes."""

BYTES_PER_S = 16 * 1024 * 1024
"""How fast a copy is read."""

RECORD_COST_BYTES = 512
"""What a record counts for besides its bytes."""

_log = structlog.stdlib.get_logger(__name__)


class CopyState(Protocol):
    """Where a copy of the state comes from."""

    async def copy_state(self) -> CopiedState:
        """A copy at a known position. Raises Conflict."""
        ...


@dataclass(frozen=True)
class Made:
    """A part of a file: the head, a block, or the end. expected_bytes: about how long the file will be."""

    data: bytes
    metadata: SnapshotMetadata
    expected_bytes: int


class SnapshotMaker:
    """Makes snapshot files of one node's state, one at a time.

    wall_clock: Unix time in seconds, for display. monotonic: seconds. bytes_per_s: how fast at most.
    """

    def __init__(
        self,
        source: CopyState,
        *,
        node_id: str,
        version: str,
        wall_clock: Callable[[], float],
        monotonic: Callable[[], float],
        bytes_per_s: int = BYTES_PER_S,
    ) -> None:
        self._source = source
        self._node_id = node_id
        self._version = version
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._bytes_per_s = bytes_per_s
        self._busy = False

    async def make(self) -> AsyncGenerator[Made, None]:
        """The parts of a file, in order. What came is a verified snapshot when the iterator ends without an error.
        Close it in any case. Raises Overloaded while another one is made, and Corruption."""
        if self._busy:
            raise Overloaded("this node makes a snapshot already: wait until it is done, or ask another node")
        self._busy = True
        worker = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        try:
            copied = await self._source.copy_state()
            making = _Making(copied, self, worker)
            try:
                async for made in making.parts():
                    yield made
            finally:
                await making.close()
        finally:
            worker.shutdown(wait=False)
            self._busy = False

    def metadata(self, copied: CopiedState, survey: Survey) -> SnapshotMetadata:
        """What the file says about itself. Raises Uninitialized."""
        if survey.seal is None:
            raise Uninitialized("the cluster has no keys and nothing to save yet: run `holdfast operator init`")
        seal = decode_config(survey.seal)
        return SnapshotMetadata(
            cluster_id=seal.cluster_id,
            cluster_name=seal.cluster_name,
            key_set=seal.set_id.hex(),
            index=copied.at.index,
            term=copied.at.term,
            cluster_time_ms=copied.at.cluster_time_ms,
            created=datetime.fromtimestamp(int(self._wall_clock()), UTC).isoformat().replace("+00:00", "Z"),
            version=self._version,
            node_id=self._node_id,
            members=tuple(
                SnapshotMember(m.node_id, m.cluster_address, m.api_address, m.voter) for m in copied.members.members
            ),
            records=survey.counts,
            content_bytes=survey.size,
            content_sha256=survey.digest.hexdigest(),
        )

    def pacer(self) -> Pacer:
        """What keeps the pace."""
        return Pacer(self._bytes_per_s, self._monotonic)


class Pacer:
    """Sleeps so long between slices that the whole stays under a rate."""

    def __init__(self, bytes_per_s: int, monotonic: Callable[[], float]) -> None:
        self._bytes_per_s = bytes_per_s
        self._monotonic = monotonic
        self._due_s = monotonic()

    async def took(self, cost_bytes: int) -> None:
        """A slice is done. After a slow one nothing is made up for."""
        now_s = self._monotonic()
        self._due_s = max(self._due_s, now_s) + cost_bytes / self._bytes_per_s
        await asyncio.sleep(max(0.0, self._due_s - now_s))


class Survey:
    """What the first reading found."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(CLASSES.values(), 0)
        self.size = 0
        self.digest = hashlib.sha256()
        self.seal: bytes | None = None

    def add(self, block: Block) -> None:
        """Count a block."""
        for name, count in block.counts.items():
            self.counts[name] += count
        self.size += len(block.data)
        self.digest.update(block.data)
        self.seal = block.seal or self.seal


@dataclass(frozen=True)
class Block:
    """Records as they stand in the file."""

    data: bytes
    counts: dict[str, int]
    seal: bytes | None

    @property
    def cost_bytes(self) -> int:
        """What it counts for."""
        return len(self.data) + RECORD_COST_BYTES * sum(self.counts.values())


class _Making:
    """One file in the making. The store of the copy is used in the worker alone."""

    def __init__(self, copied: CopiedState, maker: SnapshotMaker, worker: ThreadPoolExecutor) -> None:
        self._copied = copied
        self._maker = maker
        self._worker = worker
        self._store: Store | None = None

    async def parts(self) -> AsyncIterator[Made]:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._worker, self._open)
        survey = Survey()
        async for block in self._blocks():
            survey.add(block)
        metadata = self._maker.metadata(self._copied, survey)
        writer, again = SnapshotWriter(), Survey()
        expected = survey.size + survey.size // BLOCK_BYTES * 4 + 1024
        yield Made(writer.head(metadata), metadata, expected)
        async for block in self._blocks():
            again.add(block)
            yield Made(writer.block(block.data), metadata, expected)
        if (again.size, again.counts, again.digest.digest()) != (survey.size, survey.counts, survey.digest.digest()):
            raise Corruption("two readings of one copy of the state differ: check this node's memory and disk")
        yield Made(writer.end(), metadata, expected)
        _log.info("snapshot_file_made", index=metadata.index, size_bytes=writer.size)

    def _open(self) -> None:
        self._store = self._copied.copy.open()
        if StateMachine(self._store).applied != self._copied.at:
            raise Corruption("a copy of the state stands at another position than the state did")

    async def _blocks(self) -> AsyncIterator[Block]:
        loop = asyncio.get_running_loop()
        assert self._store is not None
        pacer, blocks = self._maker.pacer(), _blocks_of(self._store)
        while (block := await loop.run_in_executor(self._worker, next, blocks, None)) is not None:
            yield block
            await pacer.took(block.cost_bytes)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._worker, self._close)

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
        self._copied.copy.discard()


def _blocks_of(store: Store) -> Iterator[Block]:
    parts: list[bytes] = []
    counts: dict[str, int] = {}
    size, seal = 0, None
    for stored_key, stored in store.scan(DATA, successor(DATA)):
        key, value = stored_key[len(DATA) :], stored[8:]
        name = CLASSES.get(key[:1])
        if name is None or len(stored) < 8:
            raise Corruption("a record of the state has a key or a value of no known form")
        if key == SEAL_KEY:
            seal = value
        parts.append(encode_record(key, value))
        counts[name] = counts.get(name, 0) + 1
        size += len(parts[-1])
        if size >= BLOCK_BYTES or len(parts) >= SLICE_RECORDS:
            yield Block(b"".join(parts), counts, seal)
            parts, counts, size, seal = [], {}, 0, None
    if parts:
        yield Block(b"".join(parts), counts, seal)
