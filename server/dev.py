"""`holdfastd dev`: a cluster of one node in a folder that is gone afterwards. Real in everything but its lifetime: TLS
with fresh certificates, the real consensus and stores, and an initialisation through the client port.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import grpc

from holdfast.proto.v1 import sys_pb2
from holdfast.proto.v1.sys_pb2_grpc import SysServiceStub
from holdfast.server.certs import create_ca, issue_node
from holdfast.server.config import (
    ApiConfig,
    ClusterConfig,
    ConfigError,
    InitialMember,
    LogConfig,
    NodeConfig,
    TlsFiles,
)
from holdfast.server.logging import configure
from holdfast.server.node import run

if TYPE_CHECKING:
    from holdfast.proto.v1.sys_pb2_grpc import SysServiceAsyncStub

LOOPBACK = "127.0.0.1"
NODE_ID = "dev"
INIT_TIMEOUT_S = 30.0
RETRY_S = 0.05

_BANNER = """
  WARNING: this is a development node. It is initialised with one share and unsealed, its root token is below, and
  everything in it is gone when it stops. Never keep a secret in it.

  Address      {address}
  CA file      {ca_file}
  Root token   {root_token}

  export HOLDFAST_ADDR={address}
  export HOLDFAST_CACERT={ca_file}
  export HOLDFAST_TOKEN={root_token}

  Press Ctrl-C to stop.
"""


async def run_dev(*, port: int | None, log_level: str, echo: Callable[[str], None]) -> int:
    """Run the development node until Ctrl-C. Returns the exit code. `echo` prints to the one who started it."""
    with _vanishing_folder() as folder:
        config = _config(folder, port, log_level)
        configure(config.log, node_id=config.node_id)
        introduction = asyncio.create_task(_introduce(config, echo), name="introduction")
        running = asyncio.create_task(run(config), name="node")
        await asyncio.wait({introduction, running}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            introduction.cancel()
            await asyncio.wait({introduction})
        else:
            introduction.result()
        return await running


@contextmanager
def _vanishing_folder() -> Iterator[Path]:
    """A 0700 folder, in memory where the system has /dev/shm, removed at the end."""
    shared_memory = "/dev/shm"  # noqa: S108 - mkdtemp makes the name, and the folder is 0700
    parent = shared_memory if os.access(shared_memory, os.W_OK | os.X_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="holdfast-dev-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _config(folder: Path, port: int | None, log_level: str) -> NodeConfig:
    create_ca(folder / "certs", "holdfast dev")
    files = issue_node(folder / "certs", NODE_ID, ["localhost"], [LOOPBACK])
    tls = TlsFiles(
        cert_file=str(files.cert_file), key_file=str(files.key_file), ca_file=str(folder / "certs" / "ca.crt")
    )
    if port is not None and not _free(port):
        raise ConfigError(f"port {port} is taken; stop what listens there, or choose another port with --port")
    free = _free_ports(2)
    api, cluster = f"{LOOPBACK}:{port or free[0]}", f"{LOOPBACK}:{free[1]}"
    level = cast("Literal['debug', 'info', 'warning', 'error']", log_level)
    return NodeConfig(
        node_id=NODE_ID,
        cluster_name="dev",
        data_dir=str(folder / "data"),
        api=ApiConfig(bind=api, advertise=api, tls=tls),
        cluster=ClusterConfig(
            bind=cluster,
            advertise=cluster,
            tls=tls,
            initial_members=(InitialMember(node_id=NODE_ID, cluster_address=cluster, api_address=api),),
        ),
        log=LogConfig(level=level, format="console"),
    )


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind((LOOPBACK, 0))
        return [int(sock.getsockname()[1]) for sock in sockets]


async def _introduce(config: NodeConfig, echo: Callable[[str], None]) -> None:
    """Initialise and unseal the node through its client port, and tell how to reach it."""
    ca_file = config.api.tls.ca_file
    credentials = grpc.ssl_channel_credentials(Path(ca_file).read_bytes())  # noqa: ASYNC240 - once, at the start
    async with grpc.aio.secure_channel(config.api.advertise, credentials) as channel:
        stub: SysServiceAsyncStub = SysServiceStub(channel)
        made = await _initialize(stub)
        await stub.Unseal(sys_pb2.UnsealRequest(share=made.shares[0]), timeout=INIT_TIMEOUT_S)
        while not await _active(stub):  # noqa: ASYNC110 - what changes is on the other side of the wire
            await asyncio.sleep(RETRY_S)
    echo(_BANNER.format(address=config.api.advertise, ca_file=ca_file, root_token=made.root_token))


async def _initialize(stub: SysServiceAsyncStub) -> sys_pb2.InitResponse:
    """Init, once the node listens and leads."""
    order = sys_pb2.InitRequest(secret_shares=1, secret_threshold=1)
    async with asyncio.timeout(INIT_TIMEOUT_S):
        while True:
            try:
                return await stub.Init(order, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(RETRY_S)


async def _active(stub: SysServiceAsyncStub) -> bool:
    health = await stub.Health(sys_pb2.HealthRequest(), timeout=INIT_TIMEOUT_S)
    return health.state == sys_pb2.HealthResponse.STATE_ACTIVE
