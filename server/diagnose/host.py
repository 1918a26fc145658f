"""The limits of this host and of this user's processes."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator

from holdfast.server.diagnose.finding import Context, Finding, failed, passed, warned
from holdfast.server.memory import lock_problem, swap_is_on

FILES_WARN = 16_384


def check_host(context: Context) -> Iterator[Finding]:
    """As they are for who runs this command: run it as the node's user, with the node's limits."""
    yield judge_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    yield judge_memory(context.config.memory_lock, lock_problem(), swap=swap_is_on())
    yield judge_swap(swap=swap_is_on(), locked=context.config.memory_lock != "off" and not lock_problem())
    yield judge_core_dumps(sys.platform)


def judge_files(hard: int) -> Finding:
    """A node raises its own limit as far as it may."""
    if hard != resource.RLIM_INFINITY and hard < FILES_WARN:
        return warned("host.open_files", f"at most {hard}", f"allow {FILES_WARN} (LimitNOFILE= in systemd)")
    return passed("host.open_files", "unlimited" if hard == resource.RLIM_INFINITY else f"at most {hard}")


def judge_memory(mode: str, problem: str, *, swap: bool) -> Finding:
    """memory_lock, and whether it can be had."""
    check = "host.memory_lock"
    if mode == "off":
        detail = "switched off"
        return warned(check, detail, "memory_lock: auto") if swap else passed(check, detail)
    if not problem:
        return passed(check, "memory can be locked")
    if mode == "on":
        return failed(check, problem, "allow it, or write memory_lock: auto")
    return (
        warned(check, problem, "allow it, or switch swap off") if swap else passed(check, f"{problem}; no swap is on")
    )


def judge_swap(*, swap: bool, locked: bool) -> Finding:
    """Memory that is locked is not swapped, but a host that swaps makes a node slow."""
    if not swap:
        return passed("host.swap", "off")
    if locked:
        return passed("host.swap", "on; the node's memory is locked")
    return warned("host.swap", "on: keys may be written to disk", "swapoff -a, encrypt it, or let the node lock memory")


def judge_core_dumps(platform: str) -> Finding:
    """The node switches its own off (RLIMIT_CORE), and on Linux makes itself undumpable."""
    if platform != "linux":
        return warned("host.core_dumps", "off by limit only", "keep the crash reporter of this system off, too")
    return passed("host.core_dumps", "the node switches them off for itself")
