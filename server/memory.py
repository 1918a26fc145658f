"""What keeps keys out of swap and out of freed memory. Linux and glibc; elsewhere these do less, and say so.

Python cannot wipe an object. When the node seals itself, what referred to keys is dropped first; then the blocks that
were freed are handed out again, filled with zeros, and freed again. That reaches what the allocators keep for reuse at
that moment, on the event loop's thread, which is where keys live. It costs some tens of milliseconds, once.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import sys
from pathlib import Path
from typing import Literal

import structlog

from holdfast.server.config import ConfigError

MemoryLock = Literal["auto", "on", "off"]

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4  # sys/mman.h
_CAP_IPC_LOCK = 1 << 14  # linux/capability.h

OVERWRITE_DELAYS_S = (0.0, 2.0)

SMALL_BYTES_MAX = 512
"""Python's own allocator serves objects up to this size, in classes of 16 bytes; malloc the rest."""

SMALL_BLOCKS = 8000
"""How many blocks of each class are overwritten."""

LARGE_BYTES_MAX = 64 * 1024 * 1024
"""The most of malloc's free memory that is overwritten."""

CACHED_BYTES_MAX = 1032
"""malloc keeps blocks up to this size in caches of each thread (glibc's tcache, seven of each size)."""

_CACHED_BLOCKS = 32

log = structlog.stdlib.get_logger(__name__)


def lock_memory(mode: MemoryLock) -> bool:
    """Keep this process's pages out of swap, those it will get included. Returns whether they are locked.

    auto: where the system allows it, with a warning where it does not and swap is on. on: raises ConfigError when it
    does not. Pages are locked as they are first used (MCL_ONFAULT), so address space that is merely reserved costs
    nothing. Where the limit is not unlimited it is left alone: beyond a limit every later allocation would fail.
    """
    if mode == "off":
        return False
    problem = lock_problem() or _lock()
    if not problem:
        log.info("memory_locked")
        return True
    if mode == "on":
        raise ConfigError(f"memory_lock: {problem}")
    if swap_is_on():
        log.warning("memory_not_locked", reason=problem, consequence="keys may be written to swap")
    return False


def lock_problem() -> str:
    """Why this process may not lock its memory; empty when it may."""
    if sys.platform != "linux":
        return "this system cannot lock the memory of a process; write off, and use encrypted swap"
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard != resource.RLIM_INFINITY and not has_lock_capability():
        return "the limit of locked memory is not unlimited; set LimitMEMLOCK=infinity (ulimit -l), or write off"
    return ""


def _lock() -> str:
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    if ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0:
        return ""
    return f"the system refuses to lock memory: {os.strerror(ctypes.get_errno())}; write off, and switch swap off"


def has_lock_capability() -> bool:
    """Whether this process may lock any amount of memory (CAP_IPC_LOCK)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & _CAP_IPC_LOCK)
    return False


def swap_is_on() -> bool:
    """Whether the system has any swap space; yes where that cannot be told."""
    swaps = Path("/proc/swaps")
    return not swaps.exists() or len(swaps.read_text().splitlines()) > 1


def overwrite_freed_memory_soon() -> None:
    """Once what runs now has returned, and again when the requests that were under way have failed."""
    for delay_s in OVERWRITE_DELAYS_S:
        asyncio.get_running_loop().call_later(delay_s, overwrite_freed_memory)


def overwrite_freed_memory() -> None:
    """See the module. To be called when nothing refers to the keys any more."""
    gc.collect()  # what finished requests left in reference cycles may hold keys' neighbours: values, tokens
    overhead = sys.getsizeof(b"")
    for size in range(overhead + 1, SMALL_BYTES_MAX + 1, 16):
        taken = [bytes(size - overhead) for _ in range(SMALL_BLOCKS)]
        del taken
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallinfo2"):
        _overwrite_cached_blocks(libc)
        # The smallest block that Python asks malloc for fits into every larger one that is free.
        free_bytes = min(_free_bytes(libc), LARGE_BYTES_MAX)
        held = [bytes(SMALL_BYTES_MAX) for _ in range(free_bytes // SMALL_BYTES_MAX)]
        del held
        libc.malloc_trim(0)  # gives whole free pages back: the kernel hands them out zeroed


def _overwrite_cached_blocks(libc: ctypes.CDLL) -> None:
    """What libraries freed: malloc's own caches of small blocks are last in, first out. (calloc passes them by.)"""
    libc.malloc.restype = ctypes.c_void_p
    for size in range(24, CACHED_BYTES_MAX + 1, 16):
        blocks = [libc.malloc(size) for _ in range(_CACHED_BLOCKS)]
        for block in filter(None, blocks):
            ctypes.memset(block, 0, size)
        for block in blocks:
            libc.free(ctypes.c_void_p(block))


class _MallInfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def _free_bytes(libc: ctypes.CDLL) -> int:
    """How much malloc keeps for reuse."""
    libc.mallinfo2.restype = _MallInfo
    return int(libc.mallinfo2().fordblks)
