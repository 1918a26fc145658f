"""Looks for bytes in the memory of another process: what a debugger, a core dump or a swapped page would give away.

Reading the memory of a process that is not dumpable needs CAP_SYS_PTRACE, which root has.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

CHUNK_BYTES = 4 * 1024 * 1024


def find(pid: int, needles: Mapping[str, bytes]) -> dict[str, int]:
    """How often each needle is found, by name. Raises PermissionError when the memory may not be read."""
    overlap = max(len(needle) for needle in needles.values()) - 1
    found = dict.fromkeys(needles, 0)
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for begin, end in _readable(pid):
            tail = b""
            for offset in range(begin, end, CHUNK_BYTES):
                try:
                    memory.seek(offset)
                    chunk = memory.read(min(CHUNK_BYTES, end - offset))
                except (OSError, ValueError, OverflowError):  # a device's pages, or unmapped meanwhile
                    tail = b""
                    continue
                window = tail + chunk
                for name, needle in needles.items():
                    found[name] += _count(window, needle, len(tail))
                tail = window[-overlap:] if overlap else b""
    return found


def _count(window: bytes, needle: bytes, seen: int) -> int:
    """Occurrences that do not lie wholly in the first `seen` bytes, which were looked at before."""
    count, at = 0, window.find(needle)
    while at >= 0:
        count += at + len(needle) > seen
        at = window.find(needle, at + 1)
    return count


def _readable(pid: int) -> Iterator[tuple[int, int]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, flags, *rest = line.split()
        if flags.startswith("r") and rest[-1] not in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
            begin, end = (int(part, 16) for part in span.split("-"))
            yield begin, end
