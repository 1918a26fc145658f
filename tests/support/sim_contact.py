"""What a node can know of its quorum at best, computed from outside: the yardstick for what it claims.

Every message carries, invisibly, when each node was last known to be running by whoever sent it. A node's contact with
a quorum cannot be fresher than what has reached it that way. Time on the way is forgiven, for a receiver cannot measure
it; time in a stopped process's socket is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from holdfast.cluster.raft.quorum import reached_by_majority


class Contact:
    """When each node was running, as far as word of it has come to one process. Times are the world's, in seconds."""

    def __init__(self, node_id: str, pool: Iterable[str], started_s: float) -> None:
        self._node_id = node_id
        self._known = dict.fromkeys(pool, started_s)

    def sent(self, now_s: float) -> Mapping[str, float]:
        """What a message sent now tells."""
        self._known[self._node_id] = now_s
        return dict(self._known)

    def heard(self, told: Mapping[str, float], late_s: float) -> None:
        """A message is read that was on its way for `late_s`."""
        known = self._known
        for node_id, time_s in told.items():
            if time_s + late_s > known[node_id]:
                known[node_id] = time_s + late_s

    def quorum_s(self, now_s: float, voters: Iterable[str]) -> float:
        """When a majority of the voters was running, at the latest that this process can know."""
        return reached_by_majority([now_s if voter == self._node_id else self._known[voter] for voter in voters])
