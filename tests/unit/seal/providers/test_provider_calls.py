"""Blocking calls under a deadline: they end, one way or the other, and nothing waits for one that hangs."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from holdfast.cluster.seal.providers.calls import BlockingCalls
from holdfast.cluster.seal.providers.contract import Health, ProviderError


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))


def test_the_result_and_the_error_of_a_call_come_back() -> None:
    def fail() -> int:
        raise ProviderError(Health.REFUSED, "no")

    def crash() -> int:
        raise KeyError("a secret")

    async def story() -> None:
        calls = BlockingCalls()
        assert await calls.run("p", lambda: threading.current_thread().daemon) is True
        with pytest.raises(ProviderError, match="no"):
            await calls.run("p", fail)
        with pytest.raises(ProviderError) as caught:
            await calls.run("p", crash)
        assert caught.value.health is Health.FAILED
        assert "a secret" not in caught.value.message

    run(story)


def test_a_call_that_hangs_is_given_up_and_keeps_its_place_until_it_ends() -> None:
    release, entered = threading.Event(), []

    def hang() -> None:
        entered.append(1)
        release.wait(60)

    async def story() -> None:
        calls = BlockingCalls(timeout_s=0.2)
        for _ in range(3):
            with pytest.raises(ProviderError) as caught:
                await calls.run("p", hang)
            assert caught.value.health is Health.TIMEOUT
        assert entered == [1], "a hanging provider has one thread and no more"
        assert await calls.run("another", lambda: 5) == 5
        release.set()
        patient = BlockingCalls(timeout_s=30)
        patient._places = calls._places
        assert await patient.run("p", lambda: 6) == 6

    run(story)


def test_the_calls_of_one_provider_follow_each_other() -> None:
    at_once, most = [0], [0]
    lock = threading.Lock()

    def work() -> None:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        threading.Event().wait(0.02)
        with lock:
            at_once[0] -= 1

    async def story() -> None:
        calls = BlockingCalls()
        await asyncio.gather(*(calls.run("p", work) for _ in range(5)))
        assert most == [1]

    run(story)


def test_a_loop_that_ends_does_not_wait_for_a_call_that_hangs() -> None:
    release = threading.Event()

    async def story() -> None:
        calls = BlockingCalls(timeout_s=60)
        task = asyncio.create_task(calls.run("p", lambda: release.wait(60)))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    run(story)
    release.set()  # the thread now finds its loop closed, and ends quietly
    for thread in threading.enumerate():
        if thread.name == "seal provider p":
            thread.join(30)
            assert not thread.is_alive()
