"""Who belongs to the cluster, as the log says it (Raft thesis, chapter 4: one server at a time).

A configuration is in effect from the moment it is appended, committed or not, and goes out of effect when its entry
is truncated. The history follows the log entry by entry; the journal drives it, so that neither can forget the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from holdfast.cluster.raft.autopilot import AutopilotConfig
from holdfast.cluster.raft.consensus import Member

MEMBERS_MAX = 64
"""Members of one cluster, learners included."""


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """The members in order of node id. `promoting` names the learners that become voters when they have caught up.
    `lineage`: which recoveries from a lost quorum this membership descends from (`lineage.py`). `autopilot`: what the
    leader may do by itself; None where nobody has said."""

    members: tuple[Member, ...] = ()
    promoting: tuple[str, ...] = ()
    lineage: bytes = b""
    autopilot: AutopilotConfig | None = None

    @property
    def voters(self) -> tuple[str, ...]:
        """The node ids that vote, in order."""
        return tuple(member.node_id for member in self.members if member.voter)

    @property
    def contacts(self) -> tuple[tuple[str, str], ...]:
        """Node ids and cluster addresses."""
        return tuple((member.node_id, member.cluster_address) for member in self.members)

    def member(self, node_id: str) -> Member | None:
        """The member of this id."""
        return next((member for member in self.members if member.node_id == node_id), None)

    def with_learner(self, member: Member) -> Configuration:
        """This and one more member, which does not vote yet. One that asks to be a voter is promoted later."""
        assert self.member(member.node_id) is None, "a member is added once"
        learner = msgspec.structs.replace(member, voter=False)
        promoting = (*self.promoting, member.node_id) if member.voter else self.promoting
        return msgspec.structs.replace(
            self, members=_ordered((*self.members, learner)), promoting=tuple(sorted(promoting))
        )

    def promoted(self, node_id: str) -> Configuration:
        """This with a learner as a voter."""
        members = [
            msgspec.structs.replace(member, voter=True) if member.node_id == node_id else member
            for member in self.members
        ]
        promoting = tuple(name for name in self.promoting if name != node_id)
        return msgspec.structs.replace(self, members=_ordered(members), promoting=promoting)

    def without(self, node_id: str) -> Configuration:
        """This without a member."""
        return msgspec.structs.replace(
            self,
            members=tuple(member for member in self.members if member.node_id != node_id),
            promoting=tuple(name for name in self.promoting if name != node_id),
        )


def initial(members: Iterable[Member]) -> Configuration:
    """The configuration that entry 1 of every log holds. The order in which members are given does not matter."""
    ordered = _ordered(members)
    if len({member.node_id for member in ordered}) != len(ordered):
        raise ValueError("a node id appears twice among the initial members")
    if len(ordered) > MEMBERS_MAX:
        raise ValueError(f"{len(ordered)} initial members; at most {MEMBERS_MAX} allowed")
    return Configuration(ordered)


def _ordered(members: Iterable[Member]) -> tuple[Member, ...]:
    return tuple(sorted(members, key=lambda member: member.node_id))


def encode(configuration: Configuration) -> bytes:
    """The payload of a MEMBERSHIP entry."""
    return msgspec.msgpack.encode(configuration)


def decode(payload: bytes) -> Configuration:
    """A MEMBERSHIP entry's payload. Raises msgspec.DecodeError or msgspec.ValidationError."""
    return msgspec.msgpack.decode(payload, type=Configuration)


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A configuration and the index of the entry that brought it; 0 before the first."""

    index: int = 0
    configuration: Configuration = Configuration()


class ConfigurationHistory:
    """The configurations of the log: the one in effect below its first entry, and every one since."""

    def __init__(self, base: Step) -> None:
        self._steps = [base]
        self._on_change: Callable[[], None] = lambda: None
        self._refresh()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back whenever another configuration comes into effect."""
        self._on_change = callback

    def _refresh(self) -> None:
        self.index, self.current = self._steps[-1].index, self._steps[-1].configuration
        self.voters = self.current.voters
        self.peers = tuple(member.node_id for member in self.current.members)

    @property
    def previous(self) -> Configuration:
        """What was in effect before the current configuration; the current one when there was none."""
        return self._steps[-2].configuration if len(self._steps) > 1 else self.current

    def at(self, index: int) -> Step:
        """The configuration that was in effect after the entry at `index`."""
        return next((step for step in reversed(self._steps) if step.index <= index), self._steps[0])

    def append(self, index: int, configuration: Configuration) -> None:
        """The log grew by a MEMBERSHIP entry."""
        assert index > self.index or len(self._steps) == 1, "configurations come in log order"
        self._steps.append(Step(index, configuration))
        self._refresh()
        self._on_change()

    def truncate(self, from_index: int) -> None:
        """The log lost its entries from `from_index` on."""
        kept = [step for step in self._steps[1:] if step.index < from_index]
        if len(kept) + 1 != len(self._steps):
            self._steps = [self._steps[0], *kept]
            self._refresh()
            self._on_change()

    def reset(self, base: Step) -> None:
        """The log begins anew at a snapshot, in whose configuration it stood."""
        self._steps = [base]
        self._refresh()
        self._on_change()

    def compact(self, to_index: int) -> None:
        """The log lost its entries up to `to_index`. What is in effect does not change."""
        self._steps = [self.at(to_index), *(step for step in self._steps if step.index > to_index)]
        self._refresh()
