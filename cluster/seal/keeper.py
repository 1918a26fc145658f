"""What the leader does about keys without being asked: count, rotate in time, re-encrypt. The driver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from holdfast.cluster.raft.consensus import Consensus, Role
from holdfast.cluster.seal import key_policy, reencryption, rotation
from holdfast.cluster.seal.key_policy import KeyPolicy
from holdfast.cluster.seal.reencryption import Pass, Reencryption
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.usage import BLOCK, EncryptionCount
from holdfast.proto.errors import Fatal, HoldfastError
from holdfast.storage.keyring import TERMS_MAX
from holdfast.storage.transaction import Transaction

_log = structlog.stdlib.get_logger(__name__)

IDLE_S = 1.0
"""How long to wait when there is nothing to do."""

BUSY_S = 0.01
"""How long to wait at least between two steps of a re-encryption, so that it never takes a node for itself."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the keeper saw at its latest step. encryptions: reserved under the term, by all nodes."""

    term: int
    terms: int
    encryptions: int
    reencryption: Pass | None


class KeyKeeper:
    """One node's keeper; it acts while the node leads and is unsealed. wall_clock: Unix time in seconds. on_rotation:
    told of a rotation that was due: the new term, and why ("age" or "count")."""

    def __init__(
        self,
        consensus: Consensus,
        seal: SealManager,
        *,
        random_bytes: Callable[[int], bytes],
        wall_clock: Callable[[], float],
        on_fatal: Callable[[Fatal], None],
        on_rotation: Callable[[int, str], None] = lambda _term, _why: None,
        block: int = BLOCK,
    ) -> None:
        self._consensus = consensus
        self._seal = seal
        self._random_bytes = random_bytes
        self._wall_clock = wall_clock
        self._on_fatal = on_fatal
        self._on_rotation = on_rotation
        self._block = block
        self._count = EncryptionCount(consensus, seal, block=block)
        self._reencryption = Reencryption(consensus, seal, random_bytes=random_bytes, now_ms=self._now_ms)
        self._task: asyncio.Task[None] | None = None
        self.seen: Seen | None = None
        """For metrics; None while this node has nothing to keep."""

    def start(self) -> None:
        """Begin. Call once, when the seal was loaded."""
        self._task = asyncio.create_task(self._run(), name="key keeper")
        self._task.add_done_callback(_report)

    async def stop(self) -> None:
        """End. May be called again, and without `start`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def step(self) -> float:
        """Do what is due. Returns how long to wait until the next step, in seconds. Raises what stopped it; nothing
        is lost then."""
        status = self._consensus.status()
        if self._seal.sealed or status.role is not Role.LEADER or not status.ready:
            self.seen = None
            return IDLE_S
        policy = await key_policy.load(Transaction(self._consensus, self._seal.barrier))
        reserved = await self._count.step()
        why = self._due(policy, reserved)
        # A full keyring takes no new term until re-encryption has let old ones go, so that comes first then.
        if why and rotation.key_term(self._seal).terms < TERMS_MAX:
            return await self._rotate(why)
        rewritten = await self._reencryption.step(policy)
        await self._look(reserved)
        if why and rewritten is None:
            return await self._rotate(why)
        return IDLE_S if rewritten is None else max(BUSY_S, rewritten / policy.rate)

    async def _rotate(self, why: str) -> float:
        await rotation.rotate(self._consensus, self._seal, random_bytes=self._random_bytes, now_ms=self._now_ms())
        self._on_rotation(self._seal.barrier.keyring.active_term, why)
        return BUSY_S

    async def _look(self, reserved: int) -> None:
        term = rotation.key_term(self._seal)
        at = await reencryption.load(Transaction(self._consensus, self._seal.barrier))
        self.seen = Seen(term=term.term, terms=term.terms, encryptions=reserved, reencryption=at)

    def _due(self, policy: KeyPolicy, reserved: int) -> str:
        """Why a rotation is due; empty when none is."""
        shown = rotation.key_term(self._seal)
        if reserved + self._block > policy.max_encryptions:
            return "count"
        age_ms = self._now_ms() - shown.installed_ms
        return "age" if policy.interval_s and shown.installed_ms and age_ms > policy.interval_s * 1000 else ""

    async def _run(self) -> None:
        pause_s, told = IDLE_S, ""
        while True:
            await asyncio.sleep(pause_s)
            try:
                pause_s = await self.step()
                told = ""
            except Fatal as error:
                self._on_fatal(error)
                return
            except HoldfastError as error:
                pause_s = IDLE_S  # sealed, deposed, overloaded: whoever leads then goes on
                if error.reason != told:
                    _log.warning("key_keeper_hindered", reason=error.reason, message=error.message)
                told = error.reason

    def _now_ms(self) -> int:
        return int(self._wall_clock() * 1000)

    def __repr__(self) -> str:
        return "<KeyKeeper>"


def _report(task: asyncio.Task[None]) -> None:
    """Nothing waits for the keeper while the node runs, so its failure must not stay unseen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": "the key keeper ended", "exception": error, "task": task})
