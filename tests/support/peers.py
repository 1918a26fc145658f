"""Peer networks on loopback with real certificates, and strangers to annoy them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from holdfast.cluster.peer.network import PeerNetwork
from holdfast.cluster.peer.settings import PeerLimits
from holdfast.cluster.peer.tls import Kind, PeerTls
from holdfast.server.certs import create_ca, issue_node

T = TypeVar("T")

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
DEADLINE_S = 60.0


def run(main: Callable[[], Awaitable[T]], loop: str = "asyncio") -> T:
    """Run a test; afterwards no task may be left and nothing may have gone to the loop's exception handler."""
    complaints: list[dict[str, Any]] = []

    async def watched() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with asyncio.timeout(DEADLINE_S):
            result = await main()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        result = runner.run(watched())
    assert not complaints
    return result


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until the condition holds (the test's deadline applies)."""
    while not condition():  # noqa: ASYNC110  a condition of any kind
        await asyncio.sleep(0.002)


class Certs:
    """A CA with node-1, node-2, node-3, an expired node-2 in `expired`, and a node-2 of another CA in `foreign`."""

    def __init__(self, directory: Path) -> None:
        self.good, self.expired, self.foreign = directory / "good", directory / "expired", directory / "foreign"
        create_ca(self.good, "demo")
        for node in ("node-1", "node-2", "node-3"):
            issue_node(self.good, node)
        self.expired.mkdir(mode=0o700)
        for name in ("ca.crt", "ca.key"):
            shutil.copy2(self.good / name, self.expired / name)
        issue_node(self.expired, "node-2", days=7, now=datetime.now(UTC) - timedelta(days=60))
        create_ca(self.foreign, "demo")
        issue_node(self.foreign, "node-2")

    def tls(self, node_id: str, directory: Path | None = None) -> PeerTls:
        folder = directory or self.good
        return PeerTls(folder / f"{node_id}.crt", folder / f"{node_id}.key", self.good / "ca.crt")

    def context(self, node_id: str, kind: Kind | None, directory: Path | None = None, *, server: bool = False) -> Any:
        """A TLS context as another program would make it, with no checks of its own unless it serves."""
        folder = directory or self.good
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.load_cert_chain(folder / f"{node_id}.crt", folder / f"{node_id}.key")
        if kind is not None:
            context.set_alpn_protocols([kind.value])
        return context


@dataclass
class Node:
    """A peer network and what it told its consensus module."""

    network: PeerNetwork
    node_id: str
    messages: list[tuple[str, bytes]] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)

    def bind(self) -> None:
        self.network.bind(
            on_message=lambda peer, payload: self.messages.append((peer, payload)),
            on_connected=lambda peer: self.events.append(("up", peer)),
            on_disconnected=lambda peer: self.events.append(("down", peer)),
        )

    def connected(self, peer: str) -> bool:
        mine = [event for event, about in self.events if about == peer]
        assert mine == [("up", "down")[i % 2] for i in range(len(mine))], "up and down must alternate"
        return bool(mine) and mine[-1] == "up"


@contextlib.asynccontextmanager
async def node(
    certs: Certs, node_id: str, *, bind: str = "127.0.0.1:0", limits: PeerLimits | None = None, **options: Any
) -> AsyncIterator[Node]:
    """A started node without peers."""
    tls = options.pop("tls", None) or certs.tls(node_id)
    made = Node(PeerNetwork(node_id=node_id, bind=bind, tls=tls, limits=limits or PeerLimits(), **options), node_id)
    made.bind()
    await made.network.start()
    try:
        yield made
    finally:
        await made.network.stop()


@contextlib.asynccontextmanager
async def cluster(certs: Certs, *node_ids: str, limits: PeerLimits | None = None) -> AsyncIterator[list[Node]]:
    """Started nodes that all have each other for peers and are all connected."""
    async with contextlib.AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node(certs, node_id, limits=limits)) for node_id in node_ids]
        addresses = {made.node_id: made.network.address for made in nodes}
        for made in nodes:
            made.network.set_peers(addresses)
        for made in nodes:
            for other in node_ids:
                if other != made.node_id:
                    await eventually(lambda made=made, other=other: made.connected(other))
        yield nodes


@dataclass
class Stranger:
    """A connection made by hand."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, payload: bytes) -> None:
        self.writer.write(len(payload).to_bytes(4, "big") + payload)

    async def frame(self) -> bytes:
        """The next frame; b"" at the end of the stream."""
        try:
            return await self.reader.readexactly(int.from_bytes(await self.reader.readexactly(4), "big"))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return b""

    async def ended(self) -> None:
        """Wait until the other end has closed; whatever it still sends is ignored."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while await self.reader.read(65536):
                pass


@contextlib.asynccontextmanager
async def stranger(address: str, context: ssl.SSLContext | None = None) -> AsyncIterator[Stranger]:
    """Connect to a peer port, with TLS when a context is given."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=context, server_hostname="" if context else None
    )
    try:
        yield Stranger(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def impostor(context: ssl.SSLContext, serve: Callable[[Stranger], Awaitable[None]]) -> AsyncIterator[str]:
    """A hand-made server in a peer's place; gives its address."""
    tasks: set[asyncio.Task[None]] = set()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(Stranger(reader, writer))
        finally:
            writer.transport.abort()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(session(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


def closed_port() -> str:
    """An address on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"
