"""Snapshots by the clock. Every node runs this; only the one that leads and is unsealed acts.

When the next one is due follows from the newest that the target has, so that a new leader, or a node that was
restarted, goes on where the last one stopped. Each snapshot is verified by unpacking it into a scratch store, as a
restore would, before it goes to the target, and read back from there. Only then are old ones removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import structlog

from holdfast.cluster.raft.consensus import Consensus
from holdfast.cluster.raft.restoring import fill
from holdfast.cluster.raft.statemachine import DATA
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.snapshot.distribution import BYTES_PER_S
from holdfast.cluster.snapshot.restoring import read_head
from holdfast.cluster.snapshot.saving import Pacer, SnapshotMaker
from holdfast.proto.errors import Corruption, Fatal, HoldfastError, Unavailable
from holdfast.proto.snapshot_file import SUFFIX, SnapshotMetadata, SnapshotReader
from holdfast.server.metrics import Metrics
from holdfast.server.snapshot_config import SnapshotSettings
from holdfast.server.snapshot_s3 import S3Target
from holdfast.server.snapshot_targets import FolderTarget, Stored, Target, name_of, outdated
from holdfast.storage.keys import successor
from holdfast.storage.rocksdb import RocksStore

LOOK_S = 1.0
SETTLE_S = 10.0
"""How long a new leader waits before its first one, at most an interval: leadership may be changing hands."""

BACKOFF_S_MIN = 30.0
"""After a failure; doubled with each further one, up to the interval."""

_log = structlog.stdlib.get_logger(__name__)
T = TypeVar("T")


class SnapshotSchedule:
    """folder: for what is not finished; emptied at start. wall_clock: Unix time in seconds. monotonic: seconds."""

    def __init__(
        self,
        settings: SnapshotSettings,
        target: Target,
        *,
        folder: Path,
        maker: SnapshotMaker,
        consensus: Consensus,
        seal: SealManager,
        metrics: Metrics,
        wall_clock: Callable[[], float],
        monotonic: Callable[[], float],
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        self._settings = settings
        self._target = target
        self._folder = folder
        self._maker = maker
        self._consensus = consensus
        self._seal = seal
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._on_fatal = on_fatal
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._task: asyncio.Task[None] | None = None
        self._newest_s: float | None = None
        self._not_before_s = 0.0
        self._backoff_s = 0.0

    def start(self) -> None:
        """Act from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="snapshot schedule")

    async def stop(self) -> None:
        """Act no more. May be called again, and without `start`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._worker.shutdown(wait=False)

    @property
    def label(self) -> str:
        """Where they are kept."""
        return self._target.label

    async def stored(self) -> list[Stored]:
        """What the target has of this cluster, the newest first. Raises Unavailable."""
        cluster_id = self._seal.status().cluster_id
        return await self._work(lambda: self._target.stored(cluster_id))

    async def _work(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, job)

    # When

    async def _run(self) -> None:
        await self._work(self._empty_folder)  # a crash in the middle of one leaves copies of the state
        leads = False
        while True:
            await asyncio.sleep(LOOK_S)
            led, leads = leads, self._consensus.status().ready and not self._seal.sealed
            if not leads:
                continue
            if not led:
                settle_s = min(SETTLE_S, self._settings.interval_s)
                self._newest_s, self._backoff_s, self._not_before_s = None, 0.0, self._monotonic() + settle_s
            if self._monotonic() < self._not_before_s:
                continue
            try:
                if await self._due():
                    await self._save_one()
                    self._backoff_s = 0.0
            except Fatal as error:
                self._on_fatal(error)
                return
            except HoldfastError as error:
                self._failed(error)
            except Exception:  # noqa: BLE001 - whatever it is, the next one is tried
                _log.exception("unexpected exception in the schedule of snapshots")
                self._failed(Unavailable("the schedule met something that was not foreseen: see the log"))

    async def _due(self) -> bool:
        now_s = self._wall_clock()
        if self._newest_s is None:
            stored = await self.stored()
            # A time that is yet to come (another node's clock, or this one's set back) counts as this moment.
            self._newest_s = min(stored[0].created_s, now_s) if stored else float("-inf")
        return now_s >= self._newest_s + self._settings.interval_s

    def _failed(self, error: HoldfastError) -> None:
        self._backoff_s = min(max(BACKOFF_S_MIN, 2 * self._backoff_s), max(BACKOFF_S_MIN, self._settings.interval_s))
        self._not_before_s = self._monotonic() + self._backoff_s
        self._newest_s = None
        self._metrics.scheduled_snapshot_failed()
        _log.error(
            "scheduled_snapshot_failed", reason=error.reason, message=error.message, next_attempt_s=self._backoff_s
        )

    # One snapshot

    async def _save_one(self) -> None:
        began_s = self._monotonic()
        partial = self._folder / f"scheduled{SUFFIX}.partial"
        try:
            await self._work(self._empty_folder)
            metadata, sha256 = await self._write(partial)
            try:
                await self._verify(partial)
            except Fatal as error:  # of the scratch store or the file, not of the state
                raise Unavailable(f"the snapshot could not be verified: {error.message}") from error
            name = name_of(metadata)
            await self._work(lambda: self._target.store(partial, name, sha256))
            size = await self._work(lambda: partial.stat().st_size)
        except OSError as error:
            raise Unavailable(f"the folder {self._folder} cannot be used: {error.strerror or error}") from error
        finally:
            await self._work(lambda: shutil.rmtree(self._folder, ignore_errors=True))
        self._newest_s = self._wall_clock()
        self._metrics.scheduled_snapshot_saved(
            at_s=self._newest_s, size=size, seconds=self._monotonic() - began_s, index=metadata.index
        )
        _log.info("scheduled_snapshot_saved", name=name, size_bytes=size, index=metadata.index)
        await self._remove_old()

    def _empty_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700)

    async def _write(self, partial: Path) -> tuple[SnapshotMetadata, bytes]:
        metadata: SnapshotMetadata | None = None
        digest = hashlib.sha256()
        file = await self._work(lambda: partial.open("wb"))
        try:
            async with aclosing(self._maker.make()) as parts:
                async for made in parts:
                    metadata = made.metadata
                    digest.update(made.data)
                    await self._work(lambda data=made.data: file.write(data))  # type: ignore[misc]
            await self._work(file.flush)
            await self._work(lambda: os.fsync(file.fileno()))
        finally:
            await self._work(file.close)
        assert metadata is not None, "a file has a head"
        return metadata, digest.digest()

    async def _verify(self, partial: Path) -> None:
        """Unpack the file, as a restore would, and count what the scratch store then holds. Raises Corruption."""
        await self._work(lambda: read_head(partial))
        scratch = self._folder / "scratch"
        store = await self._work(lambda: RocksStore.open(scratch))
        file = await self._work(lambda: partial.open("rb"))
        try:
            reader = await self._work(lambda: SnapshotReader(file))
            slices = iter(fill(store, reader.records()))
            pacer = Pacer(BYTES_PER_S, self._monotonic)
            while (size := await self._work(lambda: next(slices, None))) is not None:
                await pacer.took(size)
        finally:
            await self._work(file.close)
            await self._work(store.close)
        expected = sum(reader.metadata.records.values())
        if await self._count(scratch) != expected:
            raise Corruption("a snapshot that was unpacked has another number of records than were put into it")

    async def _count(self, scratch: Path) -> int:
        store = await self._work(lambda: RocksStore.open(scratch))
        try:
            records = iter(store.scan(DATA, successor(DATA)))
            count, pacer = 0, Pacer(BYTES_PER_S, self._monotonic)
            while some := await self._work(lambda: sum(1 for _ in zip(range(256), records, strict=False))):
                count += some
                await pacer.took(some * 1024)
            return count
        finally:
            await self._work(store.close)

    async def _remove_old(self) -> None:
        settings = self._settings
        stored = await self.stored()
        old = outdated(stored, keep=settings.keep, keep_for_s=settings.keep_for_s, now_s=self._wall_clock())
        for one in old:
            await self._work(lambda one=one: self._target.remove(one.name))  # type: ignore[misc]
            _log.info("scheduled_snapshot_removed", name=one.name)


def schedule_of(
    settings: SnapshotSettings | None,
    *,
    folder: Path,
    maker: SnapshotMaker,
    consensus: Consensus,
    seal: SealManager,
    metrics: Metrics,
    wall_clock: Callable[[], float],
    monotonic: Callable[[], float],
    on_fatal: Callable[[Fatal], None],
) -> SnapshotSchedule | None:
    """The schedule that the settings want; None when they want none. Raises ConfigError."""
    if settings is None:
        return None
    bucket = settings.bucket
    target = FolderTarget(Path(settings.target)) if bucket is None else S3Target(*bucket, settings.s3)
    return SnapshotSchedule(
        settings, target, folder=folder, maker=maker, consensus=consensus, seal=seal, metrics=metrics,
        wall_clock=wall_clock, monotonic=monotonic, on_fatal=on_fatal,
    )  # fmt: skip
