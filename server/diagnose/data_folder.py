"""The data folder: whose it is, what it stands on, and whether syncs work there."""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from holdfast.server.diagnose.finding import Context, Finding, failed, passed, warned
from holdfast.server.diagnose.locks import held_by_a_process

FREE_BYTES_FAIL = 256 * 1024 * 1024
FREE_BYTES_WARN = 2 * 1024 * 1024 * 1024
FREE_SHARE_WARN = 0.1
SYNC_S_WARN = 0.02
"""A write waits for a sync on a majority of the nodes."""

_SYNCS = 20
_BLOCK = bytes(4096)
IN_MEMORY = ("tmpfs", "ramfs")
UNFIT = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse", "fuseblk", "overlay", "vboxsf")


def check_data_folder(context: Context) -> Iterator[Finding]:
    """A folder that does not exist yet is judged by the one it would be made in."""
    folder = context.data_dir
    yield (finding := check_folder(folder))
    ground = next(path for path in (folder, *folder.parents) if path.is_dir())
    yield check_space(ground)
    yield check_file_system(file_system(ground), folder)
    if finding.result != "fail":
        yield check_sync(ground)
    yield check_lock(folder)


def check_folder(folder: Path) -> Finding:
    """It exists, belongs to this user alone and is writable, or can be made."""
    check = "data_dir.folder"
    if not folder.exists():
        parent = next(path for path in folder.parents if path.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            return failed(check, f"{folder} does not exist and cannot be made in {parent}", f"make it: mkdir {folder}")
        return passed(check, f"{folder} will be made at the first start")
    if not folder.is_dir():
        return failed(check, f"{folder} is not a folder", "correct data_dir")
    status = folder.stat()
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return failed(check, f"{folder} is not writable by this user", f"chown it to the node's user: {folder}")
    if status.st_uid != os.geteuid():
        return warned(check, f"{folder} belongs to user {status.st_uid}", "diagnose as the node's user, or chown it")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        return warned(check, f"others may look into {folder} (mode {mode:04o})", f"chmod 0700 {folder}")
    return passed(check, f"{folder} is this user's alone")


def check_space(folder: Path) -> Finding:
    """There is room to write."""
    status = os.statvfs(folder)
    return judge_space(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)


def judge_space(free_bytes: int, total_bytes: int) -> Finding:
    """A snapshot needs room for a second copy of the state, so little is too little."""
    check, detail = "data_dir.space", f"{free_bytes // 2**20} MiB free of {total_bytes // 2**20} MiB"
    if free_bytes < FREE_BYTES_FAIL:
        return failed(check, detail, "make room before the node stops for want of it")
    if free_bytes < FREE_BYTES_WARN or free_bytes < total_bytes * FREE_SHARE_WARN:
        return warned(check, detail, "make room, or a larger volume; a snapshot needs a second copy of the state")
    return passed(check, detail)


def check_file_system(kind: str, folder: Path) -> Finding:
    """It keeps what it was told to keep."""
    check = "data_dir.file_system"
    if kind in IN_MEMORY:
        return failed(check, f"{folder} is on {kind}, in memory", "put data_dir on a disk: all is lost at a reboot")
    if kind in UNFIT or kind.startswith("fuse."):
        return warned(check, f"{folder} is on {kind}", "put data_dir on a local ext4 or xfs: syncs and locks matter")
    return passed(check, kind)


def check_sync(folder: Path) -> Finding:
    """Syncs work, and how long they take."""
    check, probe = "data_dir.sync", folder / f".diagnose-{secrets.token_hex(8)}"
    times: list[float] = []
    try:
        with probe.open("xb", buffering=0) as file:
            for _ in range(_SYNCS):
                begun = time.perf_counter()
                file.write(_BLOCK)
                os.fsync(file.fileno())
                times.append(time.perf_counter() - begun)
    except OSError as error:
        return failed(check, f"a synced write in {folder} fails: {error.strerror}", "look at the disk and its mount")
    finally:
        probe.unlink(missing_ok=True)
    return judge_sync(sorted(times)[_SYNCS // 2])


def judge_sync(median_s: float) -> Finding:
    """Every write waits for one."""
    detail = f"4 KiB written and synced in {median_s * 1000:.2f} ms (median of {_SYNCS})"
    if median_s > SYNC_S_WARN:
        return warned("data_dir.sync", detail, "use a faster disk: every write waits for a sync")
    return passed("data_dir.sync", detail)


def check_lock(folder: Path) -> Finding:
    """Whether a node runs on it. Neither answer is wrong."""
    held = held_by_a_process(folder / "lock")
    if held is None:
        return warned("data_dir.lock", "the lock cannot be looked at", "diagnose as the node's user")
    return passed("data_dir.lock", "held: a node runs" if held else "not held: no node runs")


def file_system(folder: Path) -> str:
    """The type of the file system that a folder is on; "unknown" where the system does not tell."""
    mounts, path = Path("/proc/mounts"), str(folder.resolve())
    best, found = "", "unknown"
    for line in mounts.read_text().splitlines() if mounts.exists() else ():
        _, point, kind = line.split()[:3]
        point = point.replace("\\040", " ")
        if (point == "/" or path == point or path.startswith(f"{point}/")) and len(point) >= len(best):
            best, found = point, kind
    return found
