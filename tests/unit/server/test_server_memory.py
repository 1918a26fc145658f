"""Memory that is locked, and freed memory that is overwritten; each in a process of its own."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.process_memory import find

from holdfast.server.memory import has_lock_capability, swap_is_on

PREPARE = "import sys, resource\nfrom holdfast.server.memory import lock_memory, overwrite_freed_memory\n"


def run(script: str) -> str:
    result = subprocess.run([sys.executable, "-c", PREPARE + script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_auto_and_on_lock_where_the_system_allows_it_and_off_never_does() -> None:
    locked = "print([l for l in open('/proc/self/status') if l.startswith('VmLck')][0].split()[1] != '0')"
    assert "False" in run(f"print(lock_memory('off'))\n{locked}")
    if has_lock_capability():
        for mode in ("auto", "on"):
            assert "False" not in run(f"assert lock_memory('{mode}')\n{locked}")


def test_without_permission_auto_goes_on_and_on_refuses() -> None:
    drop = (
        "import ctypes\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))\n"
        "import holdfast.server.memory as memory\n"
        "memory.has_lock_capability = lambda: False\n"
    )
    assert "False" in run(f"{drop}print(lock_memory('auto'))")
    refused = run(
        f"{drop}from holdfast.server.config import ConfigError\n"
        "try:\n  lock_memory('on')\nexcept ConfigError as error:\n  print(error)"
    )
    assert "memory_lock: the limit of locked memory" in refused


def test_whether_there_is_swap_is_known() -> None:
    assert swap_is_on() == (len(Path("/proc/swaps").read_text().splitlines()) > 1)


@pytest.mark.parametrize("size", [32, 64, 200, 450, 900])
def test_freed_objects_are_overwritten(size: int) -> None:
    """The second process says when it has freed its object, and again when it has overwritten what was free."""
    seed = os.urandom(16)
    script = PREPARE + (
        f"import hashlib\nseed = bytes.fromhex('{seed.hex()}')\n"
        f"secret = (hashlib.sha256(seed).digest() * 40)[:{size}]\n"
        "print('held', flush=True)\nsys.stdin.readline()\n"
        "del secret\noverwrite_freed_memory()\nprint('overwritten', flush=True)\nsys.stdin.readline()\n"
    )
    # SHA-256 of the seed is not on the command line, so it is nowhere but in the object.
    needle = {"secret": (hashlib.sha256(seed).digest() * 40)[:size]}
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert find(process.pid, needle)["secret"]
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "overwritten\n"
        assert not find(process.pid, needle)["secret"]
        process.stdin.write("\n")
