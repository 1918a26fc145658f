"""The file device: lines in order, rotation, files that other programs move, disks that fail."""

import asyncio
import json
import os
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from holdfast.audit_devices import file as file_module
from holdfast.audit_devices.file import FileDevice
from holdfast.core.plugin.auditing import FIRST, Chain, chain_mac
from holdfast.proto.errors import FailedPrecondition, HoldfastError, InvalidArgument

MAC = chain_mac(b"k" * 32)


async def opened(path: Path, **options: str) -> Any:
    return await FileDevice().open({"file_path": str(path), **options}, Chain(MAC), node_id="node-1")


def entry(number: int) -> bytes:
    return json.dumps({"n": number}).encode()


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["n"] for line in path.read_bytes().splitlines()]


def assert_one_chain(*files: Path) -> None:
    """Every line follows the one before, from the first on."""
    chain = Chain(MAC)
    for line in b"".join(path.read_bytes() for path in files).splitlines():
        stored = json.loads(line)
        assert stored.pop("chain")["seq"] == chain.seq + 1
        assert chain.line(json.dumps(stored).encode()) == line
        chain.advance(line)


def test_entries_are_lines_in_order_and_the_file_is_private(tmp_path: Path) -> None:
    async def main() -> None:
        sink = await opened(tmp_path / "audit.log")
        await asyncio.gather(*(sink.write(entry(number)) for number in range(500)))
        await sink.close()

    asyncio.run(main())
    path = tmp_path / "audit.log"
    assert numbers(path) == list(range(500))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert_one_chain(path)


def test_a_device_that_is_opened_again_goes_on_with_its_chain(tmp_path: Path) -> None:
    async def main() -> None:
        for number in range(3):
            sink = await opened(tmp_path / "audit.log")
            await sink.write(entry(number))
            await sink.close()

    asyncio.run(main())
    assert numbers(tmp_path / "audit.log") == [0, 1, 2]
    assert_one_chain(tmp_path / "audit.log")


def test_half_a_line_of_a_crash_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def main() -> None:
        sink = await opened(path)
        await sink.write(entry(0))
        await sink.close()
        with path.open("ab") as file:
            file.write(b'{"n": 1, "half')
        sink = await opened(path)
        await sink.write(entry(2))
        await sink.close()

    asyncio.run(main())
    assert numbers(path) == [0, 2]
    assert_one_chain(path)


def test_files_are_rotated_by_size_and_the_oldest_removed(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def main() -> None:
        sink = await opened(path, rotate_bytes="1KiB", rotate_max_files="2")
        for number in range(60):
            await sink.write(entry(number))
        await sink.close()
        sink = await opened(path, rotate_bytes="1KiB", rotate_max_files="2")
        await sink.write(entry(60))
        await sink.close()

    asyncio.run(main())
    files = sorted(tmp_path.iterdir())
    assert files[0] == path
    assert len(files) == 3
    kept = [*files[1:], path]
    found = [number for file in kept for number in numbers(file)]
    assert found == list(range(found[0], 61))
    assert all(file.stat().st_size < 1024 + 300 for file in kept)


def test_the_chain_goes_on_over_rotated_files_and_a_restart_right_after_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def main() -> None:
        sink = await opened(path, rotate_bytes="1KiB")
        for number in range(20):
            await sink.write(entry(number))
        await sink.close()
        os.rename(path, path.with_name("audit.log.00000009"))  # as a crash between rename and first write leaves it
        sink = await opened(path, rotate_bytes="1KiB")
        await sink.write(entry(20))
        await sink.close()

    asyncio.run(main())
    assert_one_chain(*sorted(tmp_path.glob("audit.log.*")), path)


def test_files_are_rotated_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.log"
    now = [1_000_000.0]
    monkeypatch.setattr(file_module.time, "time", lambda: now[0])

    async def main() -> None:
        sink = await opened(path, rotate_duration="1h")
        for number in range(4):
            await sink.write(entry(number))
            now[0] += 3000
        await sink.close()

    asyncio.run(main())
    assert [numbers(file) for file in [*sorted(tmp_path.glob("audit.log.*")), path]] == [[0, 1], [2, 3]]


def test_a_file_that_another_program_moves_away_is_followed_by_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def main() -> None:
        sink = await opened(path)
        await sink.write(entry(0))
        os.rename(path, tmp_path / "moved")
        await sink.write(entry(1))
        await sink.close()

    asyncio.run(main())
    assert numbers(tmp_path / "moved") == [0]
    assert numbers(path) == [1]
    assert_one_chain(tmp_path / "moved", path)


def test_a_failed_write_leaves_whole_lines_and_the_chain_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.log"
    write = os.write
    left = [0]

    def failing(descriptor: int, data: bytes) -> int:
        if left[0] == 0:
            return write(descriptor, data)
        left[0] -= 1
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:10])

    monkeypatch.setattr(file_module.os, "write", failing)

    async def main() -> None:
        sink = await opened(path)
        await sink.write(entry(0))
        left[0] = 3
        with pytest.raises(OSError, match="No space"):
            await sink.write(entry(1))
        assert numbers(path) == [0]
        await sink.write(entry(2))
        await sink.close()

    asyncio.run(main())
    assert numbers(path) == [0, 2]
    assert_one_chain(path)


