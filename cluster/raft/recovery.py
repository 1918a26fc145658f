"""A quorum that is lost for good: what the survivors' logs say together, and the membership that is made of one.

Outside Raft, which rightly has no way on: a majority of the voters is gone, and people say so. `plan` compares what
survivors report and decides; `recover` carries it out on the one survivor that knows most. DESIGN.md, "A quorum that is
lost for good", says what can be lost and why the old membership cannot come back unnoticed. No I/O but the journal's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from holdfast.cluster.raft import membership
from holdfast.cluster.raft.consensus import Member
from holdfast.cluster.raft.entries import Entry, Kind, Position, follow
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.lineage import ID_BYTES, RECOVERIES_MAX, Kinship, kinship
from holdfast.cluster.raft.membership import Configuration
from holdfast.cluster.raft.quorum import is_majority
from holdfast.cluster.raft.restoring import decode
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.proto.errors import FailedPrecondition, InvalidArgument

TERM_STEP = 1_000_000
"""How far a recovery lifts the term above every term that a survivor knows. Terms rise by one with each election that
began with a won pre-vote, so that lost nodes cannot have gone that far unseen."""

DIGESTS_DENSE = 4096
"""For how many of the last entries a report holds every digest. Survivors' logs mostly end close to each other."""

DIGESTS_STRIDE = 256
"""Below those, the digest of every entry whose index is a multiple of this."""


