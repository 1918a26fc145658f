"""Nodes of one process for tests of the front end: the real services, core, seal and KV engine over LocalConsensus, and
calls between nodes that stay in memory. Only consensus, TLS and gRPC's own transport are not in it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import grpc
from google.rpc import error_details_pb2, status_pb2
from support.local_consensus import LocalConsensus
from support.seal_rig import stream

from holdfast.cluster.peer.calls import Handler
from holdfast.cluster.raft.consensus import Role
from holdfast.cluster.seal.seal import SealManager
from holdfast.core.audit import AuditBroker
from holdfast.core.core import Core
from holdfast.engines.kv.engine import KvEngine
from holdfast.proto.errors import Fatal, Unavailable
from holdfast.proto.v1 import sys_pb2
from holdfast.server.config import SealSettings
from holdfast.server.forwarding import PeerForwarder, serve_forwarded
from holdfast.server.frontend import FrontEnd
from holdfast.server.health import HealthReport, state_of
from holdfast.server.key_operations import KeyOperations
from holdfast.server.keys_service import KeysService
from holdfast.server.kv_service import KvService
from holdfast.server.logical_service import LogicalService
from holdfast.server.metrics import Metrics
from holdfast.server.raft_service import RaftService
from holdfast.server.sealing import Sealing
from holdfast.server.sys_service import SysService


class Refused(Exception):
    """The status that a call ended with, unpacked."""

    def __init__(self, status: grpc.Status) -> None:
        super().__init__(status.details)
        self.code: grpc.StatusCode = status.code
        ((_, raw),) = status.trailing_metadata
        self.reason, self.field, self.retry_ms, self.details = "", "", 0, {}
        for packed in status_pb2.Status.FromString(raw).details:
            for message in (
                error_details_pb2.ErrorInfo(),
                error_details_pb2.RetryInfo(),
                error_details_pb2.BadRequest(),
            ):
                if packed.Unpack(message):
                    self._take(message)

    def _take(self, message: Any) -> None:
        if isinstance(message, error_details_pb2.ErrorInfo):
            self.reason, self.details = message.reason, dict(message.metadata)
        elif isinstance(message, error_details_pb2.RetryInfo):
            self.retry_ms = message.retry_delay.ToMilliseconds()
        else:
            self.field = message.field_violations[0].field


class Context:
    """The part of grpc.aio.ServicerContext that the front end uses."""

    def __init__(self, metadata: Mapping[str, str], timeout_s: float | None) -> None:
        self._metadata = tuple(metadata.items())
        self._timeout_s = timeout_s

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def time_remaining(self) -> float | None:
        return self._timeout_s

    def peer(self) -> str:
        return "ipv4:127.0.0.1:5000"

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        raise Refused(status)


class Switchboard:
    """PeerCalls of all nodes."""

    def __init__(self) -> None:
        self.handlers: dict[tuple[str, str], Handler] = {}
        self.calls: list[tuple[str, str, str]] = []

    def port(self, node_id: str) -> Port:
        return Port(self, node_id)


class Port:
    """PeerCalls of one node. `down`: members that cannot be reached."""

    def __init__(self, board: Switchboard, node_id: str) -> None:
        self._board = board
        self._node_id = node_id
        self.down: set[str] = set()

    def serve(self, name: str, handler: Handler) -> None:
        self._board.handlers[self._node_id, name] = handler

    async def call(self, node_id: str, name: str, payload: bytes, *, timeout_s: float) -> bytes:
        self._board.calls.append((self._node_id, node_id, name))
        if node_id in self.down:
            raise Unavailable("not delivered")
        return await self._board.handlers[node_id, name](self._node_id, payload)


async def trusts_everybody(_node_id: str) -> bool:
    return True


class FrontEndNode:
    """A node's front end and what is below it. Construct inside a running loop, then `await load()`."""

    def __init__(self, consensus: LocalConsensus, board: Switchboard, *, in_flight_max: int = 100) -> None:
        self.consensus = consensus
        self.port = board.port(consensus.node_id)
        self.fatal: list[Fatal] = []
        self.metrics = Metrics(version="test")
        self.seal = SealManager(consensus, random_bytes=stream(consensus.node_id), wall_clock=time.time)
        self.core = Core(
            node_id=consensus.node_id,
            consensus=consensus,
            barrier=lambda: self.seal.barrier,
            engines={"kv": KvEngine()},
            forwarder=PeerForwarder(self.port, self.metrics),
            audit=AuditBroker(()),
            wall_clock=time.time,
            random_bytes=stream(consensus.node_id + "core"),
        )
        serve_forwarded(self.port, self.core.handle, self.fatal.append)
        counter = itertools.count(1)
        self.front_end = FrontEnd(
            metrics=self.metrics,
            random_bytes=lambda size: next(counter).to_bytes(size, "big"),
            monotonic=time.monotonic,
            on_fatal=self.fatal.append,
            in_flight_max=in_flight_max,
        )
        self.kv = KvService(self.front_end, self.core.handle, consensus)
        self.logical = LogicalService(self.front_end, self.core.handle)
        self.admitted: list[str] = []
        self.raft = RaftService(
            self.front_end, consensus=consensus, calls=self.port, authorize=self.core.authorize,
            admitted=self.admit, on_fatal=self.fatal.append,
        )  # fmt: skip
        self.sealing = Sealing(
            SealSettings(), node_id=consensus.node_id, seal=self.seal, consensus=consensus, calls=self.port,
            metrics=self.metrics, event=lambda _name, **_data: None, trusts=trusts_everybody, clock=time.monotonic,
            wall_clock=time.time,
            random_bytes=stream(consensus.node_id + "sealing"), on_fatal=self.fatal.append,
        )  # fmt: skip
        self.sys = SysService(
            self.front_end,
            version="test",
            consensus=consensus,
            calls=self.port,
            seal=self.seal,
            unseal_members=self.sealing.unseal_members,
            seal_providers=lambda: self.sealing.providers.statuses,
            on_quorum_return="manual",
            bootstrap=self.core.bootstrap,
            authorize=self.core.authorize,
            health=self.health,
            wall_clock=time.time,
            on_fatal=self.fatal.append,
        )
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.operations = KeyOperations(
            consensus=consensus,
            calls=self.port,
            seal=self.seal,
            authorize=self.core.authorize,
            witness=self.core.witness,
            make_token=self.core.create_root_token,
            recover=self.sealing.recover_root_key,
            event=lambda name, **facts: self.events.append((name, facts)),
            random_bytes=stream(consensus.node_id + "keys"),
            clock=time.monotonic,
            wall_clock=time.time,
            on_fatal=self.fatal.append,
        )
        self.keys = KeysService(self.front_end, self.operations)
        self.token = ""
        self.shares: tuple[str, ...] = ()

    async def admit(self, node_id: str) -> None:
        self.admitted.append(node_id)

    def health(self) -> HealthReport:
        state = state_of(self.consensus, initialized=self.seal.initialized, sealed=self.seal.sealed)
        return HealthReport(state=state, node_id=self.consensus.node_id, version="test", leader_id="")

    async def call(
        self, method: Callable[[Any, Any], Any], message: Any, *, timeout_s: float | None = 5.0, **metadata: str
    ) -> Any:
        """Call a method of a service, with this node's token unless another one is given. Raises Refused."""
        sent = {"x-holdfast-token": self.token, **{f"x-holdfast-{k.replace('_', '-')}": v for k, v in metadata.items()}}
        answer: Awaitable[Any] = method(message, Context({k: v for k, v in sent.items() if v}, timeout_s))
        return await answer


async def one_node(**options: int) -> FrontEndNode:
    """A node that leads, initialised and unsealed."""
    node = FrontEndNode(LocalConsensus("node-1"), Switchboard(), **options)
    await node.seal.load()
    await open_all(node)
    return node


async def two_nodes() -> tuple[FrontEndNode, FrontEndNode]:
    """A leader and a follower with the same state, initialised and unsealed."""
    board = Switchboard()
    leading = LocalConsensus("node-1")
    following = LocalConsensus("node-2", role=Role.FOLLOWER, leader_id="node-1")
    leading.attach(following)
    leader, follower = FrontEndNode(leading, board), FrontEndNode(following, board)
    await leader.seal.load()
    await follower.seal.load()
    await open_all(leader, follower)
    return leader, follower


async def open_all(first: FrontEndNode, *others: FrontEndNode) -> None:
    made = await first.call(first.sys.Init, sys_pb2.InitRequest(secret_shares=1))
    for node in (first, *others):
        await node.call(node.sys.Unseal, sys_pb2.UnsealRequest(share=made.shares[0]))
        node.token, node.shares = made.root_token, tuple(made.shares)