def test_two_devices_never_share_a_file(tmp_path: Path) -> None:
    async def main() -> None:
        sink = await opened(tmp_path / "audit.log")
        with pytest.raises(FailedPrecondition, match="node_id"):
            await opened(tmp_path / "audit.log")
        await sink.close()
        other = await opened(tmp_path / "{node_id}.log")
        await other.close()

    asyncio.run(main())
    assert (tmp_path / "node-1.log").exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/dev/null"),
        lambda path: os.mkfifo(path),
    ],
)
def test_what_is_not_a_regular_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "audit.log")

    async def main() -> None:
        with pytest.raises((OSError, HoldfastError)):
            await opened(tmp_path / "audit.log")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "file_path"),
        ({"file_path": "relative.log"}, "file_path"),
        ({"file_path": "/a", "mode": "rw"}, "mode"),
        ({"file_path": "/a", "mode": "0400"}, "mode"),
        ({"file_path": "/a", "mode": "0755"}, "mode"),
        ({"file_path": "/a", "rotate_bytes": "many"}, "rotate_bytes"),
        ({"file_path": "/a", "rotate_bytes": "1"}, "rotate_bytes"),
        ({"file_path": "/a", "rotate_duration": "soon"}, "rotate_duration"),
        ({"file_path": "/a", "rotate_max_files": "-1"}, "rotate_max_files"),
        ({"file_path": "/a", "sync": "perhaps"}, "sync"),
    ],
)
def test_options_that_make_no_device_are_refused_by_name(options: Mapping[str, str], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        FileDevice().check(options)
    assert refused.value.field == field


def test_a_first_line_says_that_it_is_the_first() -> None:
    assert json.loads(Chain(MAC).line(b'{"n":0}'))["chain"]["prev"] == FIRST


def test_a_file_that_opens_too_late_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, opened_late = threading.Event(), threading.Event()
    open_file = file_module._FileSink._open_file

    def slow(sink: Any, **more: Any) -> None:
        go_on.wait(30)
        open_file(sink, **more)
        opened_late.set()

    async def main() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(file_module._FileSink, "_open_file", slow)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await opened(tmp_path / "audit.log")
            go_on.set()
            async with asyncio.timeout(30):  # until the late opening has come to its end
                await asyncio.to_thread(opened_late.wait, 30)
        async with asyncio.timeout(30):
            while True:
                try:
                    sink = await opened(tmp_path / "audit.log")
                    break
                except FailedPrecondition:
                    await asyncio.sleep(0.01)
        await sink.write(entry(1))
        await sink.close()

    asyncio.run(main())
    assert numbers(tmp_path / "audit.log") == [1]


def test_while_a_disk_hangs_the_queue_is_bounded_and_who_gave_up_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    write = os.write

    def hanging(descriptor: int, data: Any) -> int:
        begun.set()
        go_on.wait(30)
        return write(descriptor, data)

    async def main() -> None:
        sink = await opened(tmp_path / "audit.log")
        with monkeypatch.context() as patched:
            patched.setattr(file_module.os, "write", hanging)
            first = asyncio.create_task(sink.write(entry(0)))
            assert await asyncio.to_thread(begun.wait, 30)
            waiting = [asyncio.create_task(sink.write(entry(n))) for n in range(1, file_module._WAITING_MAX + 1)]
            await asyncio.sleep(0)
            with pytest.raises(FailedPrecondition, match="wait already"):
                await sink.write(entry(9_999))
            for task in waiting[1:]:
                task.cancel()
            await asyncio.wait(waiting[1:])
            go_on.set()
            await asyncio.gather(first, waiting[0])
        await sink.write(entry(7))
        await sink.close()

    asyncio.run(main())
    assert numbers(tmp_path / "audit.log") == [0, 1, 7]
    assert_one_chain(tmp_path / "audit.log")


def test_a_forged_last_line_is_not_gone_on_after(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def write(number: int) -> None:
        sink = await opened(path)
        await sink.write(entry(number))
        await sink.close()

    asyncio.run(write(1))
    genuine = path.read_bytes()
    forger = Chain(chain_mac(b"x" * 32))
    for forged in (forger.line(entry(2)) + b"\n", genuine[:-2] + b',"n":3}\n', genuine.replace(b'"n":', b'"m":')):
        path.write_bytes(forged)
        asyncio.run(write(4))
        chain = json.loads(path.read_bytes().splitlines()[-1])["chain"]
        assert (chain["seq"], chain["prev"]) == (1, FIRST)
    path.write_bytes(genuine)
    asyncio.run(write(4))
    assert_one_chain(path)
