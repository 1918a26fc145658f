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
    """Looks after each apply, and when the node is unsealed. A removal counts when it is committed. A node that does
    not learn of it is out of contact, which the quorum watch sees."""

    def __init__(self, seal: SealManager, consensus: Consensus) -> None:
        self._seal = seal
        self._consensus = consensus
        self._unsubscribe: list[Callable[[], None]] = []

    def start(self) -> None:
        """Look from now on. Call once."""
        assert not self._unsubscribe, "started twice"
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
        if self._seal.sealed:
            return
        status = self._consensus.status()
        members = [peer.member.node_id for peer in status.peers]
        if members and status.node_id not in members and status.membership_index <= status.commit_index:
            self._seal.seal(REASON)
            _log.warning("sealed_on_removal", member=status.node_id)
