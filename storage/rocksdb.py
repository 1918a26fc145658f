"""The RocksDB store: the only module that touches rocksdict, and the place of what it demands (0.3.29, RocksDB 9.8.4).

- `put`, `write`, `get` and iteration hold the GIL, a synced write through its whole fsync. Therefore writes go out
  unsynced and `sync` calls `flush_wal(True)`, which releases the GIL, in whatever thread the caller likes.
- Iterators end silently at corruption until `status()` is asked. It is, at the end of every scan and every seek;
  `items()`, `keys()` and `values()` never ask and are not used.
- A live iterator keeps the folder locked after `close()` and reads freed state. `close` drops them first.
- An iterator's upper bound lives in the ReadOptions that it was made with, and dangles when they go: a scan then ends
  wherever freed memory says. They are kept as long as the iterator.
- An ill-formed `delete_range` fails and leaves the database refusing everything after it. It never gets there.
- Some damage to the log is replayed as a shorter log, or for ever: `wal.py` looks before RocksDB does.
- Errors are bare Exceptions with RocksDB's status as text. This module alone reads that text.

Recovery mode. A machine that loses power may keep half of the last record of the write-ahead log: that record was not
synced, and start-up drops it. A record inside the log that fails its checksum may have been acknowledged: start-up
refuses. That is `tolerate_corrupted_tail_records`; RocksDB's default, `point_in_time`, would quietly forget everything
behind the damage. The price is a refusal also where a file system leaves a hole of zeros in an unsynced tail; the node
is then rebuilt from its peers.
"""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from rocksdict import (
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteBatch,
)

from holdfast.proto.errors import Corruption, FailedPrecondition, HoldfastError, StorageFailed
from holdfast.storage import folder, wal
from holdfast.storage.limits import check_key, check_write

WRITE_BUFFER_BYTES = 16 * 1024 * 1024
"""The memtable's size: what a store may hold in memory before it writes a table, twice over while it does."""

BLOCK_CACHE_BYTES = 8 * 1024 * 1024
"""The block cache, index and filter blocks included. The operating system's page cache does the rest."""


class RocksStore:
    """A Store in a folder. Opened by `open`; `sync` may run in another thread, everything else in one."""

    def __init__(self, database: Rdict, path: Path, lock: BinaryIO) -> None:
        """Use `open`."""
        self._database = database
        self._lock = lock
        self._path = path
        self._scans: weakref.WeakSet[_Scan] = weakref.WeakSet()
        self._closed = False
        self._sync_failed = False

    @classmethod
    def open(cls, path: Path) -> RocksStore:
        """Open the store in a folder, or make one there. Blocks while it reads what is left of the log.

        Raises FailedPrecondition when another process has it open or the folder is not ours, Corruption when its files
        are damaged, StorageFailed when the disk refuses."""
        held, lock = folder.prepare(path)
        try:
            wal.check_logs(path)
            database = Rdict(str(path), _options(create=not held))
        except HoldfastError:
            lock.close()
            raise
        except Exception as error:
            lock.close()
            raise _opening_error(path, error) from error
        return cls(database, path, lock)

    def get(self, key: bytes) -> bytes | None:
        """See Store."""
        self._check_usable()
        check_key(key)
        try:
            value: bytes | None = self._database.get(key)
        except Exception as error:
            raise _error(self._path, error) from error
        return value

    def scan(self, start: bytes, end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """See Store."""
        scan = _Scan(self._path, *self._iterator(start, end))
        self._scans.add(scan)
        return _entries(scan)

    def seek(self, start: bytes, end: bytes | None = None) -> tuple[bytes, bytes] | None:
        """See Store."""
        iterator, _options = self._iterator(start, end)
        try:
            if iterator.valid():
                return iterator.key(), iterator.value()
            iterator.status()
        except Exception as error:
            raise _error(self._path, error) from error
        return None

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes] = ()) -> None:
        """See Store."""
        self._check_usable()
        check_write(puts, deletes)
        batch = WriteBatch(raw_mode=True)
        for key, value in puts:
            batch.put(key, value)
        for key in deletes:
            batch.delete(key)
        try:
            self._database.write(batch)
        except Exception as error:
            raise _error(self._path, error) from error

    def delete_range(self, start: bytes, end: bytes) -> None:
        """See Store."""
        self._check_usable()
        if start >= end:
            return
        try:
            self._database.delete_range(start, end)
        except Exception as error:
            raise _error(self._path, error) from error

    def sync(self) -> None:
        """See Store. After a failure the store refuses everything: the kernel may have dropped the unwritten pages, so
        that a second fsync would succeed without having written them."""
        self._check_usable()
        try:
            self._database.flush_wal(True)
        except Exception as error:
            self._sync_failed = True
            raise _error(self._path, error) from error

    def flush(self) -> None:
        """Write the memtable out as a table. Blocks; releases the GIL; may run in another thread."""
        self._check_usable()
        try:
            self._database.flush()
        except Exception as error:
            raise _error(self._path, error) from error

    def checkpoint(self, path: str) -> None:
        """See Store. Writes out the memtable and links the tables; complete and durable once it has its name."""
        self._check_usable()
        target = Path(path)
        building = target.with_name(target.name + ".building")
        try:
            if target.exists():
                raise FileExistsError(f"{target} exists")
            shutil.rmtree(building, ignore_errors=True)  # of an attempt that was cut short
            Checkpoint(self._database).create_checkpoint(str(building))
            folder.write_mark(building)
            building.rename(target)
            folder.sync_folder(target.parent)
        except Exception as error:
            raise _error(self._path, error) from error

    def close(self) -> None:
        """See Store. Ends the scans under way: their next step raises. May be called again."""
        if self._closed:
            return
        self._closed = True
        for scan in list(self._scans):
            scan.drop()
        try:
            if not self._sync_failed:
                self._database.flush_wal(True)
        except Exception as error:
            raise _error(self._path, error) from error
        finally:
            self._database.close()
            self._lock.close()

    def __repr__(self) -> str:
        return f"<RocksStore {self._path}{' closed' if self._closed else ''}>"

    def _iterator(self, start: bytes, end: bytes | None) -> tuple[RdictIter, ReadOptions]:
        """An iterator at `start`, and the options that must live as long as it does."""
        self._check_usable()
        options = ReadOptions()
        if end is not None:
            # The bound also keeps a seek from walking over deleted entries behind the range.
            options.set_iterate_upper_bound(end)
        try:
            iterator = self._database.iter(options)
            iterator.seek(start)
        except Exception as error:
            raise _error(self._path, error) from error
        return iterator, options

    def _check_usable(self) -> None:
        if self._closed:
            raise StorageFailed(f"the store in {self._path} is closed")
        if self._sync_failed:
            raise StorageFailed(f"a sync of the store in {self._path} failed: start the node again")


