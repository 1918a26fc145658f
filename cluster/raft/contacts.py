"""Whom a node dials and listens to: the members that its log names, and those that it was only told of.

A node that joins, or that missed a change, has a log that does not name everybody. A leader's probes and rejected
pre-votes tell of members (*told*); a candidate that the log does not name is dialled so that it can be answered
(*callers*). Both are forgotten as soon as the log, or a leader, makes them needless.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from holdfast.cluster.raft.membership import MEMBERS_MAX, ConfigurationHistory


class Contacts:
    """The contacts of the node `self_id`.

    commit: the commit index. on_change: `refresh` is due, for something was learnt or forgotten.
    """

    def __init__(
        self,
        self_id: str,
        configurations: ConfigurationHistory,
        *,
        commit: Callable[[], int],
        on_change: Callable[[], None],
    ) -> None:
        self._self_id = self_id
        self._configurations = configurations
        self._commit = commit
        self._on_change = on_change
        self._told: dict[str, str] = {}
        self._callers: dict[str, str] = {}
        self._familiar: set[str] = set()
        self.addresses: Mapping[str, str] = {}
        """Whom to dial, and where."""
        self.guests: Collection[str] = ()
        """Those of them who are no members as far as the own log knows."""

    def members(self) -> set[str]:
        """The members in effect; while a change is not committed, also those it removes, so that they learn of it."""
        ids = set(self._configurations.peers)
        if self._configurations.index > self._commit():
            ids.update(member.node_id for member in self._configurations.previous.members)
        return ids

    def is_familiar(self, node_id: str) -> bool:
        """Whether the log or a leader names this node."""
        return node_id in self._familiar

    def refresh(self) -> None:
        """Work out anew whom to dial."""
        configurations = self._configurations
        named = {m.node_id: m.cluster_address for m in configurations.previous.members}
        if configurations.index <= self._commit():
            named.clear()
        named.update((m.node_id, m.cluster_address) for m in configurations.current.members)
        if self._told.items() <= named.items():
            self._told = {}
        known = named | self._told  # what was told comes from logs that are newer than this one
        self._familiar = set(known)
        addresses = self._callers | known
        addresses.pop(self._self_id, None)
        self.addresses = addresses
        self.guests = addresses.keys() - named.keys()

    def meet(self, contacts: dict[str, str]) -> None:
        """Dial the members that this node's own log does not name yet, or names at another address (it is joining, or
        far behind)."""
        known = dict(self._configurations.current.contacts) | self._told
        if not contacts.items() <= known.items():
            together = self._told | contacts
            self._told = together if len(together) <= MEMBERS_MAX else contacts
            self._on_change()

    def forget_told(self) -> None:
        """This node's own log names the leader and is as new, so it says who else there is."""
        if self._told:
            self._told = {}
            self._on_change()

    def call_back(self, node_id: str, address: str) -> None:
        """A candidate asks that this node's log does not name: dial it, so that it can be answered. Forgotten when a
        leader is heard."""
        room = node_id in self._callers or len(self._callers) < MEMBERS_MAX
        if node_id not in self._familiar and address and self._callers.get(node_id) != address and room:
            self._callers[node_id] = address
            self._on_change()

    def forget_callers(self) -> None:
        """A leader was heard."""
        if self._callers:
            self._callers = {}
            self._on_change()
