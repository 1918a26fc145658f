"""Streams without end or token take a bounded share of a node, over gRPC's own transport."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from holdfast.server.health import HEALTH_SERVICE, GrpcHealth, add_health_servicer
from holdfast.server.streams import StreamCap

WATCH = health_pb2.HealthCheckRequest()
LIST = reflection_pb2.ServerReflectionRequest(list_services="")


@contextlib.asynccontextmanager
async def served(folder: Path, streams_max: int) -> AsyncIterator[grpc.aio.Channel]:
    health = GrpcHealth(services=[], state=lambda: "active")
    await health.start()
    server = grpc.aio.server(interceptors=[StreamCap(streams_max)])
    add_health_servicer(health.servicer, server)
    reflection.enable_server_reflection([HEALTH_SERVICE], server)
    server.add_insecure_port(f"unix:{folder}/socket")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{folder}/socket") as channel:
        yield channel
    await health.stop()
    await server.stop(None)


async def refused(call: grpc.aio.StreamStreamCall | grpc.aio.UnaryStreamCall) -> bool:
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return False


def test_streams_above_the_cap_are_refused_and_single_answers_still_given(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), served(tmp_path, 3) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            mirror = reflection_pb2_grpc.ServerReflectionStub(channel)
            silent = mirror.ServerReflectionInfo()  # opened, and never asks
            await silent.write(LIST)
            assert not await refused(silent)
            watching = [health.Watch(WATCH) for _ in range(2)]
            assert [await refused(call) for call in watching] == [False, False]
            assert await refused(health.Watch(WATCH))
            assert await refused(mirror.ServerReflectionInfo(iter([LIST])))
            assert (await health.Check(WATCH)).status == health_pb2.HealthCheckResponse.SERVING
            watching[0].cancel()
            while await refused(call := health.Watch(WATCH)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            call.cancel()

    asyncio.run(main())
