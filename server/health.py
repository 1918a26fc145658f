"""The node's health: one word for its state, and the standard gRPC health service kept in step with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import msgspec
from grpc_health.v1 import health, health_pb2
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server as add_health_servicer

from holdfast.cluster.raft.consensus import Consensus, Role
from holdfast.server.limits import HEALTH_TIMEOUT_S

__all__ = ["HEALTH_SERVICE", "HEALTH_STATUS", "GrpcHealth", "HealthReport", "add_health_servicer", "state_of"]

HEALTH_SERVICE = health.SERVICE_NAME

HEALTH_STATUS = {"active": 200, "standby": 429, "uninitialized": 501, "sealed": 503, "no_leader": 503}
"""Vault's HTTP status for each state."""

REFRESH_INTERVAL_S = 0.5
"""How often the state is looked at for changes that nobody announces."""


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """state: a key of HEALTH_STATUS. leader_id: empty when none is known."""

    state: str
    node_id: str
    version: str
    leader_id: str


def state_of(consensus: Consensus, *, initialized: bool, sealed: bool) -> str:
    """One word for what a node can do: `active` serves and leads, `standby` serves through the leader."""
    if not initialized:
        return "uninitialized"
    if sealed:
        return "sealed"
    status = consensus.status()
    if not status.leader_id:
        return "no_leader"
    return "active" if status.role is Role.LEADER else "standby"


class GrpcHealth:
    """Keeps grpc.health.v1 in step with the node: every service is SERVING while the node is active or standby.

    `refresh` is called by whoever knows of a change; a slow loop sees what nobody announces.
    """

    def __init__(self, *, services: Sequence[str], state: Callable[[], str]) -> None:
        self.servicer = health.aio.HealthServicer()
        self._services = ("", *services)
        self._state = state
        self._shown: bool | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Show the current state, then follow it."""
        await self._show()
        self._task = asyncio.create_task(self._follow(), name="health")

    async def stop(self) -> None:
        """NOT_SERVING from here on, so that load balancers look elsewhere."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        # Bounded: the health servicer waits for its watchers, and whoever watches without reading stops no node.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                await self.servicer.enter_graceful_shutdown()

    def refresh(self) -> None:
        """Look at the state now. Does not block."""
        self._changed.set()

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(REFRESH_INTERVAL_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            await self._show()

    async def _show(self) -> None:
        serving = self._state() in ("active", "standby")
        if serving == self._shown:
            return
        told = await asyncio.gather(*(self._tell(service, serving=serving) for service in self._services))
        self._shown = serving if all(told) else None  # None: the next look tries again

    async def _tell(self, service: str, *, serving: bool) -> bool:
        response = health_pb2.HealthCheckResponse
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                await self.servicer.set(service, response.SERVING if serving else response.NOT_SERVING)
        except TimeoutError:
            return False
        return True