class _Scan:
    """A scan's position; `drop` lets go of what it pins."""

    def __init__(self, path: Path, iterator: RdictIter, options: ReadOptions) -> None:
        self._path = path
        self._iterator: RdictIter | None = iterator
        self._options = options
        self._started = False

    def take(self) -> tuple[bytes, bytes] | None:
        iterator = self._iterator
        if iterator is None:
            raise StorageFailed("the store was closed during a scan")
        try:
            if self._started:
                iterator.next()
            self._started = True
            if iterator.valid():
                return iterator.key(), iterator.value()
            iterator.status()
        except Exception as error:
            raise _error(self._path, error) from error
        return None

    def drop(self) -> None:
        self._iterator = None


def _entries(scan: _Scan) -> Iterator[tuple[bytes, bytes]]:
    try:
        while (entry := scan.take()) is not None:
            yield entry
    finally:
        scan.drop()


def _opening_error(path: Path, error: Exception) -> HoldfastError:
    if str(error).startswith(("IO error: While lock file", "IO error: lock hold by")):
        return FailedPrecondition(
            f"the store in {path} is open in another process: stop that one, or use another folder"
        )
    return _error(path, error)


def _error(path: Path, error: Exception) -> HoldfastError:
    """The error of the tree for one of rocksdict's. RocksDB's text names files and offsets, never contents."""
    if str(error).startswith("Corruption"):
        return Corruption(
            f"the store in {path} is damaged ({error}): move the folder away and rebuild this node from its peers"
        )
    return StorageFailed(f"the store in {path} failed ({error}): check the disk and the folder, then start again")


def _options(*, create: bool) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(Cache(BLOCK_CACHE_BYTES))
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_bloom_filter(10, False)
    options = Options(raw_mode=True)
    options.create_if_missing(create)
    options.set_block_based_table_factory(table)
    options.set_paranoid_checks(True)
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_max_background_jobs(2)
    options.set_max_open_files(256)
    options.set_compression_type(DBCompressionType.none())  # ciphertext does not compress
    options.set_keep_log_file_num(4)
    options.set_max_log_file_size(1024 * 1024)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    return options
