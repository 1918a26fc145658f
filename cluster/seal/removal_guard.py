"""Seals a node that was removed from the cluster: it is not to hold the keys of a cluster that it is no part of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from holdfast.cluster.raft.consensus import Consensus
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.state import SealStatus

REASON = "this node was removed from the cluster"

_log = structlog.stdlib.get_logger(__name__)


class RemovalGuard:
    """Looks after each apply, and when the node is unsealed. A removal counts when it is committed, and when the node
    was a member before in this process's life: the log of a node that is joining does not name it at first. A node that
    does not learn of its removal is out of contact, which the quorum watch sees."""

    def __init__(self, seal: SealManager, consensus: Consensus) -> None:
        self._seal = seal
        self._consensus = consensus
        self._unsubscribe: list[Callable[[], None]] = []
        self._was_member = False

    def start(self) -> None:
        """Look from now on. Call once."""
        assert not self._unsubscribe, "started twice"
        self._check()
        self._unsubscribe = [self._consensus.subscribe(self._applied), self._seal.on_change(self._changed)]

    def stop(self) -> None:
        """Look no more. May be called again, and without `start`."""
        unsubscribe, self._unsubscribe = self._unsubscribe, []
        for each in unsubscribe:
            each()

    def _applied(self, _index: int, _changed: Sequence[bytes]) -> None:
        self._check()

    def _changed(self, _status: SealStatus) -> None:
        self._check()

    def _check(self) -> None:
        status = self._consensus.status()
        if any(peer.member.node_id == status.node_id for peer in status.peers):
            self._was_member = True
        elif self._was_member and status.membership_index <= status.commit_index and not self._seal.sealed:
            self._seal.seal(REASON)
            _log.warning("sealed_on_removal", member=status.node_id)
