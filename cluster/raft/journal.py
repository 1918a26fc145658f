"""The log on disk: pysyncobj's journal interface over a `Store`, with one atomic write for each sync.

    "l" index (8 bytes, big-endian) -> Entry
    "m"                             -> format, term, vote, the base, the last index, and what the disk has lived through
    "c"                             -> the configuration in effect at the base (`membership.Step`)
    "i"                             -> while a snapshot is being installed: where the log will begin (`Restart`)

The *base* is the position below the first entry: index 0 in a new log, later the last entry that was trimmed or that a
snapshot covered. All entries above it are also held in memory.

Truncation, appends, term, vote and trimming collect in memory until `begin_sync`, which writes them as one batch; the
job it returns makes that durable and may run in another thread; `end_sync` records it. `synced` is what may be
acknowledged, and `settled` whether term and vote are durable.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import msgspec
from pysyncobj.journal import Journal as JournalInterface

from holdfast.cluster.raft import membership
from holdfast.cluster.raft.entries import (
    Entry,
    Kind,
    Position,
    decode_entry,
    encode_entry,
    follow,
    follows,
    position,
)
from holdfast.cluster.raft.membership import Configuration, ConfigurationHistory, Step
from holdfast.proto.errors import Corruption
from holdfast.storage.decoding import MALFORMED
from holdfast.storage.store import Store

FORMAT = 1
_LOG = b"l"
_LOG_END = b"m"
_META = b"m"
_CONFIGURATION = b"c"
_RESTART = b"i"


class _Meta(msgspec.Struct, frozen=True, array_like=True):
    format: int
    term: int
    vote: str | None
    base: Position
    last_index: int
    vouched: bool = True
    founded: bool = True


class Restart(msgspec.Struct, frozen=True, array_like=True):
    """Where a log begins anew: the position of a snapshot, and the configuration in effect there."""

    at: Position
    members: Step


def _key(index: int) -> bytes:
    return _LOG + index.to_bytes(8, "big")


class Journal(JournalInterface):
    """The log, the term and the vote of one node.

    initial: the configuration of entry 1 of a new log; None makes an empty log, whose node waits to be contacted.
    stamp: the cluster time for entries that pysyncobj's interface appends (`add`), in milliseconds.

    Raises Corruption when what is stored has a hole, a wrong digest or an unknown format.
    """

    def __init__(self, store: Store, *, initial: Configuration | None) -> None:
        self._store = store
        self._term = 0
        self._vote: str | None = None
        self._vouched = self._founded = False
        self._puts: dict[bytes, bytes] = {}
        self._deletes: dict[bytes, None] = {}
        self._meta_changed = False
        self._meta_in_flight = False
        self._in_flight: int | None = None
        self._entries: list[Entry] = []
        # By position: the payload bytes up to and with the entry, counted from where this object began.
        self._ends: list[int] = []
        self._trimmed_bytes = 0
        self._restart: Restart | None = None
        self.stamp: Callable[[], int] = lambda: self.last.cluster_time_ms
        stored = store.get(_META)
        if stored is None:
            self._create(initial)
        else:
            self._load(stored)
        self._synced = self.last_index

    def _create(self, initial: Configuration | None) -> None:
        if self._store.seek(_LOG, _LOG_END) is not None:
            raise Corruption("the log has entries but no header; restore the data folder or rebuild this node")
        self._base = Position()
        self.configurations = ConfigurationHistory(Step())
        self._meta_changed = True
        if initial is not None and initial.members:
            payload = membership.encode(initial)
            self.append(follow(self._base, term=0, cluster_time_ms=0, kind=Kind.MEMBERSHIP, payload=payload))
        self.sync()

    def _load(self, stored: bytes) -> None:
        restart = self._store.get(_RESTART)
        try:
            self._restart = None if restart is None else msgspec.msgpack.decode(restart, type=Restart)
            meta = msgspec.msgpack.decode(stored, type=_Meta)
            configuration = self._store.get(_CONFIGURATION)
            step = Step() if configuration is None else msgspec.msgpack.decode(configuration, type=Step)
        except MALFORMED as error:
            raise Corruption("the log's header does not decode; rebuild this node from its peers") from error
        if meta.format != FORMAT:
            raise Corruption(f"the log has format {meta.format}; this build reads format {FORMAT}")
        self._base, self._term, self._vote = meta.base, meta.term, meta.vote
        self._vouched, self._founded = meta.vouched, meta.founded
        self.configurations = ConfigurationHistory(step)
        for key, value in self._store.scan(_LOG, _LOG_END):
            self._load_entry(key, value)
        if self.last_index != meta.last_index:
            raise Corruption(f"the log ends at {self.last_index} and should end at {meta.last_index}")
        if self.last.term > self._term:
            raise Corruption(f"the log holds term {self.last.term}, but the node never went beyond {self._term}")

    def _load_entry(self, key: bytes, value: bytes) -> None:
        expected = self.last_index + 1
        if key != _key(expected):
            raise Corruption(f"the log has a hole at {expected}; rebuild this node from its peers")
        try:
            entry = decode_entry(value)
        except MALFORMED as error:
            raise Corruption(f"log entry {expected} does not decode; rebuild this node from its peers") from error
        if not follows(self.last, entry):
            raise Corruption(f"log entry {expected} has a wrong digest; rebuild this node from its peers")
        self._hold(entry)
        self._note_configuration(entry)

    def _hold(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._ends.append((self._ends[-1] if self._ends else self._trimmed_bytes) + len(entry.payload))

    def _note_configuration(self, entry: Entry) -> None:
        if entry.kind is Kind.MEMBERSHIP:
            try:
                self.configurations.append(entry.index, membership.decode(entry.payload))
            except MALFORMED as error:
                raise Corruption(f"log entry {entry.index} holds no configuration") from error

    # What is in it

    @property
    def base(self) -> Position:
        """The position below the first entry."""
        return self._base

    @property
    def last(self) -> Entry | Position:
        """The last entry, or the base of an empty log."""
        return self._entries[-1] if self._entries else self._base

    @property
    def last_index(self) -> int:
        """The index of `last`."""
        return self._base.index + len(self._entries)

    def entry(self, index: int) -> Entry:
        """The entry at an index above the base and up to the last."""
        offset = index - self._base.index - 1
        assert 0 <= offset < len(self._entries), f"no entry {index} in the log"
        return self._entries[offset]

    def at(self, index: int) -> Entry | Position | None:
        """The entry at an index, the base at its own, None outside the log."""
        offset = index - self._base.index - 1
        if offset == -1:
            return self._base
        return self._entries[offset] if 0 <= offset < len(self._entries) else None

    def between(self, first: int, *, count: int, bytes_max: int) -> tuple[Entry, ...]:
        """Entries from `first` on: at most `count`, and at most `bytes_max` of payload unless the first alone has
        more."""
        offset = first - self._base.index - 1
        assert offset >= 0, f"entry {first} was trimmed"
        taken, size = 0, 0
        for at in range(offset, min(offset + count, len(self._entries))):
            size += len(self._entries[at].payload)
            if taken and size > bytes_max:
                break
            taken += 1
        return tuple(self._entries[offset : offset + taken])

    def _payload_until(self, index: int) -> int:
        offset = index - self._base.index - 1
        assert -1 <= offset < len(self._ends), f"no entry {index} in the log"
        return self._trimmed_bytes if offset == -1 else self._ends[offset]

    def size_between(self, after: int, until: int) -> int:
        """The payload, in bytes, of the entries above `after` and up to `until`; neither is below the base."""
        return self._payload_until(until) - self._payload_until(after)

    def before_tail(self, end: int, *, count: int, bytes_max: int) -> int:
        """The index below the tail that ends with entry `end`: at most `count` entries, and at most `bytes_max` of
        payload. The base when the tail reaches it."""
        if end - self._base.index <= 0:
            return self._base.index
        until = self._payload_until(end)
        by_size = self._base.index
        if until - self._trimmed_bytes > bytes_max:
            by_size += bisect_left(self._ends, until - bytes_max) + 1
        return max(self._base.index, end - count, by_size)

    # Changes, in memory until the next sync

    def append(self, entry: Entry) -> None:
        """Add the next entry. The caller has checked it (`entries.follows`) or made it (`entries.follow`)."""
        assert entry.index == self.last_index + 1, "entries are appended in order"
        self._hold(entry)
        key = _key(entry.index)
        self._deletes.pop(key, None)
        self._puts[key] = encode_entry(entry)
        self._note_configuration(entry)

    def truncate(self, from_index: int) -> None:
        """Remove the entries from `from_index` on."""
        offset = from_index - self._base.index - 1
        assert offset >= 0, "the base is never truncated"
        for entry in self._entries[offset:]:
            self._forget(entry.index)
        del self._entries[offset:]
        del self._ends[offset:]
        self._synced = min(self._synced, self.last_index)
        if self._in_flight is not None:
            self._in_flight = min(self._in_flight, self.last_index)
        self.configurations.truncate(from_index)

    def compact(self, to_index: int) -> None:
        """Trim the entries up to and with `to_index`, which becomes the base. The state machine's state up to there
        must be durable."""
        assert self._base.index < to_index <= min(self._synced, self.last_index), "only durable entries are trimmed"
        base = position(self.entry(to_index))
        self.configurations.compact(to_index)
        for index in range(self._base.index + 1, to_index + 1):
            self._forget(index)
        self._trimmed_bytes = self._ends[to_index - self._base.index - 1]
        del self._entries[: to_index - self._base.index]
        del self._ends[: to_index - self._base.index]
        self._base = base
        self._puts[_CONFIGURATION] = msgspec.msgpack.encode(self.configurations.at(to_index))
        self._meta_changed = True

    def _forget(self, index: int) -> None:
        key = _key(index)
        self._puts.pop(key, None)
        self._deletes[key] = None

    # What this disk has lived through (DESIGN.md, "A disk that was replaced")

    @property
    def vouched(self) -> bool:
        """Whether the log is known to hold all that a disk of this member ever promised. A new log is not."""
        return self._vouched

    def vouch(self) -> None:
        """From here on the log holds all that a disk of this member ever promised."""
        if not self._vouched:
            self._vouched = self._meta_changed = True

    @property
    def founded(self) -> bool:
        """Whether this disk knows that the cluster has committed something since its foundation."""
        return self._founded

    def note_founded(self) -> None:
        """The cluster has committed something."""
        if not self._founded:
            self._founded = self._meta_changed = True

    # A snapshot takes the place of state and log, which are two stores: `announce_restart` (synced) comes before the
    # state is exchanged and `restart` after it, so that a start in between knows which of the two it finds.

    @property
    def announced(self) -> Restart | None:
        """The restart that was announced and neither done nor given up."""
        return self._restart

    def announce_restart(self, restart: Restart) -> None:
        """The state is about to be exchanged. In effect after the next sync."""
        self._restart = restart
        self._deletes.pop(_RESTART, None)
        self._puts[_RESTART] = msgspec.msgpack.encode(restart)

    def give_up_restart(self) -> None:
        """The state was not exchanged."""
        self._restart = None
        self._puts.pop(_RESTART, None)
        self._deletes[_RESTART] = None

    def restart(self) -> None:
        """The state was exchanged: the log begins anew, as announced. What it held is gone."""
        restart = self._restart
        assert restart is not None, "a restart is announced first"
        assert self._in_flight is None, "no sync is under way"
        for entry in self._entries:
            self._forget(entry.index)
        self._entries.clear()
        self._ends.clear()
        self._base = restart.at
        self._synced = restart.at.index
        self._puts[_CONFIGURATION] = msgspec.msgpack.encode(restart.members)
        self._meta_changed = True
        self.give_up_restart()
        self.configurations.reset(restart.members)

    # Durability

    @property
    def dirty(self) -> bool:
        """Whether there is something to write."""
        return bool(self._puts or self._deletes) or self._meta_changed

    @property
    def synced(self) -> int:
        """The last index up to which the log is durable."""
        return self._synced

    @property
    def settled(self) -> bool:
        """Whether term and vote are durable."""
        return not (self._meta_changed or self._meta_in_flight)

    def begin_sync(self) -> Callable[[], None]:
        """Write everything collected as one batch; returns the job that makes it durable. One sync at a time."""
        assert self._in_flight is None, "one sync at a time"
        meta = _Meta(
            FORMAT, self._term, self._vote, self._base, self.last_index, self._vouched, self._founded
        )  # fmt: skip
        self._puts[_META] = msgspec.msgpack.encode(meta)
        self._store.write(list(self._puts.items()), list(self._deletes))
        self._puts, self._deletes = {}, {}
        self._meta_in_flight, self._meta_changed = self._meta_changed, False
        self._in_flight = self.last_index
        return self._store.sync

    def end_sync(self) -> None:
        """The job has ended well."""
        assert self._in_flight is not None, "a sync was begun"
        self._synced, self._in_flight = self._in_flight, None
        self._meta_in_flight = False

    def sync(self) -> None:
        """Begin, run and end a sync here and now."""
        self.begin_sync()()
        self.end_sync()

    # pysyncobj's interface: commands are (kind byte + payload, index, term), position 0 is the base

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append a command of this node's own term, as pysyncobj does on becoming leader."""
        assert idx == self.last_index + 1, "entries are appended in order"
        kind = Kind(command[0])
        self.append(follow(self.last, term=term, cluster_time_ms=self.stamp(), kind=kind, payload=command[1:]))

    def __len__(self) -> int:
        return len(self._entries) + 1

    def __getitem__(self, item: int) -> tuple[bytes, int, int]:
        entries: Sequence[Entry | Position] = (self._base, *self._entries) if item not in (0, -1) else ()
        chosen = entries[item] if entries else (self.last if item == -1 else self._base)
        if isinstance(chosen, Entry):
            return bytes([chosen.kind]) + chosen.payload, chosen.index, chosen.term
        return bytes([Kind.NOOP]), chosen.index, chosen.term

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N802, N803
        """Adopt a term and a vote; durable after the next sync."""
        assert term > self._term or (term == self._term and self._vote in (None, votedForNodeId)), "one vote a term"
        self._term, self._vote = term, votedForNodeId
        self._meta_changed = True

    def getCurrentTerm(self) -> int:  # noqa: N802
        """The current term."""
        return self._term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802
        """The node voted for in the current term."""
        return self._vote

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N802, N803
        """Nothing: what is committed is known from the state machine, which never applies more."""

    def getRaftCommitIndex(self) -> int:  # noqa: N802
        """What is known to be committed before the state machine is asked."""
        return self._base.index

    def clear(self) -> None:
        """Refused: pysyncobj wipes the log with this when it loads a dump."""
        raise AssertionError("the log is never cleared")

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803
        """Truncate, by position."""
        self.truncate(self._base.index + entryFrom)

    def deleteEntriesTo(self, entryTo: int) -> None:  # noqa: N802, N803
        """Trim, by position."""
        self.compact(self._base.index + entryTo)

    def _destroy(self) -> None:
        """Nothing: the store belongs to the caller."""
