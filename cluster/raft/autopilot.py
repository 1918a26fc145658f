"""Autopilot: what the leader makes of its members' health (the names and meanings are Vault's).

A pure machine, one for each term of leading: it is told the time and what is known of each member, and answers how the
cluster is, which learner has been healthy long enough to vote, and which member has been dead long enough to go.
Times are a monotonic clock's, and a new leader counts from its own beginning, so that no clock and no predecessor can
make a member dead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from holdfast.proto.errors import InvalidArgument
from holdfast.storage.decoding import MALFORMED

DEAD_THRESHOLD_MIN_S = 60.0
MIN_QUORUM_MIN = 3

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=10 * 365 * 86_400)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class AutopilotConfig(msgspec.Struct, frozen=True, array_like=True):
    """What autopilot may do. Durations in seconds.

    cleanup_dead_servers: whether dead members are removed; `dead_server_last_contact_threshold_s`: after how long
        without contact; `min_quorum`: how many voters must be left at least.
    server_stabilization_time_s: how long a learner must have been healthy before it votes.
    last_contact_threshold_s, max_trailing_logs: a member that was not heard for longer, or whose log is further behind,
        is not healthy.
    """

    cleanup_dead_servers: bool = False
    dead_server_last_contact_threshold_s: _Seconds = 86_400.0
    min_quorum: _Count = 0
    server_stabilization_time_s: _Seconds = 10.0
    last_contact_threshold_s: _Seconds = 10.0
    max_trailing_logs: _Count = 1000


def checked(config: AutopilotConfig) -> AutopilotConfig:
    """The configuration, if it can be. Raises InvalidArgument."""
    try:
        msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=AutopilotConfig)
    except MALFORMED:
        raise InvalidArgument("a value of the configuration is out of range", field="configuration") from None
    if config.dead_server_last_contact_threshold_s < DEAD_THRESHOLD_MIN_S:
        raise InvalidArgument(
            "dead_server_last_contact_threshold is at least 1m", field="dead_server_last_contact_threshold"
        )
    if config.cleanup_dead_servers and config.min_quorum < MIN_QUORUM_MIN:
        raise InvalidArgument(
            f"min_quorum must be given, and at least {MIN_QUORUM_MIN}, when cleanup_dead_servers is on",
            field="min_quorum",
        )
    for name in ("last_contact_threshold_s", "max_trailing_logs"):
        if not getattr(config, name) > 0:
            field = name.removesuffix("_s")
            raise InvalidArgument(f"{field} must be above 0", field=field)
    return config


@dataclass(frozen=True)
class ServerView:
    """What the leader knows of a member now.

    contact_s: when it was last heard, by the leader's clock. last_index: known to be durable there.
    lost: it misses entries that it had acknowledged, or needs a snapshot.
    """

    voter: bool
    connected: bool
    contact_s: float
    last_index: int
    lost: bool = False


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """A member as autopilot sees it. stable_s: for how long it has been as healthy as it is, in this leader's term."""

    node_id: str
    address: str
    leader: bool
    voter: bool
    healthy: bool
    stable_s: float
    last_contact_s: float
    last_index: int
    last_term: int


class AutopilotState(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster as autopilot sees it. failure_tolerance: how many healthy voters could fail, and a quorum be left."""

    healthy: bool
    failure_tolerance: int
    leader: str
    voters: tuple[str, ...]
    servers: tuple[ServerState, ...]


def majority(voters: int) -> int:
    """How many of the voters are a quorum."""
    return voters // 2 + 1


class Autopilot:
    """The machine of the leader `self_id`, from `began_s` on."""

    def __init__(self, self_id: str, began_s: float) -> None:
        self._self_id = self_id
        self._began_s = began_s
        self._health: dict[str, tuple[bool, float]] = {}

    def observe(self, now_s: float, config: AutopilotConfig, views: Mapping[str, ServerView], last_index: int) -> None:
        """Look at the members. last_index: the leader's."""
        for gone in self._health.keys() - views.keys():
            del self._health[gone]
        for node_id, view in views.items():
            healthy = node_id == self._self_id or (
                not view.lost
                and view.connected
                and now_s - view.contact_s <= config.last_contact_threshold_s
                and last_index - view.last_index <= config.max_trailing_logs
            )
            if self._health.get(node_id, (not healthy, 0.0))[0] != healthy:
                self._health[node_id] = (healthy, now_s)

    def healthy(self, node_id: str) -> bool:
        """Whether a member was healthy when it was looked at last."""
        return self._health.get(node_id, (False, 0.0))[0]

    def stable_s(self, node_id: str, now_s: float) -> float:
        """For how long a member has been as healthy as it is."""
        return max(0.0, now_s - self._health[node_id][1]) if node_id in self._health else 0.0

    def may_vote(self, node_id: str, now_s: float, config: AutopilotConfig) -> bool:
        """Whether a learner has been healthy for long enough."""
        needed_s = config.server_stabilization_time_s
        return needed_s == 0 or (self.healthy(node_id) and self.stable_s(node_id, now_s) >= needed_s)

    def failure_tolerance(self, voters: Sequence[str]) -> int:
        """How many more voters may fail."""
        return max(0, sum(map(self.healthy, voters)) - majority(len(voters)))

    def to_remove(self, now_s: float, config: AutopilotConfig, views: Mapping[str, ServerView]) -> str | None:
        """The member to remove now, the longest dead first; None for nobody. Asked only by a leader that has just been
        in contact with a majority. What is left keeps at least `min_quorum` voters, and among them a quorum that is
        healthy."""
        if not config.cleanup_dead_servers:
            return None
        dead = [
            (max(view.contact_s, self._began_s), node_id)
            for node_id, view in views.items()
            if node_id != self._self_id and not self.healthy(node_id)
        ]
        for heard_s, node_id in sorted(dead):
            if now_s - heard_s >= config.dead_server_last_contact_threshold_s and self._can_do_without(
                node_id, config, views
            ):
                return node_id
        return None

    def _can_do_without(self, node_id: str, config: AutopilotConfig, views: Mapping[str, ServerView]) -> bool:
        voters = [name for name, view in views.items() if view.voter]
        left = [name for name in voters if name != node_id]
        needed = max(majority(len(voters)), majority(len(left)))
        enough = sum(map(self.healthy, left)) >= needed
        return enough and (not views[node_id].voter or len(left) >= config.min_quorum)
