"""The data folder and the host, as they are and as they may be."""

import fcntl
import os
import resource
from pathlib import Path

import pytest

from holdfast.server.diagnose import data_folder
from holdfast.server.diagnose.host import judge_core_dumps, judge_files, judge_memory, judge_swap
from holdfast.server.diagnose.locks import held_by_a_process

GIB = 2**30


def test_a_folder_of_this_user_passes_and_one_that_others_see_warns(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert "will be made" in data_folder.check_folder(folder).detail
    folder.mkdir(mode=0o700)
    assert data_folder.check_folder(folder).result == "pass"
    folder.chmod(0o755)
    assert data_folder.check_folder(folder).result == "warn"


def test_a_file_in_the_folders_place_fails(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert data_folder.check_folder(tmp_path / "data").result == "fail"


def test_a_folder_of_another_user_is_told() -> None:
    finding = data_folder.check_folder(Path("/proc/sys"))  # root's, and nobody can write there
    assert finding.result in ("warn", "fail")


@pytest.mark.parametrize(
    ("free", "total", "result"),
    [
        (50 * GIB, 100 * GIB, "pass"), (5 * GIB, 100 * GIB, "warn"), (GIB, 2 * GIB, "warn"), (2**20, 100 * GIB, "fail"),
    ],
)  # fmt: skip
def test_little_space_warns_and_none_fails(free: int, total: int, result: str) -> None:
    assert data_folder.judge_space(free, total).result == result


def test_space_and_file_system_of_a_real_folder_are_told(tmp_path: Path) -> None:
    assert "MiB free" in data_folder.check_space(tmp_path).detail
    assert data_folder.file_system(Path("/proc")) == "proc"
    assert data_folder.file_system(tmp_path) != "unknown"


@pytest.mark.parametrize(("kind", "result"), [("ext4", "pass"), ("xfs", "pass"), ("nfs4", "warn"), ("tmpfs", "fail")])
def test_file_systems_that_forget_fail_and_remote_ones_warn(kind: str, result: str) -> None:
    assert data_folder.check_file_system(kind, Path("/data")).result == result


def test_a_sync_is_measured_and_leaves_nothing_behind(tmp_path: Path) -> None:
    assert "ms" in data_folder.check_sync(tmp_path).detail
    assert not list(tmp_path.iterdir())
    assert data_folder.judge_sync(0.001).result == "pass"
    assert data_folder.judge_sync(0.2).result == "warn"


def test_a_sync_that_fails_is_a_failure() -> None:
    assert data_folder.check_sync(Path("/proc/sys")).result == "fail"


def test_a_lock_that_is_held_is_seen_and_not_taken(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert held_by_a_process(lock) is False
    assert "no node runs" in data_folder.check_lock(tmp_path).detail
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT)
    try:
        assert held_by_a_process(lock) is False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not taken by the look before
        assert held_by_a_process(lock) is True
        assert "a node runs" in data_folder.check_lock(tmp_path).detail
    finally:
        os.close(descriptor)


def test_the_hosts_limits() -> None:
    assert [judge_files(limit).result for limit in (1024, 16_384, resource.RLIM_INFINITY)] == ["warn", "pass", "pass"]
    assert judge_core_dumps("linux").result == "pass"
    assert judge_core_dumps("darwin").result == "warn"


@pytest.mark.parametrize(
    ("mode", "problem", "swap", "result"),
    [
        ("auto", "", True, "pass"), ("on", "no", False, "fail"), ("auto", "no", True, "warn"),
        ("auto", "no", False, "pass"), ("off", "", True, "warn"), ("off", "", False, "pass"),
    ],
)  # fmt: skip
def test_memory_that_cannot_be_locked_matters_where_there_is_swap(
    mode: str, problem: str, swap: bool, result: str
) -> None:
    assert judge_memory(mode, problem, swap=swap).result == result


def test_swap_warns_unless_memory_is_locked() -> None:
    assert judge_swap(swap=False, locked=False).result == "pass"
    assert judge_swap(swap=True, locked=True).result == "pass"
    assert judge_swap(swap=True, locked=False).result == "warn"
