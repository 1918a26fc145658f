"""Calls of providers, each in a process of its own that lives as long as the call.

In the node's process a provider's library (a vendor's PKCS#11 module, boto3, pyrage) would sit beside the keys. A crash
of it would seal every node in the same minute; a hang could not be ended; loading it would hold up the loop; and what
it leaves in buffers of its own, which no sealing reaches, opens the stored wrap. A process is killed at the deadline,
when the node seals itself and when it stops, takes its memory along, and starts from nothing, so that a module that was
unplugged and came back is found again. The price is the start of a process for each call, once a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Collection

import msgspec

from holdfast.cluster.seal.providers.contract import CALL_TIMEOUT_S, Health, ProviderError
from holdfast.cluster.seal.providers.orders import Answer, Order
from holdfast.storage.decoding import MALFORMED

WORKER = "holdfast.cluster.seal.providers.worker"
KILL_WAIT_S = 1.0
ANSWER_BYTES_MAX = 32 * 1024
_CHUNK_BYTES = 512
_answers = msgspec.msgpack.Decoder(Answer)


class ProviderProcesses:
    """See ProviderCalls. One call of a provider at a time: tokens have few sessions."""

    def __init__(self, *, timeout_s: float = CALL_TIMEOUT_S, worker: str = WORKER) -> None:
        self._timeout_s = timeout_s
        self._worker = worker
        self._turns: dict[str, asyncio.Lock] = {}
        self._spent: dict[str, str] = {}

    async def run(self, order: Order) -> bytes:
        """See ProviderCalls."""
        name = order.name
        try:
            async with asyncio.timeout(self._timeout_s), self._turns.setdefault(name, asyncio.Lock()):
                order = msgspec.structs.replace(order, spent=self._spent.get(name, ""), seconds=self._timeout_s)
                stdout, code = await self._process(msgspec.msgpack.encode(order))
        except TimeoutError:
            raise ProviderError(
                Health.TIMEOUT, f"it did not answer within {self._timeout_s:g} s; see that it is up and can be reached"
            ) from None
        except OSError as error:
            raise ProviderError(Health.FAILED, f"no process could be started to ask it ({error.strerror})") from None
        if code != 0:
            raise ProviderError(Health.FAILED, f"the process that asked it ended with code {code}; see its library")
        try:
            answer = _answers.decode(stdout)
        except MALFORMED:
            raise ProviderError(Health.FAILED, "the process that asked it answered with something else") from None
        self._spent[name] = answer.spent
        return answer.result()

    def keep(self, names: Collection[str]) -> None:
        """See ProviderCalls."""
        for known in (self._turns, self._spent):
            for name in [name for name in known if name not in names]:
                known.pop(name)

    async def _process(self, order: bytes) -> tuple[bytes, int]:
        """Run the worker over an order; what it wrote, and its exit code."""
        ours, theirs = os.pipe()
        try:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", self._worker, stdin=PIPE, stdout=theirs, stderr=DEVNULL
                )
            finally:
                os.close(theirs)
            try:
                assert process.stdin is not None
                with contextlib.suppress(ConnectionError):  # it ended without listening; its exit code tells
                    process.stdin.write(order)
                    await process.stdin.drain()
                process.stdin.close()
                return await _read_all(ours), await process.wait()
            finally:
                if process.returncode is None:
                    await _kill(process)
        finally:
            os.close(ours)


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    with contextlib.suppress(TimeoutError):  # one that is stuck in the kernel is not waited for
        async with asyncio.timeout(KILL_WAIT_S):
            await process.wait()


async def _read_all(source: int) -> bytes:
    """What comes through a pipe until its end. Raises ProviderError beyond ANSWER_BYTES_MAX.

    Not through the loop's streams: their buffer lives as long as the loop, and would keep an answer when the node is
    sealed. What is read here is dropped with the keys."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    parts: list[bytes] = []

    def readable() -> None:
        with contextlib.suppress(BlockingIOError):
            parts.append(os.read(source, _CHUNK_BYTES))
            if (not parts[-1] or len(parts) * _CHUNK_BYTES >= ANSWER_BYTES_MAX) and not ended.done():
                ended.set_result(None)

    os.set_blocking(source, False)
    loop.add_reader(source, readable)
    try:
        await ended
    finally:
        loop.remove_reader(source)
    if parts[-1]:
        raise ProviderError(Health.FAILED, "the process that asked it answered with too much")
    return b"".join(parts)
