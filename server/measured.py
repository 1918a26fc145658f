"""Consensus as the node's rooms see it, with a stopwatch on what is worth measuring."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.cluster.raft.consensus import (
    Consensus,
    ConsensusStatus,
    Listener,
    Member,
    Outcome,
    RoleListener,
)
from holdfast.proto.errors import HoldfastError
from holdfast.server.metrics import Metrics
from holdfast.storage.batch import Batch, Record


class MeasuredConsensus(Consensus):
    """Passes everything on to `inner`; counts proposals by outcome and times them and the read barriers."""

    def __init__(self, inner: Consensus, metrics: Metrics, monotonic: Callable[[], float]) -> None:
        self._inner = inner
        self._metrics = metrics
        self._monotonic = monotonic

    async def propose(self, batch: Batch, *, timeout_s: float) -> Outcome:
        started = self._monotonic()
        label = "ERROR"
        try:
            outcome = await self._inner.propose(batch, timeout_s=timeout_s)
            label = type(outcome).__name__.upper()
            return outcome
        except HoldfastError as error:
            label = error.reason
            raise
        finally:
            self._metrics.proposal_done(label, self._monotonic() - started)

    async def read_barrier(self, *, timeout_s: float) -> int:
        started = self._monotonic()
        index = await self._inner.read_barrier(timeout_s=timeout_s)
        self._metrics.read_barrier_done(self._monotonic() - started)
        return index

    async def get(self, key: bytes) -> Record | None:
        return await self._inner.get(key)

    async def children(self, prefix: bytes, after: bytes, limit: int) -> list[tuple[bytes, bool, bool]]:
        return await self._inner.children(prefix, after, limit)

    async def scan(self, after: bytes, limit: int) -> list[tuple[bytes, Record]]:
        return await self._inner.scan(after, limit)

    async def duplicate_of(self, request_key: bytes) -> bytes | None:
        return await self._inner.duplicate_of(request_key)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        return self._inner.subscribe(listener)

    def on_role_change(self, listener: RoleListener) -> Callable[[], None]:
        return self._inner.on_role_change(listener)

    def status(self) -> ConsensusStatus:
        return self._inner.status()

    def set_eligible(self, *, eligible: bool) -> None:
        self._inner.set_eligible(eligible=eligible)

    async def transfer_leadership(self, target: str = "", *, timeout_s: float) -> str:
        return await self._inner.transfer_leadership(target, timeout_s=timeout_s)

    async def add_member(self, member: Member, *, timeout_s: float) -> int:
        return await self._inner.add_member(member, timeout_s=timeout_s)

    async def remove_member(self, node_id: str, *, timeout_s: float) -> int:
        return await self._inner.remove_member(node_id, timeout_s=timeout_s)
