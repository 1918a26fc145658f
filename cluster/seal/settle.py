"""Committing a batch until it is certain whether it took effect.

Who hands out keys that exist nowhere else must know. `commit` does not give up until the outcome is certain, as long as
its time allows:

- The batch carries a request record, and proposing it again gives the first attempt's outcome.
- The caller names a proof that is found in the state once the batch has taken effect.
- When leadership is lost, a read barrier of a later term settles it. A leader of a later term answers one only after it
  has committed an entry of its own term, and then an older entry is either in the state by now or never will be (Raft
  thesis, sections 3.6.2 and 6.4).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from holdfast.cluster.raft.consensus import Conflicted, Consensus, ConsensusStatus, Role
from holdfast.proto.errors import HoldfastError, NoLeader, NotLeader, OutcomeUnknown, Overloaded, Unavailable
from holdfast.storage.batch import Batch

ATTEMPT_TIMEOUT_S = 10.0
"""How long one proposal or read barrier may take."""

RECHECK_S = 0.25
"""How long to wait for news before asking again, while the outcome is unknown."""

UNKNOWN = "it is not known whether the change took effect"


async def commit(
    consensus: Consensus, batch: Batch, *, in_effect: Callable[[], Awaitable[bool]], news_of: bytes, wait_s: float
) -> bool:
    """Commit a batch that has a request record. Returns whether it took effect; False: a precondition did not hold.

    in_effect: whether the local state proves that this batch took effect; it may raise, to end the attempt when the
    state proves that it never will. news_of: a key that the batch changes. wait_s: how long to go on asking.

    Raises NotLeader, NoLeader, Overloaded or InvalidArgument when it is certain that nothing was changed;
    OutcomeUnknown when it is not.
    """
    assert batch.request is not None, "a batch that may be proposed twice says so"
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    news = _News(consensus, news_of)
    appended = False  # whether the batch may be in some log
    try:
        while (remaining_s := deadline - loop.time()) > 0:
            news.clear()
            news.note(consensus.status())  # a batch is appended in the term in which it is proposed, or not at all
            try:
                outcome = await consensus.propose(batch, timeout_s=min(ATTEMPT_TIMEOUT_S, remaining_s))
                # A Duplicate is this batch: the request key is its own random bytes.
                return not isinstance(outcome, Conflicted) or await in_effect()
            except OutcomeUnknown:
                appended = True
                news.note(consensus.status())
            except (NotLeader, Overloaded):
                if not appended:
                    raise
            if await in_effect():
                return True
            if await _superseded(consensus, news.last_term_led, min(ATTEMPT_TIMEOUT_S, remaining_s)):
                if await in_effect():
                    return True
                appended = False  # nor will it ever be
                raise not_leading(consensus.status())
            with suppress(TimeoutError):
                async with asyncio.timeout(min(RECHECK_S, remaining_s)):
                    await news.arrived()
    except Unavailable:  # this node is stopping, and can learn no more
        if not appended:
            raise
    finally:
        news.close()
    raise OutcomeUnknown(f"{UNKNOWN}: look at the status once a leader is known")


def not_leading(status: ConsensusStatus) -> HoldfastError:
    """The error of a node that was asked to do what only a leader can do. Nothing was changed."""
    if status.leader_id and status.leader_id != status.node_id:
        return NotLeader("another node leads the cluster", details={"leader_id": status.leader_id})
    return NoLeader("no leader is known: check that a majority of the nodes runs and can reach each other")


class _News:
    """Watches for what can settle an unknown outcome, and for the terms in which this node leads."""

    def __init__(self, consensus: Consensus, key: bytes) -> None:
        self.last_term_led = consensus.status().term
        self._key = key
        self._event = asyncio.Event()
        self._unsubscribe = (consensus.on_role_change(self._role_changed), consensus.subscribe(self._applied))

    def note(self, status: ConsensusStatus) -> None:
        if status.role is Role.LEADER:
            self.last_term_led = max(self.last_term_led, status.term)

    def clear(self) -> None:
        self._event.clear()

    async def arrived(self) -> None:
        await self._event.wait()

    def close(self) -> None:
        for unsubscribe in self._unsubscribe:
            unsubscribe()

    def _role_changed(self, status: ConsensusStatus) -> None:
        self.note(status)
        self._event.set()

    def _applied(self, _index: int, keys: Sequence[bytes]) -> None:
        if self._key in keys:
            self._event.set()


async def _superseded(consensus: Consensus, last_term_led: int, timeout_s: float) -> bool:
    """Whether the local state now holds every entry that was ever appended in a term up to `last_term_led` and that
    any later leader kept. This node appends only while it leads."""
    if consensus.status().term <= last_term_led:
        return False
    try:
        await consensus.read_barrier(timeout_s=timeout_s)
    except (NoLeader, Overloaded):
        return False
    return True
