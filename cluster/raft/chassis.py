"""pysyncobj 0.3.17 as a chassis: the one place that knows its insides.

It keeps a Raft node's state (role, term, vote, leader, log, commit index, members), its transitions and its wiring to
transport, journal and tick. Everything that decides is overridden in its subclasses, by name: a name-mangled private of
`SyncObj` can be overridden because the base looks it up on `self`. That holds for this exact source only, so its digest
is checked first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import pysyncobj.syncobj
from pysyncobj.config import SyncObjConf
from pysyncobj.node import Node
from pysyncobj.syncobj import SyncObj

from holdfast.cluster.raft.consensus import Role
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.timing import Timing
from holdfast.cluster.raft.transport import LinksTransport
from holdfast.proto.errors import Fatal

SOURCE_SHA256 = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"
"""Of pysyncobj 0.3.17's syncobj.py."""

_NEVER = 2**62
_ROLES = (Role.FOLLOWER, Role.CANDIDATE, Role.LEADER)
"""By pysyncobj's number."""

T = TypeVar("T")


class ChassisMismatch(Fatal):
    """The installed pysyncobj is not the one this module was built on. Install the locked requirements."""

    reason = "CHASSIS_MISMATCH"


def check_source() -> None:
    """Raise ChassisMismatch unless the installed syncobj.py is, byte for byte, the one whose parts are overridden."""
    found = hashlib.sha256(Path(pysyncobj.syncobj.__file__).read_bytes()).hexdigest()
    if found != SOURCE_SHA256:
        raise ChassisMismatch(
            "the installed pysyncobj is not the 0.3.17 that this build was made and tested with "
            f"(sha256 of syncobj.py is {found}); install requirements/run.txt with --require-hashes"
        )


class Private(Generic[T]):
    """Typed access to a private attribute of SyncObj."""

    def __init__(self, name: str) -> None:
        self._name = f"_SyncObj__{name}"

    @overload
    def __get__(self, instance: None, owner: type) -> Private[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> T | Private[T]:
        return self if instance is None else getattr(instance, self._name)

    def __set__(self, instance: object, value: T) -> None:
        setattr(instance, self._name, value)


def configuration(timing: Timing, on_role: Callable[[], None]) -> SyncObjConf:
    """A configuration with which pysyncobj opens no socket, no pipe, no file and no thread, and compacts nothing.

    `appendEntriesUseBatch` is what keeps it from opening a pipe; the code that reads it otherwise is overridden.
    """
    return SyncObjConf(  # type: ignore[no-untyped-call]
        autoTick=False,
        journalFile=None,
        fullDumpFile=None,
        useFork=False,
        password=None,
        dynamicMembershipChange=False,
        appendEntriesUseBatch=True,
        pollerType="select",
        appendEntriesPeriod=timing.heartbeat_s,
        raftMinTimeout=timing.election_min_s,
        raftMaxTimeout=timing.election_max_s,
        connectionTimeout=timing.election_max_s,
        leaderFallbackTimeout=timing.quorum_timeout_s,
        logCompactionMinEntries=_NEVER,
        logCompactionMinTime=_NEVER,
        onStateChanged=lambda _old, _new: on_role(),
    )


class Chassis(SyncObj):
    """A SyncObj with our journal and transport in it and its unsafe doors shut. Raises ChassisMismatch."""

    leader_node: Private[Node | None] = Private("raftLeader")
    log: Private[Journal] = Private("raftLog")
    commit: Private[int] = Private("raftCommitIndex")
    applied: Private[int] = Private("raftLastApplied")
    term: Private[int] = Private("raftCurrentTerm")
    voted_for: Private[str | None] = Private("votedForNodeId")
    election_deadline_s: Private[float] = Private("raftElectionDeadline")
    connected_nodes: Private[set[Node]] = Private("connectedNodes")
    other_nodes: Private[set[Node]] = Private("otherNodes")
    _role_number: Private[int] = Private("raftState")

    def __init__(self, node_id: str, *, journal: Journal, transport: LinksTransport, timing: Timing) -> None:
        check_source()
        self._built = False
        self._links_transport = transport
        super().__init__(  # type: ignore[no-untyped-call]
            transport.node(node_id),
            [],
            conf=configuration(timing, self._on_role),
            nodeClass=Node,
            transport=transport,
        )
        self._built = True
        self.log = journal
        self.term = journal.getCurrentTerm()
        self.voted_for = journal.getVotedForNodeId()
        self.commit = self.applied = journal.getRaftCommitIndex()

    def __dir__(self) -> list[str]:
        """Nothing while SyncObj constructs itself: it looks through its attributes for replicated methods, and there
        are none."""
        return list(super().__dir__()) if self._built else []

    def _on_role(self) -> None:
        """The role changed (pysyncobj's own state callback)."""

    @property
    def role(self) -> Role:
        """The role in the current term."""
        return _ROLES[self._role_number]

    def transition(self, name: str, *arguments: Any) -> None:
        """Call a private method of SyncObj: its own, or what overrides it."""
        getattr(self, f"_SyncObj__{name}")(*arguments)

    def set_role(self, role: Role) -> None:
        """Change the role, by pysyncobj's own transition."""
        self.transition("setState", _ROLES.index(role))

    def set_term(self, term: int, vote: str | None) -> None:
        """Adopt a term and a vote, by pysyncobj's own transition; durable after the journal's next sync."""
        self.transition("setCurrentTerm", term, vote)

    @property
    def leader_id(self) -> str:
        """The leader of the current term, as far as it is known; empty otherwise."""
        return "" if self.leader_node is None else str(self.leader_node.id)

    @leader_id.setter
    def leader_id(self, node_id: str) -> None:
        self.leader_node = self._links_transport.node(node_id) if node_id else None

    # Never used: forwarding without duplicate detection, pickled commands, code versions, dumps, utility messages

    def _refuse(self, *_args: Any, **_kwargs: Any) -> Any:
        raise AssertionError("this part of pysyncobj is not used")

    _applyCommand = _checkCommandsToApply = _refuse  # noqa: N815
    setCodeVersion = _setCodeVersion = forceLogCompaction = _forceLogCompaction = _refuse  # noqa: N815
    addNodeToCluster = _addNodeToCluster = removeNodeFromCluster = _removeNodeFromCluster = _refuse  # noqa: N815
    transferLeadership = _transferLeadership = _refuse  # noqa: N815
    _SyncObj__loadDumpFile = _SyncObj__tryLogCompaction = _SyncObj__doApplyCommand = _refuse
    _SyncObj__doChangeCluster = _SyncObj__changeCluster = _SyncObj__updateClusterConfiguration = _refuse
    _SyncObj__sendNextNodeIdx = _SyncObj__deleteEntriesFrom = _SyncObj__deleteEntriesTo = _refuse
    _SyncObj__sendAppendEntries = _SyncObj__applyLogEntries = _refuse
