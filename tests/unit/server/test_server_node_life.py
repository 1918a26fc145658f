"""The life of a node from its start to its exit code, in this process: told to stop early, fatal while it stops."""

import asyncio
from pathlib import Path

import pytest

from holdfast.client.local import free_ports
from holdfast.proto.errors import StorageFailed
from holdfast.server import node as server_node
from holdfast.server.certs import create_ca, issue_node
from holdfast.server.config import ApiConfig, ClusterConfig, InitialMember, NodeConfig, TlsFiles
from holdfast.server.exits import EXIT_FATAL
from holdfast.server.node import Node


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    tmp_path.chmod(0o700)
    create_ca(tmp_path, "test")
    files = issue_node(tmp_path, "node-1", [], ["127.0.0.1"])
    tls = TlsFiles(cert_file=str(files.cert_file), key_file=str(files.key_file), ca_file=str(tmp_path / "ca.crt"))
    api, cluster = (f"127.0.0.1:{port}" for port in free_ports(2))
    return NodeConfig(
        node_id="node-1",
        data_dir=str(tmp_path / "data"),
        api=ApiConfig(bind=api, advertise=api, tls=tls),
        cluster=ClusterConfig(
            bind=cluster,
            advertise=cluster,
            tls=tls,
            initial_members=(InitialMember(node_id="node-1", cluster_address=cluster, api_address=api),),
        ),
    )


def test_a_node_told_to_stop_before_it_has_started_stops_in_order(config: NodeConfig) -> None:
    async def main() -> None:
        stopping = asyncio.Event()
        stopping.set()
        node = Node(config)
        assert await server_node._run_to_the_end(node, stopping) == 0
        Node(config)._held.close()  # the folder is free again

    asyncio.run(main())


def test_a_fatal_error_while_the_node_stops_ends_it_without_closing_the_books(config: NodeConfig) -> None:
    async def main() -> None:
        node, stopping, closed = Node(config), asyncio.Event(), []
        node._held.callback(lambda: closed.append(True))

        async def hand_over() -> None:
            node._on_fatal(StorageFailed("the disk refused"))
            await asyncio.Event().wait()

        node._hand_over = hand_over  # type: ignore[method-assign]
        running = asyncio.create_task(server_node._run_to_the_end(node, stopping))
        stopping.set()
        async with asyncio.timeout(30):
            assert await running == EXIT_FATAL
        assert not closed
        await node.discard()

    asyncio.run(main())
