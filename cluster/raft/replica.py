"""The receiving half of AppendEntries (Raft paper, figure 2), as a function over the journal.

It differs from pysyncobj's in what matters: entries that match are never touched, only a conflict of terms truncates,
nothing committed is ever truncated, and the digests of both logs must agree wherever their terms do.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.cluster.raft.entries import Entry, Position, follows
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.messages import Append, MalformedMessage
from holdfast.proto.errors import Diverged


@dataclass(frozen=True)
class Verdict:
    """accepted: the log now equals the leader's up to `index`. Otherwise `index` is where the leader should go on."""

    accepted: bool
    index: int


def accept(journal: Journal, commit: int, message: Append) -> Verdict:
    """Judge an AppendEntries of the current term and take its new entries into the journal (not yet synced).

    Raises Diverged when the two histories differ where Raft says that they cannot; MalformedMessage, before anything
    is changed, when the entries do not carry on the digest chain.
    """
    previous = journal.at(message.prev_index)
    if previous is None and message.prev_index > journal.last_index:
        return Verdict(accepted=False, index=journal.last_index + 1)
    if previous is not None and previous.term != message.prev_term:
        return Verdict(accepted=False, index=_conflict_hint(journal, commit, message.prev_index, previous.term))
    if previous is not None and previous.digest != message.prev_digest:
        raise _diverged(message.prev_index)
    fresh = _first_fresh(journal, commit, message.entries)
    new = message.entries[fresh:]
    if new:
        _check_chain(journal, new)
        if new[0].index <= journal.last_index:
            journal.truncate(new[0].index)
        for entry in new:
            journal.append(entry)
    # Below the base everything is committed, and every leader has what is committed.
    return Verdict(accepted=True, index=max(message.prev_index + len(message.entries), journal.base.index))


def reaches(journal: Journal, at: Position) -> bool:
    """Whether the log is the same as the log that a snapshot stands for, up to its position. Raises Diverged."""
    mine = journal.at(at.index)
    if mine is None or mine.term != at.term:
        return False
    if mine.digest != at.digest:
        raise _diverged(at.index)
    return True


def _first_fresh(journal: Journal, commit: int, entries: tuple[Entry, ...]) -> int:
    """How many of the entries the log has already. Raises Diverged when one conflicts with what is committed."""
    for offset, entry in enumerate(entries):
        if entry.index < journal.base.index:
            continue
        mine = journal.at(entry.index)
        if mine is None:
            return offset
        if mine.term != entry.term:
            if entry.index <= commit:
                raise _diverged(entry.index)
            return offset
        if mine.digest != entry.digest:
            raise _diverged(entry.index)
    return len(entries)


def _check_chain(journal: Journal, new: tuple[Entry, ...]) -> None:
    before: Entry | Position | None = journal.at(new[0].index - 1)
    assert before is not None, "new entries follow what the log has"
    for entry in new:
        if not follows(before, entry):
            raise MalformedMessage(f"entry {entry.index} does not carry on the log's digest")
        before = entry


def _conflict_hint(journal: Journal, commit: int, index: int, term: int) -> int:
    """Where the run of entries of the conflicting term begins, so that a whole term is skipped in one step."""
    if index <= commit:
        raise _diverged(index)
    while index > commit + 1:
        before = journal.at(index - 1)
        if before is None or before.term != term:
            break
        index -= 1
    return index


def _diverged(index: int) -> Diverged:
    if index <= 1:
        return Diverged(
            "this node's log begins differently from the leader's: the nodes were configured with different "
            "initial_members. If this node never took part: make them equal everywhere, empty its data folder and "
            "start it again. Otherwise remove it from the cluster and join it under a new node id"
        )
    return Diverged(
        f"this node's log differs from the leader's at index {index}, where both should be the same; "
        "rebuild this node from its peers: remove it from the cluster, empty its data folder and join it again"
    )
