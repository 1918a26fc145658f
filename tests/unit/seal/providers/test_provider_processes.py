"""Calls of providers in real processes: they end, one way or the other, and nothing of theirs stays."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pyrage
import pytest
import uvloop
from support.providers import KEY, binding_of

from holdfast.cluster.seal.providers.contract import Health, ProviderError
from holdfast.cluster.seal.providers.credentials import AgeCredentials, AwsKmsCredentials
from holdfast.cluster.seal.providers.orders import Answer, Order
from holdfast.cluster.seal.providers.processes import ProviderProcesses
from holdfast.cluster.seal.providers.worker import carry_out


def order_of(identity: Path, **changes: object) -> Order:
    order = Order(
        name="one", type="age", parameters={}, credentials=AgeCredentials(identity_file=str(identity)),
        operation="wrap", data=KEY, binding=binding_of("age"),
    )  # fmt: skip
    return msgspec.structs.replace(order, **changes)


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 120))


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "identity"
    path.write_text(f"{pyrage.x25519.Identity.generate()}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ProviderProcesses]:
    """Processes that run a program of the test in the worker's place."""

    def make(program: str, timeout_s: float = 60.0) -> ProviderProcesses:
        (tmp_path / "stand_in.py").write_text(program)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return ProviderProcesses(timeout_s=timeout_s, worker="stand_in")

    return make


def test_what_a_process_wrapped_another_one_unwraps_and_errors_come_back_as_they_are(identity: Path) -> None:
    async def story() -> None:
        processes = ProviderProcesses(timeout_s=60)
        blob = await processes.run(order_of(identity))
        assert await processes.run(order_of(identity, operation="unwrap", data=blob)) == KEY
        with pytest.raises(ProviderError) as caught:
            await processes.run(order_of(identity, operation="unwrap", data=blob[:-1] + b"\x00"))
        assert caught.value.health is Health.WRONG_KEY

    run(story)


@pytest.mark.parametrize(
    "program",
    [
        "import os; os.kill(os.getpid(), 11)",
        "raise SystemExit(3)",
        "print('noise from a library')",
        "import sys; sys.stdout.buffer.write(b'\\x80' + b'more')",
        "import os; os.close(0); os.close(1); os._exit(0)",
        "import sys; sys.stdout.buffer.write(bytes(10_000_000))",
    ],
)
def test_a_process_that_crashes_or_prints_is_a_failed_provider_and_nothing_else(
    worker: Callable[..., ProviderProcesses], identity: Path, program: str
) -> None:
    async def story() -> None:
        with pytest.raises(ProviderError) as caught:
            await worker(program).run(order_of(identity))
        assert caught.value.health is Health.FAILED

    run(story)


HANG = """
import os, pathlib, sys, time
pathlib.Path(__file__).with_name(f"pid-{os.getpid()}").touch()
time.sleep(600)
"""


def hanging(folder: Path) -> list[Path]:
    """The processes that were started and still run."""
    return [Path("/proc") / file.name[4:] for file in folder.glob("pid-*") if (Path("/proc") / file.name[4:]).exists()]


def test_a_process_that_hangs_is_ended_at_the_deadline(
    worker: Callable[..., ProviderProcesses], identity: Path, tmp_path: Path
) -> None:
    async def story() -> None:
        processes = worker(HANG, timeout_s=1.0)
        with pytest.raises(ProviderError) as caught:
            await processes.run(order_of(identity))
        assert caught.value.health is Health.TIMEOUT
        assert not hanging(tmp_path)

    run(story)


def test_a_process_is_ended_when_nobody_waits_for_it_any_more(
    worker: Callable[..., ProviderProcesses], identity: Path, tmp_path: Path
) -> None:
    async def story() -> None:
        task = asyncio.create_task(worker(HANG).run(order_of(identity)))
        end = time.monotonic() + 60
        while not hanging(tmp_path) and time.monotonic() < end:  # noqa: ASYNC110 - another process tells
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert not hanging(tmp_path)

    run(story)


def test_the_calls_of_one_provider_follow_each_other(
    worker: Callable[..., ProviderProcesses], identity: Path, tmp_path: Path
) -> None:
    program = """
import os, pathlib, sys, time
mark = pathlib.Path(__file__).with_name("busy")
mark.touch(exist_ok=False)
time.sleep(0.2)
mark.unlink()
sys.stdout.buffer.write(bytes.fromhex("81a464617461c40178"))
"""

    async def story() -> None:
        processes = worker(program)
        answers = await asyncio.gather(*(processes.run(order_of(identity)) for _ in range(3)))
        assert answers == [b"x"] * 3

    run(story)


def test_what_was_refused_for_good_is_remembered_for_the_next_call_and_forgotten_with_the_provider(
    worker: Callable[..., ProviderProcesses], identity: Path
) -> None:
    program = """
import sys, msgspec
order = msgspec.msgpack.decode(sys.stdin.buffer.read())
said = order["spent"] or "nothing"
sys.stdout.buffer.write(msgspec.msgpack.encode({"health": "refused", "message": said, "spent": "digest"}))
"""

    async def story() -> None:
        processes = worker(program)

        async def said() -> str:
            with pytest.raises(ProviderError) as caught:
                await processes.run(order_of(identity))
            return caught.value.message

        assert [await said(), await said()] == ["nothing", "digest"]
        processes.keep(["one"])
        assert await said() == "digest"
        processes.keep([])
        assert await said() == "nothing"

    run(story)


def test_whatever_a_library_raises_is_a_failure_without_its_text(identity: Path) -> None:
    answer = carry_out(order_of(identity, credentials=AwsKmsCredentials()))
    assert answer.health is Health.FAILED
    assert "AttributeError" in answer.message
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=Answer) == answer
    assert "Order" in repr(order_of(identity))
    assert repr(KEY) not in repr(order_of(identity))
    assert repr(KEY) not in repr(Answer(data=KEY))


@pytest.mark.parametrize("hangs_first", [True, False])
def test_a_process_that_hangs_holds_up_no_other_one_that_was_started_with_it(
    worker: Callable[..., ProviderProcesses], identity: Path, tmp_path: Path, hangs_first: bool
) -> None:
    program = """
import msgspec, os, pathlib, sys, time
if msgspec.msgpack.decode(sys.stdin.buffer.read())["name"] == "hangs":
    time.sleep(600)
sys.stdout.buffer.write(bytes.fromhex("81a464617461c40178"))
"""

    async def story() -> None:
        processes = worker(program)
        names = ["hangs", "answers"] if hangs_first else ["answers", "hangs"]
        tasks = {name: asyncio.create_task(processes.run(order_of(identity, name=name))) for name in names}
        assert await asyncio.wait_for(asyncio.shield(tasks["answers"]), 30) == b"x"
        assert not tasks["hangs"].done()
        tasks["hangs"].cancel()
        await asyncio.wait(tasks.values())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as a node's
        runner.run(asyncio.wait_for(story(), 120))
