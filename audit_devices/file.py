"""The audit device `file`: one JSON object a line, appended to a file that the device rotates by size and by age.

One thread does the writing, so that a slow disk holds up no event loop; entries that arrive meanwhile are written
together. An entry is kept when the operating system has it: it survives the process, and with `sync=true` a power
failure too. A write that fails part of the way is cut off again, so that the file always ends in a whole line.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import re
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from holdfast.core.plugin import fields
from holdfast.core.plugin.auditing import AuditSink, Chain
from holdfast.proto.errors import FailedPrecondition, InvalidArgument

LINE_BYTES_MAX = 16 * 1024 * 1024
"""The longest last line that is looked for in a file, in bytes."""

_BATCH_MAX = 256

_WAITING_MAX = 2048
"""How many entries may wait for the writer: those of requests that gave up stand in the queue while a disk hangs."""

_SIZES = {"": 1, "B": 1, "KIB": 1024, "MIB": 1024**2, "GIB": 1024**3, "KB": 10**3, "MB": 10**6, "GB": 10**9}

_OPTIONS = {
    "file_path": "Where to write, an absolute path; {node_id} in it stands for the node's id.",
    "mode": 'The file\'s permissions, octal; "0600" when not given.',
    "rotate_bytes": 'Start a new file at this size, e.g. "100MiB"; 0 (the default) for never.',
    "rotate_duration": 'Start a new file at this age, e.g. "24h"; 0 (the default) for never.',
    "rotate_max_files": "How many rotated files to keep; 0 (the default) for all.",
    "sync": '"true" to answer only when the entry is on the disk (fdatasync).',
}


class FileDevice:
    """See the module."""

    @property
    def type(self) -> str:
        """See AuditDeviceType."""
        return "file"

    @property
    def options(self) -> Mapping[str, str]:
        """See AuditDeviceType."""
        return _OPTIONS

    def check(self, options: Mapping[str, str]) -> None:
        """See AuditDeviceType."""
        _Settings(options, "node")

    async def open(self, options: Mapping[str, str], chain: Chain, *, node_id: str) -> AuditSink:
        """See AuditDeviceType."""
        sink = _FileSink(_Settings(options, node_id), chain)
        opening = asyncio.get_running_loop().run_in_executor(None, sink.open)
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on. What it opens late must not stay locked by nobody, or no later try would succeed.
            opening.add_done_callback(sink.abandon)
            raise
        return sink


class _Settings:
    """The options, read. Sizes in bytes, ages in seconds; 0 for none."""

    def __init__(self, options: Mapping[str, str], node_id: str) -> None:
        path = fields.text(options, "file_path", bytes_max=4096)
        if not path.startswith("/"):
            raise InvalidArgument("file_path must be an absolute path", field="file_path")
        self.path = Path(path.replace("{node_id}", node_id))
        try:
            self.mode = int(options.get("mode") or "0600", 8)
        except ValueError:
            self.mode = -1
        if not 0 <= self.mode <= 0o666 or self.mode & 0o111 or not self.mode & stat.S_IWUSR:
            raise InvalidArgument(
                'mode must be octal permissions that its owner can write with and nobody execute, e.g. "0600"',
                field="mode",
            )
        self.rotate_bytes = _size(options.get("rotate_bytes") or "0")
        self.rotate_s = fields.duration_s(options, "rotate_duration") or 0
        self.files_max = fields.integer(options, "rotate_max_files", maximum=100_000) or 0
        self.sync = fields.boolean(options, "sync") or False


def _size(text: str) -> int:
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = _SIZES.get(text[len(digits) :].strip().upper())
    if not digits.isdecimal() or not digits.isascii() or len(digits) > 15 or unit is None:
        raise InvalidArgument('rotate_bytes must be a size, e.g. "100MiB"', field="rotate_bytes")
    size = int(digits) * unit
    if size and size < 1024:
        raise InvalidArgument("rotate_bytes must be 1 KiB or more", field="rotate_bytes")
    return size


class _Entry:
    """One entry on its way to the writer. It ends exactly once."""

    __slots__ = ("_future", "_loop", "bytes")

    def __init__(self, entry: bytes) -> None:
        self.bytes = entry
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    async def kept(self) -> None:
        await self._future

    def end(self, error: Exception | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: Exception | None) -> None:
        if self._future.done():
            return
        if error is None:
            self._future.set_result(None)
        else:
            self._future.set_exception(error)


class _FileSink:
    """The open file and its writer thread, which alone touches them."""

    def __init__(self, settings: _Settings, chain: Chain) -> None:
        self._settings = settings
        self._chain = chain
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="audit-file", daemon=True)
        self._descriptor = -1
        self._size = 0
        self._began_s = 0.0
        self._closed = False

    def open(self) -> None:
        """Open the file and go on with its chain. Raises OSError, FailedPrecondition."""
        self._open_file()
        self._thread.start()

    def abandon(self, opening: asyncio.Future[None]) -> None:
        """Let go of what was opened for nobody."""
        if not opening.cancelled() and opening.exception() is None and not self._closed:
            self._closed = True
            self._entries.put(None)

    async def write(self, entry: bytes) -> None:
        """See AuditSink."""
        if self._closed:
            raise FailedPrecondition("the audit device is closed")
        if self._entries.qsize() >= _WAITING_MAX:
            raise FailedPrecondition("the audit file's disk has taken nothing for too long: entries wait already")
        waiting = _Entry(entry)
        self._entries.put(waiting)
        try:
            await waiting.kept()
        except asyncio.CancelledError:
            waiting.bytes = b""  # nobody waits any more: a writer that has not begun leaves it out
            raise

    async def close(self) -> None:
        """See AuditSink."""
        if not self._closed:
            self._closed = True
            self._entries.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _run(self) -> None:
        """Write what arrives, in order, until None arrives."""
        ended = False
        while not ended:
            batch = [self._entries.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < _BATCH_MAX:
                    batch.append(self._entries.get_nowait())
            ended = None in batch
            waiting = [(entry, entry.bytes) for entry in batch if entry is not None]
            waiting = [(entry, text) for entry, text in waiting if text]
            if not waiting:
                continue
            error: Exception | None = None
            try:
                self._write([text for _, text in waiting])
            except Exception as failure:  # noqa: BLE001  (whatever it was, these entries are not kept)
                error = failure
            for entry, _ in waiting:
                entry.end(error)
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _write(self, entries: list[bytes]) -> None:
        self._follow_the_path()
        settings, chain = self._settings, self._chain
        before = chain.seq, chain.prev
        lines = bytearray()
        for entry in entries:
            line = chain.line(entry)
            chain.advance(line)
            lines += line + b"\n"
        view = memoryview(lines)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
            if settings.sync:
                os.fdatasync(self._descriptor)
        except OSError:
            chain.seq, chain.prev = before
            self._cut_off()
            raise
        self._size += len(lines)

    def _cut_off(self) -> None:
        """After a write that failed: the file ends where it ended before, or is opened anew with the next entry."""
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            os.close(self._descriptor)
            self._descriptor = -1

    def _follow_the_path(self) -> None:
        """Be at the file that the path names now: another program may have moved ours, or it is time for the next."""
        if self._descriptor >= 0:
            try:
                named = os.stat(self._settings.path)
                ours = os.fstat(self._descriptor)
                if (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino):
                    self._size = ours.st_size  # someone may have cut it
                    if self._due():
                        self._rotate()
                    return
            except FileNotFoundError:
                pass
            os.close(self._descriptor)
            self._descriptor = -1
            self._open_file(go_on=False)
        else:
            self._open_file()

    def _due(self) -> bool:
        settings = self._settings
        old = settings.rotate_s and time.time() - self._began_s >= settings.rotate_s  # noqa: TID251  (a file's age)
        return self._size > 0 and bool(old or (settings.rotate_bytes and self._size >= settings.rotate_bytes))

    def _rotate(self) -> None:
        """Move the file aside under the next number, and go on in a new one."""
        path = self._settings.path
        rotated = self._rotated()
        number = int(rotated[-1].name[len(path.name) + 1 :]) + 1 if rotated else 1
        os.rename(path, path.with_name(f"{path.name}.{number:08d}"))
        os.close(self._descriptor)
        self._descriptor = -1
        self._open_file(go_on=False)
        if self._settings.files_max:
            for old in self._rotated()[: -self._settings.files_max]:
                old.unlink(missing_ok=True)

    def _rotated(self) -> list[Path]:
        """The files moved aside, the oldest first."""
        path = self._settings.path
        begin = f"{path.name}."
        found = [file for file in path.parent.iterdir() if file.name.startswith(begin)]
        found = [file for file in found if re.fullmatch("[0-9]{8,18}", file.name[len(begin) :])]
        return sorted(found, key=lambda file: int(file.name[len(begin) :]))

    def _open_file(self, *, go_on: bool = True) -> None:
        """Open the file, alone. go_on: continue the chain of its last line, or of the newest rotated file; else the
        chain that this device has."""
        settings = self._settings
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(settings.path, flags, settings.mode)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FailedPrecondition("file_path names something that is not a regular file")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FailedPrecondition(
                    "another process writes this file: give each node its own, with {node_id} in file_path"
                ) from None
            size = _whole_lines(descriptor, status.st_size)
            if size < status.st_size:
                os.ftruncate(descriptor, size)  # half a line, of an entry that was never acknowledged
            if go_on:
                self._go_on_after(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor, self._size, self._began_s = descriptor, size, status.st_mtime if size else time.time()  # noqa: TID251

    def _go_on_after(self, descriptor: int, size: int) -> None:
        if size:
            self._chain.resume(_last_line(descriptor, size))
        elif rotated := self._rotated():
            with rotated[-1].open("rb") as file:
                end = _whole_lines(file.fileno(), os.fstat(file.fileno()).st_size)
                if end:
                    self._chain.resume(_last_line(file.fileno(), end))


def _whole_lines(descriptor: int, size: int) -> int:
    """How many bytes of a file are whole lines."""
    if not size:
        return 0
    tail_from = max(0, size - LINE_BYTES_MAX)
    newline = os.pread(descriptor, size - tail_from, tail_from).rfind(b"\n")
    if newline < 0 and tail_from:
        raise FailedPrecondition("the file's last line is too long to be one of an audit log: move the file away")
    return tail_from + newline + 1


def _last_line(descriptor: int, end: int) -> bytes:
    """The line that ends, with its newline, at `end`."""
    begin = max(0, end - 1 - LINE_BYTES_MAX)
    text = os.pread(descriptor, end - 1 - begin, begin)
    return text[text.rfind(b"\n") + 1 :]
