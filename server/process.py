"""What a node does to its own process: keep its memory off the disk, its files private, its data folder its own."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from holdfast.server.config import ConfigError

_PR_SET_DUMPABLE = 4  # linux/prctl.h


FILES_MAX = 65_536
"""How many open files the process asks for, where it is allowed that many."""


def harden() -> None:
    """Files this process makes are its user's alone, and its memory, which holds keys, is never dumped to disk. It may
    open as many files as the system lets it: at the usual 1,024, a crowd of clients would leave none for the stores.

    Making a process undumpable also keeps other processes of the user from attaching to it.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if files_max == resource.RLIM_INFINITY else min(files_max, FILES_MAX)
    if files != resource.RLIM_INFINITY and files < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, files_max))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def settle_garbage_collector() -> None:
    """After the start: what lives as long as the process is never looked at again, and passes are rarer."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def process_age_ms() -> int:
    """Milliseconds since the kernel started this process; 0 where /proc does not tell."""
    try:
        started_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0
    return round((uptime_s - started_ticks / os.sysconf("SC_CLK_TCK")) * 1000)


def on_termination(stop: Callable[[str], None]) -> Callable[[], None]:
    """Call `stop` with the signal's name at SIGTERM or SIGINT; returns what undoes it. For the main thread's loop."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop, number.name)

    def undo() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)

    return undo


def on_hangup(reload: Callable[[], None]) -> Callable[[], None]:
    """Call `reload` at SIGHUP; returns what undoes it. For the main thread's loop."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload)

    def undo() -> None:
        loop.remove_signal_handler(signal.SIGHUP)

    return undo


class DataFolder:
    """A node's data folder, 0700, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> DataFolder:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._release()
            raise ConfigError(f"data_dir: {self.path} is in use by another holdfastd; stop that one first") from None
        except OSError as error:
            self._release()
            raise ConfigError(f"data_dir: {self.path} cannot be used: {error.strerror or error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