class Point(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place in a log. digest: of the log up to there, in hexadecimal."""

    index: int
    term: int
    digest: str


class Survivor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stopped node's disk says.

    base: the place below the first log entry. applied: how far the state has come; all of it is committed.
    members, promoting, configuration_index, lineage: the configuration in effect, committed or not.
    runs: (first index, term) of each run of entries of one term, from the base on.
    digests: (index, digest) of entries above the base, in order; see DIGESTS_DENSE.
    restores: SHA-256 of the snapshot files that the log's restores above `applied` need. A node does not get past one
        without its file.
    files: SHA-256 of the snapshot files that are here, whole and verified.
    """

    cluster_name: str
    node_id: str
    term: int
    base: Point
    last: Point
    applied: Point
    state_digest: str
    configuration_index: int
    members: tuple[Member, ...]
    promoting: tuple[str, ...]
    lineage: str
    vouched: bool
    founded: bool
    runs: tuple[tuple[int, int], ...]
    digests: tuple[tuple[int, str], ...]
    restores: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def committed(self) -> int:
        """The highest index that this disk knows to be committed."""
        return max(self.applied.index, self.base.index)

    @property
    def rank(self) -> tuple[int, int]:
        """How much its log holds: Raft's order of logs (Raft paper, section 5.4.1)."""
        return self.last.term, self.last.index

    def term_at(self, index: int) -> int | None:
        """The term of the entry at an index; None outside the log."""
        if not self.base.index <= index <= self.last.index:
            return None
        return next((term for first, term in reversed(self.runs) if first <= index), None)


def survey(
    journal: Journal, machine: StateMachine, *, node_id: str, cluster_name: str, files: Sequence[str] = ()
) -> Survivor:
    """What a node's journal and state say, after `installing.reconcile`. files: see Survivor."""
    configurations = journal.configurations
    current = configurations.current
    entries = [journal.entry(index) for index in range(journal.base.index + 1, journal.last_index + 1)]
    dense_from = journal.last_index - DIGESTS_DENSE
    return Survivor(
        cluster_name=cluster_name,
        node_id=node_id,
        term=journal.getCurrentTerm(),
        base=_point(journal.base),
        last=_point(journal.last),
        applied=_point(machine.applied),
        state_digest=machine.state_digest.hex(),
        configuration_index=configurations.index,
        members=current.members,
        promoting=current.promoting,
        lineage=current.lineage.hex(),
        vouched=journal.vouched,
        founded=journal.founded,
        runs=_runs(journal.base, entries),
        digests=tuple(
            (entry.index, entry.digest.hex())
            for entry in entries
            if entry.index > dense_from or entry.index % DIGESTS_STRIDE == 0
        ),
        restores=tuple(
            decode(entry).sha256.hex()
            for entry in entries
            if entry.kind is Kind.RESTORE and entry.index > machine.applied.index
        ),
        files=tuple(files),
    )


def _point(at: Entry | Position) -> Point:
    return Point(index=at.index, term=at.term, digest=at.digest.hex())


def _runs(base: Position, entries: Sequence[Entry]) -> tuple[tuple[int, int], ...]:
    runs = [(base.index, base.term)]
    for entry in entries:
        if entry.term != runs[-1][1]:
            runs.append((entry.index, entry.term))
    return tuple(runs)


@dataclass(frozen=True)
class Standing:
    """A survivor beside the best one.

    role: in the best one's configuration: voter, learner or none.
    shared_to: up to which index its log equals the best one's; None where the logs do not meet, because the best one's
        begins above this one's end.
    missing: entries of the best one's log that it lacks. dropped: entries of its own that the best one's log does not
        have. Those were never acknowledged (DESIGN.md).
    """

    survivor: Survivor
    role: str
    shared_to: int | None
    missing: int
    dropped: int


@dataclass(frozen=True)
class Plan:
    """What a recovery would do.

    best: the survivor that the new membership is made of. standings: all survivors, the best first.
    lost: the members, by the best one's log, that no survivor speaks for: they are given up.
    committed: everything up to here is known to be committed, and is kept.
    may_lose: whether entries that were acknowledged may exist on nobody but the lost.
    term: the new membership's first term.
    """

    best: Survivor
    standings: tuple[Standing, ...]
    lost: tuple[Member, ...]
    voters: int
    committed: int
    may_lose: bool
    term: int

    @property
    def undecided(self) -> tuple[int, int] | None:
        """The first and last index of the entries that are kept though nobody here knows whether they were committed:
        whoever sent them may have been told that the outcome is unknown."""
        return (self.committed + 1, self.best.last.index) if self.best.last.index > self.committed else None

    @property
    def lacking(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The SHA-256 of each snapshot file that the best survivor needs and lacks, and the survivors that have it.
        Nobody could send it the file once it is the only member, so it would wait for ever."""
        return tuple(
            (sha256, tuple(sorted(s.survivor.node_id for s in self.standings if sha256 in s.survivor.files)))
            for sha256 in dict.fromkeys(self.best.restores)
            if sha256 not in self.best.files
        )


def plan(survivors: Sequence[Survivor]) -> Plan:
    """Compare survivors and choose. The order in which they are given does not matter.

    Raises InvalidArgument when none or one twice is given, and FailedPrecondition when they are not survivors of one
    cluster, when their logs contradict each other, and when they are enough to go on without a recovery."""
    _check_together(survivors)
    best = max(survivors, key=lambda survivor: (*survivor.rank, survivor.committed, survivor.node_id))
    _check_lineage(best, survivors)
    _check_histories(best, survivors)
    standings = [_standing(survivor, best) for survivor in survivors]
    voters = [member.node_id for member in best.members if member.voter]
    able = [s.node_id for s in survivors if s.node_id in voters and (s.vouched or not best.founded)]
    if is_majority(len(able), len(voters)):
        raise FailedPrecondition(
            f"nothing is lost: {_names(able)} are a majority of the {len(voters)} voters ({_names(voters)}). Start "
            "them; they elect a leader by themselves. Then remove or replace the others (docs/operations.md)"
            if len(able) > 1
            else f"nothing is lost: {able[0]} is the only voter. Start it; it leads by itself"
        )
    present = {survivor.node_id for survivor in survivors}
    return Plan(
        best=best,
        standings=tuple(sorted(standings, key=lambda s: (s.survivor is not best, *_descending(s.survivor)))),
        lost=tuple(member for member in best.members if member.node_id not in present),
        voters=len(voters),
        committed=max(survivor.committed for survivor in survivors),
        may_lose=is_majority(len(voters) - len(able), len(voters)),
        term=max(survivor.term for survivor in survivors) + TERM_STEP,
    )


def _descending(survivor: Survivor) -> tuple[int, int, str]:
    term, index = survivor.rank
    return -term, -index, survivor.node_id


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _check_together(survivors: Sequence[Survivor]) -> None:
    if not survivors:
        raise InvalidArgument("name the data folders or the reports of all survivors", field="data-dir")
    ids = [survivor.node_id for survivor in survivors]
    for node_id in ids:
        if ids.count(node_id) > 1:
            raise InvalidArgument(f"{node_id} is given twice; give each survivor once", field="data-dir")
    if len({survivor.cluster_name for survivor in survivors}) > 1:
        names = _names({survivor.cluster_name for survivor in survivors})
        raise FailedPrecondition(f"these are nodes of different clusters ({names}); give those of one")
    for survivor in survivors:
        if all(member.node_id != survivor.node_id for member in survivor.members):
            raise FailedPrecondition(
                f"{survivor.node_id} is no member by its own log: it never was one, or was removed. Leave it out"
            )


def _check_lineage(best: Survivor, survivors: Sequence[Survivor]) -> None:
    for survivor in survivors:
        match kinship(bytes.fromhex(best.lineage), bytes.fromhex(survivor.lineage)):
            case Kinship.SAME:
                continue
            case Kinship.BEHIND:
                problem = "was given up in an earlier recovery. Leave it out"
            case _:
                problem = (
                    f"and {best.node_id} were recovered apart from each other, into two clusters. Decide which one "
                    "goes on, and leave the other's nodes out"
                )
        raise FailedPrecondition(f"{survivor.node_id} {problem}")


def _check_histories(best: Survivor, survivors: Sequence[Survivor]) -> None:
    """Where two logs agree in index and term they are the same log up to there, and the best log holds all that is
    committed. Disks for which that is not so are not what Raft has written."""
    seen: dict[tuple[int, int], tuple[str, str]] = {}
    known = [(*known, survivor.node_id) for survivor in survivors for known in _known_digests(survivor)]
    for index, term, digest, node_id in sorted(known):
        other = seen.setdefault((index, term), (digest, node_id))
        if other[0] != digest:
            raise _contradiction(node_id, other[1], index)
    states: dict[int, tuple[str, str]] = {}
    for survivor in survivors:
        state = states.setdefault(survivor.applied.index, (survivor.state_digest, survivor.node_id))
        if state[0] != survivor.state_digest:
            raise _contradiction(survivor.node_id, state[1], survivor.applied.index)
        fork = best.last.index + 1 if survivor.committed > best.last.index else _fork(survivor, best)
        if fork is not None and fork <= survivor.committed:
            raise _contradiction(survivor.node_id, best.node_id, fork)


def _known_digests(survivor: Survivor) -> Iterable[tuple[int, int, str]]:
    for point in (survivor.base, survivor.last, survivor.applied):
        yield point.index, point.term, point.digest
    for index, digest in survivor.digests:
        term = survivor.term_at(index)
        assert term is not None, "a report's digests are of its own log"
        yield index, term, digest


def _contradiction(one: str, other: str, index: int) -> FailedPrecondition:
    return FailedPrecondition(
        f"{one} and {other} contradict each other at index {index}, where both should hold the same: one of the disks "
        "is damaged, or folders of different clusters or times were mixed. Leave out the one you trust less"
    )


def _fork(one: Survivor, other: Survivor) -> int | None:
    """The first index at which two logs that meet have different terms; None when one is a part of the other, or they
    do not meet."""
    begin = max(one.base.index, other.base.index)
    end = min(one.last.index, other.last.index)
    starts = sorted({begin, *(first for first, _ in (*one.runs, *other.runs) if begin < first <= end)})
    return next((at for at in starts if at <= end and one.term_at(at) != other.term_at(at)), None)


def _standing(survivor: Survivor, best: Survivor) -> Standing:
    named = next((member for member in best.members if member.node_id == survivor.node_id), None)
    role = "none" if named is None else "voter" if named.voter else "learner"
    fork = _fork(survivor, best)
    shared_to: int | None
    if fork is not None:
        shared_to = fork - 1
    elif survivor.last.index < best.base.index:
        shared_to = None
    else:
        shared_to = min(survivor.last.index, best.last.index)
    missing = best.last.index - (survivor.last.index if shared_to is None else shared_to)
    dropped = 0 if shared_to is None else survivor.last.index - shared_to
    return Standing(survivor, role, shared_to, missing, dropped)


def recover(journal: Journal, *, member: Member, term: int, recovery_id: bytes) -> Configuration:
    """Make `member`, whose journal this is, the only voter of a new membership. One atomic, synced write: a crash
    leaves the old membership or the new one.

    term: above every term that anyone may have voted in. recovery_id: ID_BYTES of randomness.
    Returns the new configuration. Raises FailedPrecondition after RECOVERIES_MAX recoveries."""
    assert len(recovery_id) == ID_BYTES, "a recovery's id has a fixed length"
    assert term > journal.getCurrentTerm(), "a recovery begins a later term"
    lineage = journal.configurations.current.lineage
    if len(lineage) >= RECOVERIES_MAX * ID_BYTES:
        raise FailedPrecondition(f"this cluster was recovered {RECOVERIES_MAX} times; restore a backup into a new one")
    configuration = Configuration(membership.initial([member]).members, (), lineage + recovery_id)
    journal.setCurrentTerm(term, None)
    journal.append(
        follow(
            journal.last,
            term=term,
            cluster_time_ms=journal.last.cluster_time_ms,
            kind=Kind.MEMBERSHIP,
            payload=membership.encode(configuration),
        )
    )
    journal.vouch()
    journal.note_founded()
    journal.sync()
    return configuration
