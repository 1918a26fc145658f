"""Autopilot at work: tells the machine (`autopilot.py`) what the leader knows, and does what it answers."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.cluster.raft.autopilot import AutopilotConfig, AutopilotState, ServerState, ServerView
from holdfast.cluster.raft.changes import MemberChanges
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.leadership import Leadership
from holdfast.cluster.raft.timing import Timing

PERIOD_S = 0.25
"""How often the members' health is looked at."""


class Piloting:
    """For the node `self_id`, while it leads. clock: monotonic seconds."""

    def __init__(
        self, self_id: str, journal: Journal, changes: MemberChanges, timing: Timing, clock: Callable[[], float]
    ) -> None:
        self._self_id = self_id
        self._journal = journal
        self._changes = changes
        self._timing = timing
        self._clock = clock
        self._due_s = float("-inf")

    @property
    def config(self) -> AutopilotConfig:
        """The configuration in effect."""
        default = AutopilotConfig(server_stabilization_time_s=self._timing.server_stabilization_s)
        return self._journal.configurations.current.autopilot or default

    def step(self, leadership: Leadership, now_s: float) -> None:
        """Promote a learner that may vote; now and then look at the members' health and remove one that is dead."""
        config, pilot = self.config, leadership.autopilot
        if now_s >= self._due_s:
            self._due_s = now_s + PERIOD_S
            views = self._views(leadership, now_s)
            pilot.observe(now_s, config, views, self._journal.last_index)
            if self._may_remove(leadership, now_s):
                dead = pilot.to_remove(now_s, config, views)
                if dead is not None:
                    self._changes.remove_dead(leadership, dead, silent_s=now_s - views[dead].contact_s)
        self._changes.promote_learners(
            leadership, now_s, may_vote=lambda node_id: pilot.may_vote(node_id, now_s, config)
        )

    def _may_remove(self, leadership: Leadership, now_s: float) -> bool:
        """Whether this node is a leader beyond doubt: it votes, and has just been in contact with a majority."""
        in_contact = now_s - leadership.quorum_contact_s(now_s) <= self._timing.election_min_s
        return in_contact and not leadership.transferring and self._self_id in self._journal.configurations.voters

    def _views(self, leadership: Leadership, now_s: float) -> dict[str, ServerView]:
        views: dict[str, ServerView] = {}
        for member in self._journal.configurations.current.members:
            progress = leadership.progress.get(member.node_id)
            if progress is not None:
                views[member.node_id] = ServerView(
                    member.voter, progress.connected, progress.contact_s, progress.match,
                    progress.lost_entries or progress.needs_snapshot,
                )  # fmt: skip
            elif member.node_id == self._self_id:
                views[member.node_id] = ServerView(member.voter, True, now_s, self._journal.synced)
        return views

    def state(self, leadership: Leadership) -> AutopilotState:
        """The cluster as it is now."""
        now_s, pilot = self._clock(), leadership.autopilot
        views = self._views(leadership, now_s)
        pilot.observe(now_s, self.config, views, self._journal.last_index)
        members = self._journal.configurations.current.members
        servers = [
            ServerState(
                node_id=member.node_id,
                address=member.cluster_address,
                leader=member.node_id == self._self_id,
                voter=member.voter,
                healthy=pilot.healthy(member.node_id),
                stable_s=pilot.stable_s(member.node_id, now_s),
                last_contact_s=max(0.0, now_s - views[member.node_id].contact_s),
                last_index=views[member.node_id].last_index,
                last_term=self._term_at(views[member.node_id].last_index),
            )
            for member in members
            if member.node_id in views
        ]
        voters = self._journal.configurations.voters
        return AutopilotState(
            healthy=all(server.healthy for server in servers),
            failure_tolerance=pilot.failure_tolerance(voters),
            leader=self._self_id,
            voters=voters,
            servers=tuple(servers),
        )

    def _term_at(self, index: int) -> int:
        entry = self._journal.at(index)
        return 0 if entry is None else entry.term
