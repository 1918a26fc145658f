"""A Core over a LocalConsensus with the real barrier, for tests of the request path and of engines."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from support.local_consensus import LocalConsensus

from holdfast.core.audit import AuditBroker, AuditSource
from holdfast.core.call import Limits
from holdfast.core.core import Core
from holdfast.core.plugin import Engine
from holdfast.core.policy import Policy
from holdfast.core.request import Operation, Request, RequestId, Response
from holdfast.core.router import SystemMount
from holdfast.engines.kv import KvEngine
from holdfast.proto.errors import Sealed, Unavailable
from holdfast.storage.barrier import Barrier
from holdfast.storage.keyring import Keyring
from holdfast.storage.transaction import Transaction

CLIENT = bytes(range(16))


class Unreachable:
    """A Forwarder that delivers nothing and keeps what it was given."""

    def __init__(self) -> None:
        self.forwarded: list[tuple[str, Request]] = []

    async def forward(self, leader_id: str, request: Request) -> Response:
        self.forwarded.append((leader_id, request))
        raise Unavailable("not delivered")


class CoreNode:
    """One node's core and everything below it. `time` (Unix seconds) and `sealed` are for tests to set."""

    def __init__(
        self,
        consensus: LocalConsensus | None = None,
        *,
        keyring: Keyring | None = None,
        forwarder: Any = None,
        engines: Sequence[Engine] = (),
        audit: AuditSource | None = None,
        system: Sequence[SystemMount] = (),
        policy: Policy | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.consensus = consensus or LocalConsensus()
        self.barrier = Barrier(keyring or Keyring.generate(secrets.token_bytes), secrets.token_bytes)
        self.time = 1_800_000_000.0
        self.sealed = False
        self.token = ""
        self.forwarder = forwarder or Unreachable()
        served: Mapping[str, Engine] = {engine.type: engine for engine in (KvEngine(), *engines)}
        self.core = Core(
            node_id=self.consensus.node_id,
            consensus=self.consensus,
            barrier=self.open_barrier,
            engines=served,
            forwarder=self.forwarder,
            audit=audit or AuditBroker(()),
            system=system,
            wall_clock=lambda: self.time,
            random_bytes=secrets.token_bytes,
            policy=policy,
            limits=limits,
        )

    def open_barrier(self) -> Barrier:
        if self.sealed:
            raise Sealed("this node is sealed")
        return self.barrier

    async def bootstrap(self) -> CoreNode:
        """Initialise the cluster; `token` is then the root token."""
        txn = Transaction(self.consensus, self.barrier)
        self.token = await self.core.bootstrap(txn)
        await self.consensus.propose(txn.batch(), timeout_s=1)
        self.consensus.proposed.clear()
        return self

    def request(self, operation: str, path: str, data: dict[str, Any] | None = None, **more: Any) -> Request:
        """A request with the root token, unless another is given."""
        more.setdefault("token", self.token)
        return Request(operation=Operation(operation), path=path, data=data or {}, **more)

    async def ask(self, operation: str, path: str, data: dict[str, Any] | None = None, **more: Any) -> Any:
        """The response's data."""
        return (await self.core.handle(self.request(operation, path, data, **more))).data


def request_id(sequence: int, *, age_ms: int = 0, client: bytes = CLIENT) -> RequestId:
    return RequestId(client, sequence, age_ms)
