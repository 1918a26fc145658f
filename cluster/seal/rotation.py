"""Replacing the key that encrypts the data: a new key term, and the end of old ones.

Each is one batch, that of the keyring's record, so that no crash can fall between two steps. A node may read a record
of the new term before it has taken up the keyring, because one apply brought both; it then looks at the keyring again
(`Barrier.refresh`), which the same state holds. What was encrypted under the old term and is not applied yet conflicts
with the fence (`Barrier.fence`) and is made again. So every record with a higher revision than the keyring's is of its
active term.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from holdfast.cluster.raft.consensus import Conflicted, Consensus
from holdfast.cluster.seal.records import KEYRING_KEY
from holdfast.cluster.seal.seal import SealManager
from holdfast.proto.errors import Conflict
from holdfast.storage.batch import Batch, Precondition, Put
from holdfast.storage.keyring import Keyring

TIMEOUT_S = 10.0
"""How long one proposal or read barrier may take."""

_ATTEMPTS_MAX = 5


class KeyTerm(msgspec.Struct, frozen=True, kw_only=True):
    """The key term that is active. installed_ms: Unix time in milliseconds; 0 when it is not known. terms: how many the
    keyring holds, this one included. oldest: the lowest of them."""

    term: int
    installed_ms: int
    terms: int
    oldest: int


def key_term(seal: SealManager) -> KeyTerm:
    """The active term, as this node has it. Raises Sealed or Uninitialized."""
    keyring = seal.barrier.keyring
    terms = keyring.terms
    active = keyring.active_term
    return KeyTerm(term=active, installed_ms=keyring.installed_ms(active), terms=len(terms), oldest=terms[0])


async def rotate(
    consensus: Consensus, seal: SealManager, *, random_bytes: Callable[[int], bytes], now_ms: int
) -> KeyTerm:
    """Make a new key term and have it encrypt from now on. On the leader.

    Raises Sealed; NotLeader, NoLeader or Overloaded (nothing was changed); FailedPrecondition at the most terms
    allowed; OutcomeUnknown (the status tells; one rotation more does no harm).
    """
    await _replace(consensus, seal, lambda keyring: keyring.rotated(random_bytes, now_ms=now_ms), random_bytes)
    return key_term(seal)


async def drop_terms(
    consensus: Consensus,
    seal: SealManager,
    terms: Collection[int],
    *,
    random_bytes: Callable[[int], bytes],
    guard: Precondition,
) -> None:
    """Drop key terms under which nothing is encrypted. guard: the record that proves it. Raises as `rotate`."""
    await _replace(consensus, seal, lambda keyring: keyring.without(terms), random_bytes, (guard,))


async def _replace(
    consensus: Consensus,
    seal: SealManager,
    change: Callable[[Keyring], Keyring],
    random_bytes: Callable[[int], bytes],
    guards: tuple[Precondition, ...] = (),
) -> None:
    """Put a changed keyring in the place of the stored one."""
    for _ in range(_ATTEMPTS_MAX):
        await consensus.read_barrier(timeout_s=TIMEOUT_S)
        await seal.refresh()
        # No await from here to the proposal: fence, keyring and root key belong together.
        barrier = seal.barrier
        assert barrier.fence is not None, "the keyring of an open node is stored"
        changed = change(barrier.keyring)
        wrapped = seal.with_root_key(lambda root_key, made=changed: made.wrap(root_key, random_bytes))  # type: ignore[misc]
        changed.close()
        batch = Batch(puts=(Put(KEYRING_KEY, wrapped),), preconditions=(barrier.fence, *guards))
        outcome = await consensus.propose(batch, timeout_s=TIMEOUT_S)
        await seal.refresh()
        if not isinstance(outcome, Conflicted):
            return
        if outcome.key != KEYRING_KEY:
            break
    raise Conflict("the keyring was changed by someone else at the same time: look at the status and try again")
