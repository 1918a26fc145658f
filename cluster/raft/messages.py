"""What members say to each other: tagged msgpack structs, never pickle. Who said it is known from the session.

Every message carries the sender's term. Decoding checks types, ranges, sizes and the shape of the entries; what does
not pass raises `MalformedMessage`, upon which the links drop the session.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from holdfast.cluster.raft.comparing import StateMark
from holdfast.cluster.raft.entries import Count, Digest, Entry, Position
from holdfast.cluster.raft.membership import MEMBERS_MAX, Step
from holdfast.storage.decoding import MALFORMED

MESSAGE_BYTES_MAX = 8 * 1024 * 1024
"""The largest message, in bytes."""

ENTRIES_MAX = 4096
"""The most entries in one message."""

Name = Annotated[str, msgspec.Meta(max_length=512)]

Contacts = Annotated[tuple[tuple[Name, Name], ...], msgspec.Meta(max_length=MEMBERS_MAX)]
"""Node ids and cluster addresses."""


SNAPSHOT_FILES_MAX = 65_536
"""The most files in a snapshot."""

SNAPSHOT_CHUNK_BYTES_MAX = 1024 * 1024
"""The largest chunk of a snapshot, in bytes."""

FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Sha256 = Annotated[bytes, msgspec.Meta(max_length=32)]
SnapshotId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class MalformedMessage(ValueError):
    """Bytes that are no message of ours. The session they came from is to be dropped."""


class PreVote(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Would you vote for me in `term` (my term and one)? Changes nothing at either side (Raft thesis 9.6). A node that
    does not vote asks with term 0, only to be told the term and the members.

    address: where the candidate is answered by one whose log does not name it. founding: as far as the candidate's disk
    knows, nothing was committed yet.
    """

    term: Count
    last_index: Count
    last_term: Count
    address: Name = ""
    founding: bool = False


class PreVoteReply(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """`asked_term` is the term asked about; `term` the sender's own. A rejection brings the members as the sender knows
    them: whoever asks may have missed that the leader joined. founded: the sender knows that something was committed.
    """

    term: Count
    asked_term: Count
    granted: bool
    contacts: Contacts = ()
    founded: bool = False


class Vote(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Vote for me in `term`. `transfer`: the leader itself asked for this election, so do not hold it off. The others
    as in PreVote."""

    term: Count
    last_index: Count
    last_term: Count
    transfer: bool
    address: Name = ""
    founding: bool = False


class VoteReply(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Sent when the vote is durable."""

    term: Count
    granted: bool


class Append(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """AppendEntries and heartbeat.

    prev_*: the position that the entries follow; the digest shows that both logs are the same up to there.
    commit: the leader's commit index.
    stamp: rises with every round; echoed in the reply, which then proves contact and leadership as of that round.
    trim: the highest index that every member has durably.
    quorum_age_ms: since the leader knew itself to be in contact with a quorum.
    sample, agreed: the leader's state at an index that it has applied; the latest state that a majority has.
    contacts: while the leader does not know the follower's log: the members and their cluster addresses, so that a
        node whose own log does not name the leader yet can answer it.
    """

    term: Count
    prev_index: Count
    prev_term: Count
    prev_digest: Digest
    commit: Count
    stamp: Count
    trim: Count
    quorum_age_ms: Count
    entries: Annotated[tuple[Entry, ...], msgspec.Meta(max_length=ENTRIES_MAX)] = ()
    contacts: Contacts = ()
    sample: StateMark = StateMark()
    agreed: StateMark = StateMark()


class AppendReply(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """Sent when everything it claims is durable.

    accepted: the log equals the leader's up to `index`. Otherwise `rejected` repeats the index that did not match and
    `index` is where the leader should try next. state: the sender's, at the index of a sample.
    """

    term: Count
    accepted: bool
    index: Count
    rejected: Count
    stamp: Count
    eligible: bool
    state: StateMark = StateMark()


class Commit(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """The entry at (`index`, `index_term`) is committed. Not answered."""

    term: Count
    index: Count
    index_term: Count


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """The leader asks the receiver to campaign at once (Raft thesis 3.10)."""

    term: Count


class ReadIndex(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """A follower asks how far it must have applied to read (Raft thesis 6.4). One question for many reads."""

    term: Count
    question: Count


class ReadIndexReply(msgspec.Struct, frozen=True, array_like=True, tag=10, gc=False):
    """`index` is None when the sender does not lead."""

    term: Count
    question: Count
    index: Count | None


class SnapshotOffer(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """The leader has a snapshot for a member that needs trimmed entries. Sent again, with the next `attempt`, whenever
    the transfer makes no progress; the answer says where to go on.

    at, members, state_digest: the state's position, the configuration in effect there and what the state amounts to.
    files: names and sizes; the snapshot is their contents, one behind the other.
    """

    term: Count
    id: SnapshotId
    attempt: Count
    at: Position
    members: Step
    files: Annotated[tuple[tuple[FileName, Count], ...], msgspec.Meta(max_length=SNAPSHOT_FILES_MAX)]
    state_digest: Digest


class SnapshotChunk(msgspec.Struct, frozen=True, array_like=True, tag=21, gc=False):
    """A part of the snapshot. check: CRC-32 of offset and data. digest: with the last part, the SHA-256 over names,
    sizes and contents of all files; empty otherwise."""

    term: Count
    id: SnapshotId
    offset: Count
    data: Annotated[bytes, msgspec.Meta(max_length=SNAPSHOT_CHUNK_BYTES_MAX)]
    check: Count
    digest: Sha256 = b""


class SnapshotProgress(msgspec.Struct, frozen=True, array_like=True, tag=22, gc=False):
    """How much of the snapshot the member has. attempt: of the latest offer it has seen."""

    term: Count
    id: SnapshotId
    attempt: Count
    have: Count


Message = (
    PreVote
    | PreVoteReply
    | Vote
    | VoteReply
    | Append
    | AppendReply
    | Commit
    | TimeoutNow
    | ReadIndex
    | ReadIndexReply
    | SnapshotOffer
    | SnapshotChunk
    | SnapshotProgress
)

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """A message as it travels."""
    return _ENCODER.encode(message)


def decode(payload: bytes) -> Message:
    """A received message. Raises MalformedMessage."""
    if len(payload) > MESSAGE_BYTES_MAX:
        raise MalformedMessage(f"a message of {len(payload)} bytes; at most {MESSAGE_BYTES_MAX} allowed")
    try:
        message: Message = _DECODER.decode(payload)
    except MALFORMED as error:
        raise MalformedMessage("bytes that are no Raft message") from error
    if isinstance(message, Append):
        _check_entries(message)
    return message


def _check_entries(message: Append) -> None:
    index, term = message.prev_index, message.prev_term
    for entry in message.entries:
        index += 1
        if entry.index != index or not term <= entry.term <= message.term:
            raise MalformedMessage("an AppendEntries whose entries do not follow each other")
        term = entry.term
