"""The states of a node's seal and what moves it between them: the whole table, and nothing else.

    uninitialised --(keys are made, here or elsewhere)--> sealed --(threshold reached)--> unsealed
                                                            ^--(sealed for a reason)---------'

There is no way back to uninitialised: a cluster that has keys never loses the record of it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from holdfast.cluster.raft.consensus import Role


class SealState(enum.Enum):
    """A node's state. Consensus runs in all of them; requests are served only in UNSEALED."""

    UNINITIALIZED = "uninitialized"
    SEALED = "sealed"
    UNSEALED = "unsealed"


class SealEvent(enum.Enum):
    """What may happen to a node's seal."""

    KEYS_MADE = "keys made"
    OPENED = "opened"
    CLOSED = "closed"


TRANSITIONS: Mapping[tuple[SealState, SealEvent], SealState] = {
    (SealState.UNINITIALIZED, SealEvent.KEYS_MADE): SealState.SEALED,
    (SealState.SEALED, SealEvent.OPENED): SealState.UNSEALED,
    (SealState.UNSEALED, SealEvent.CLOSED): SealState.SEALED,
}
"""Every transition there is. Anything else is a mistake in this program."""


def advance(state: SealState, event: SealEvent) -> SealState:
    """The state after an event. Raises AssertionError for an event that cannot happen in `state`."""
    following = TRANSITIONS.get((state, event))
    assert following is not None, f"{event.value!r} cannot happen to a node that is {state.value}"
    return following


class SealStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What SealStatusResponse tells, but for the version of the software.

    threshold, shares: 0 before initialisation. progress: distinct shares given in the ceremony `nonce` names.
    last_seal_time_s: Unix time in seconds of the last sealing in this process's life; None when there was none.
    leader_id: empty when no leader is known. quorum_contact_age_s: as in ConsensusStatus.
    """

    type: str
    initialized: bool
    sealed: bool
    threshold: int
    shares: int
    progress: int
    nonce: str
    cluster_name: str
    cluster_id: str
    node_id: str
    last_seal_reason: str
    last_seal_time_s: float | None
    role: Role
    leader_id: str
    quorum_contact_age_s: float
