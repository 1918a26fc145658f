"""The health service follows the node, and says NOT_SERVING for good once the node stops."""

import asyncio

import pytest
from grpc_health.v1 import health_pb2

from holdfast.server.health import GrpcHealth

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def shown(health: GrpcHealth, service: str) -> int:
    answer = await health.servicer.Check(health_pb2.HealthCheckRequest(service=service), None)
    assert answer is not None
    return int(answer.status)


async def becomes(health: GrpcHealth, expected: int) -> None:
    async with asyncio.timeout(30):
        while (await shown(health, ""), await shown(health, "a.Service")) != (expected, expected):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_every_service_serves_exactly_while_the_node_is_active_or_standby() -> None:
    async def main() -> None:
        states = ["uninitialized"]
        health = GrpcHealth(services=["a.Service"], state=lambda: states[-1])
        await health.start()
        assert await shown(health, "") == NOT_SERVING
        for state, expected in [
            ("active", SERVING), ("sealed", NOT_SERVING), ("standby", SERVING), ("no_leader", NOT_SERVING),
            ("active", SERVING),
        ]:  # fmt: skip
            states.append(state)
            health.refresh()
            await becomes(health, expected)
        await health.stop()
        assert await shown(health, "a.Service") == NOT_SERVING
        health.refresh()
        await asyncio.sleep(0)
        assert await shown(health, "") == NOT_SERVING

    asyncio.run(main())


def test_a_change_that_nobody_announces_is_seen_too() -> None:
    async def main() -> None:
        state = "active"
        health = GrpcHealth(services=["a.Service"], state=lambda: state)
        await health.start()
        await becomes(health, SERVING)
        state = "sealed"
        await becomes(health, NOT_SERVING)
        await health.stop()

    asyncio.run(main())


def test_a_watcher_that_reads_nothing_holds_up_neither_other_watchers_nor_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("holdfast.server.health.HEALTH_TIMEOUT_S", 0.01)

    class Unread:
        async def write(self, message: object) -> None:
            await asyncio.Event().wait()

    async def main() -> None:
        state = "active"
        health = GrpcHealth(services=["a.Service"], state=lambda: state)
        await health.start()
        watching = asyncio.create_task(health.servicer.Watch(health_pb2.HealthCheckRequest(), Unread()))
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            state = "sealed"
            while await shown(health, "a.Service") != NOT_SERVING:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await health.stop()
        watching.cancel()

    asyncio.run(main())
