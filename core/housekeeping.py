"""What the leader does by itself, a bounded piece at a time: it removes what disabled mounts kept, and sweeps up tokens
that have ended. Every piece is one transaction; whoever leads next goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog

from holdfast.cluster.raft.consensus import Conflicted, Consensus, Role
from holdfast.core import tokens
from holdfast.core.mounts import MOUNTS_PATH, MountTable
from holdfast.core.tokens.sweep import sweep_page
from holdfast.proto.errors import Fatal, HoldfastError
from holdfast.storage.barrier import Barrier
from holdfast.storage.transaction import Transaction

PIECE = 200
"""How many records one piece removes."""

IDLE_S = 2.0
BUSY_S = 0.05
"""How long the leader rests after a piece, with nothing more to do and with more, in seconds."""

SWEEP_S = 3600.0
"""How often the tokens are swept, in seconds."""

_TIMEOUT_S = 10.0

log = structlog.stdlib.get_logger(__name__)


class Housekeeper:
    """See the module. barrier: the open barrier; raises Sealed. clock: monotonic seconds; wall_clock: Unix time."""

    def __init__(
        self,
        consensus: Consensus,
        *,
        barrier: Callable[[], Barrier],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        self._consensus = consensus
        self._barrier = barrier
        self._clock = clock
        self._wall_clock = wall_clock
        self._on_fatal = on_fatal
        self._swept_after = ""
        self._sweep_due_s = clock() + SWEEP_S
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin. Call once."""
        self._task = asyncio.create_task(self._run(), name="housekeeper")

    async def stop(self) -> None:
        """End. May be called again, and without `start`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def step(self) -> bool:
        """Do a piece of what is due, on the leader. Returns whether there may be more at once. Raises what stopped it;
        nothing is lost then."""
        status = self._consensus.status()
        if status.role is not Role.LEADER or not status.ready:
            return False
        if await self._piece(_drop_a_page):
            return True
        if self._clock() < self._sweep_due_s:
            return False
        return await self._piece(self._sweep)

    async def _sweep(self, txn: Transaction) -> bool:
        now = datetime.fromtimestamp(self._wall_clock(), UTC)
        _, self._swept_after = await sweep_page(txn.view(tokens.TOKENS_PREFIX), now, after=self._swept_after)
        if not self._swept_after:
            self._sweep_due_s = self._clock() + SWEEP_S
        return bool(self._swept_after)

    async def _piece(self, work: Callable[[Transaction], Awaitable[bool]]) -> bool:
        txn = Transaction(self._consensus, self._barrier())
        more = await work(txn)
        if txn.writes:
            outcome = await self._consensus.propose(txn.batch(), timeout_s=_TIMEOUT_S)
            return more or isinstance(outcome, Conflicted)
        return more

    async def _run(self) -> None:
        more = False
        while True:
            await asyncio.sleep(BUSY_S if more else IDLE_S)
            try:
                more = await self.step()
            except Fatal as error:
                self._on_fatal(error)
                return
            except HoldfastError:
                more = False  # sealed, deposed, overloaded: whoever leads then goes on
            except Exception:
                log.exception("housekeeping_failed")
                more = False

    def __repr__(self) -> str:
        return "<Housekeeper>"


async def _drop_a_page(txn: Transaction) -> bool:
    """Remove a page of what disabled mounts kept. Returns whether any of it was left before this page."""
    record = await txn.get(MOUNTS_PATH)
    table = None if record is None else MountTable.decode(record)
    if table is None or not table.dropping:
        return False
    prefix, *others = table.dropping
    if not await _remove_below(txn, prefix, PIECE):
        txn.put(MOUNTS_PATH, MountTable(table.mounts, others).encode())
        log.info("mount_dropped", left=len(others))
    return True


async def _remove_below(txn: Transaction, path: str, count: int) -> int:
    """Delete up to `count` records below a path. Returns how many."""
    removed = 0
    for name in await txn.list(path, limit=count):
        if removed >= count:
            break
        below = f"{path}/{name.removesuffix('/')}"
        if name.endswith("/"):
            removed += await _remove_below(txn, below, count - removed)
        else:
            txn.delete(below)
            removed += 1
    return removed
