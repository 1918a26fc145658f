"""What a figure depends on: the machine, the file system the nodes sync to, and what else was running."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

_SYNCS = 50
_BLOCK = bytes(4096)


@dataclass(frozen=True)
class Machine:
    """fsync_p50_ms: of 4 KiB appended and synced, before the nodes were started. load_*: the one-minute average."""

    cores: int
    cpu: str
    memory_mib: int
    kernel: str
    python: str
    file_system: str
    in_memory: bool
    fsync_p50_ms: float
    load_before: float
    load_after: float

    def text(self) -> str:
        """One line for people."""
        synced = "in memory: syncs cost nothing" if self.in_memory else f"fsync p50 {self.fsync_p50_ms:.2f} ms"
        return (
            f"{self.cores} cores ({self.cpu}), {self.memory_mib} MiB, Linux {self.kernel}, Python {self.python}, "
            f"{self.file_system} ({synced}), load 1 min {self.load_before:.1f} before, {self.load_after:.1f} after"
        )


def describe(folder: Path) -> Machine:
    """The machine before a run whose nodes keep their data in `folder`; see `after`."""
    kind = file_system(folder)
    return Machine(
        cores=os.cpu_count() or 1,
        cpu=_field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        memory_mib=int((_field(Path("/proc/meminfo"), "MemTotal") or "0 kB").split()[0]) // 1024,
        kernel=platform.release(),
        python=platform.python_version(),
        file_system=kind,
        in_memory=kind.split()[0] in ("tmpfs", "ramfs"),
        fsync_p50_ms=_fsync_p50_ms(folder),
        load_before=os.getloadavg()[0],
        load_after=float("nan"),
    )


def file_system(folder: Path) -> str:
    """The file system's type and device, from the longest mount point that the folder is in."""
    path = str(folder.resolve())
    best, found = "", "unknown"
    for line in _read(Path("/proc/mounts")).splitlines():
        device, point, kind = line.split()[:3]
        inside = point == "/" or path == point or path.startswith(f"{point}/")
        if inside and len(point) >= len(best):
            best, found = point, f"{kind} on {device}"
    return found


def _fsync_p50_ms(folder: Path) -> float:
    probe = folder / "fsync-probe"
    times = []
    with probe.open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            start = time.perf_counter()
            file.write(_BLOCK)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    probe.unlink()
    return sorted(times)[_SYNCS // 2] * 1000


def _field(path: Path, name: str) -> str:
    for line in _read(path).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
