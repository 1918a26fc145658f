"""What tests of the seal share: repeatable randomness, a clock, and a manager over a consensus in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from support.local_consensus import LocalConsensus

from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.shares import Shares
from holdfast.storage.transaction import Transaction

BOOTSTRAP_PATH = "shared/first"
BOOTSTRAP_VALUE = b"put by the bootstrap"


def stream(seed: object) -> Callable[[int], bytes]:
    """An endless stream of repeatable bytes; every call takes the next ones."""
    drawn = 0

    def take(count: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return hashlib.shake_256(f"{seed}/{drawn}".encode()).digest(count)

    return take


class Clock:
    """A wall clock that stands still until it is told otherwise."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


async def bootstrap(transaction: Transaction) -> str:
    """A small bootstrap: one record, one answer."""
    transaction.put(BOOTSTRAP_PATH, BOOTSTRAP_VALUE)
    return "bootstrapped"


async def manager_of(consensus: LocalConsensus, *, seed: object = "manager", **options: object) -> SealManager:
    """A loaded manager of a node. Close it when done."""
    manager = SealManager(
        consensus,
        random_bytes=stream(seed),
        wall_clock=Clock(),
        cluster_name="demo",
        **options,  # type: ignore[arg-type]
    )
    await manager.load()
    return manager


async def initialized(manager: SealManager, *, shares: int = 5, threshold: int = 3) -> Shares:
    """Initialise and return the shares."""
    made, answer = await manager.initialize(shares=shares, threshold=threshold, bootstrap=bootstrap)
    assert answer == "bootstrapped"
    return made


async def unsealed(manager: SealManager, shares: Shares) -> None:
    """Give as many shares as it takes."""
    for text in shares.texts[: shares.threshold]:
        await manager.unseal(text)
    assert not manager.sealed
