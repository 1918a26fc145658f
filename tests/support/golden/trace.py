"""How messages, entries and states look in a script's expected output. Short enough to be compared by eye: what no
scene turns on (digests, trim hints, ages, the size of the state) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from holdfast.cluster.raft import membership
from holdfast.cluster.raft.entries import Entry, Kind, Position, split_batches
from holdfast.cluster.raft.membership import Configuration
from holdfast.cluster.raft.messages import (
    Append,
    AppendReply,
    Commit,
    Message,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    SnapshotChunk,
    SnapshotOffer,
    SnapshotProgress,
    TimeoutNow,
    Vote,
    VoteReply,
)
from holdfast.storage.batch import Batch
from holdfast.storage.decoding import MALFORMED


def place(at: Entry | Position) -> str:
    """An index and its term."""
    return f"{at.index}@{at.term}"


def members(configuration: Configuration) -> str:
    """Node ids, those of learners in brackets."""
    return " ".join(m.node_id if m.voter else f"({m.node_id})" for m in configuration.members) or "none"


def batch(written: Batch) -> str:
    """What a batch does."""
    parts = [f"{put.key.decode()}={put.value.decode()}" for put in written.puts]
    parts += [f"{p.key.decode()}@{p.revision}?" for p in written.preconditions]
    if written.request is not None:
        parts.append(f"#{written.request.key.decode()}")
    return " ".join(parts)


def entry(one: Entry) -> str:
    """An entry and what it holds."""
    if one.kind is Kind.NOOP:
        return f"{place(one)} no-op"
    if one.kind is Kind.MEMBERSHIP:
        return f"{place(one)} members {members(membership.decode(one.payload))}"
    try:
        batches = split_batches(one.payload)
    except MALFORMED:
        return f"{place(one)} garbage"
    return f"{place(one)} " + " + ".join(batch(written) for written in batches)


def entries(several: Iterable[Entry]) -> str:
    """Entries between brackets; nothing when there are none."""
    texts = [entry(one) for one in several]
    return f" [{', '.join(texts)}]" if texts else ""


def round_of(stamp: int) -> str:
    """A round's stamp as the scene's time in milliseconds; rounds of the same millisecond differ in what follows."""
    return f"{stamp / 1000:.3f}".rstrip("0").rstrip(".")


def _yes(granted: bool) -> str:
    return "yes" if granted else "no"


def _pre_vote(m: PreVote) -> str:
    return f"term={m.term} last={m.last_index}@{m.last_term}" + (" founding" if m.founding else "")


def _pre_vote_reply(m: PreVoteReply) -> str:
    return f"{_yes(m.granted)} term={m.term} asked={m.asked_term}"


def _vote(m: Vote) -> str:
    flags = (" transfer" if m.transfer else "") + (" founding" if m.founding else "")
    return f"term={m.term} last={m.last_index}@{m.last_term}{flags}"


def _append(m: Append) -> str:
    return f"term={m.term} prev={m.prev_index}@{m.prev_term} commit={m.commit} round={round_of(m.stamp)}" + entries(
        m.entries
    )


def _append_reply(m: AppendReply) -> str:
    where = f"holds={m.index}" if m.accepted else f"at={m.rejected} try={m.index}"
    return f"{_yes(m.accepted)} term={m.term} {where} round={round_of(m.stamp)}"


def _offer(m: SnapshotOffer) -> str:
    configuration = members(m.members.configuration)
    return f"term={m.term} at={m.at.index}@{m.at.term} attempt={m.attempt} members {configuration}"


def _chunk(m: SnapshotChunk) -> str:
    return f"term={m.term} offset={m.offset}" + (" last" if m.digest else "")


_FORMS: dict[type[Any], Callable[[Any], str]] = {
    PreVote: _pre_vote,
    PreVoteReply: _pre_vote_reply,
    Vote: _vote,
    VoteReply: lambda m: f"{_yes(m.granted)} term={m.term}",
    Append: _append,
    AppendReply: _append_reply,
    Commit: lambda m: f"term={m.term} at={m.index}@{m.index_term}",
    TimeoutNow: lambda m: f"term={m.term}",
    ReadIndex: lambda m: f"term={m.term} question={m.question}",
    ReadIndexReply: lambda m: f"term={m.term} question={m.question} index={'none' if m.index is None else m.index}",
    SnapshotOffer: _offer,
    SnapshotChunk: _chunk,
    SnapshotProgress: lambda m: f"term={m.term} attempt={m.attempt} have={'part' if m.have else 'nothing'}",
}


def message(one: Message) -> str:
    """A message on one line."""
    return f"{type(one).__name__} {_FORMS[type(one)](one)}"
