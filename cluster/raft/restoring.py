"""Restoring: the log entry that replaces the state, and how a node carries it out (DESIGN.md, "Restoring").

The entry names content by its SHA-256. The content itself is prepared beside the state, as a store, before it is
needed; a node that comes to the entry without it says so and waits. What it then does depends on the entry, the content
and the state before it alone, so that it is the same on every node (law 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

import msgspec

from holdfast.cluster.raft.changes import OnChangeDone
from holdfast.cluster.raft.entries import Entry, Kind
from holdfast.cluster.raft.statedigest import Content
from holdfast.cluster.raft.statemachine import DATA, RESTORED_SUM, StateMachine, take_over
from holdfast.proto.errors import Conflict, Corruption, Fatal, HoldfastError
from holdfast.storage.batch import Precondition
from holdfast.storage.decoding import MALFORMED
from holdfast.storage.home import Reception, StateHome
from holdfast.storage.keys import CLEAR_NAMES_END, CLEAR_NAMES_START, KeyClass
from holdfast.storage.store import Store

FORMAT = 1
WRITTEN_PER_BATCH = 256


class Restoration(msgspec.Struct, frozen=True, array_like=True):
    """What a RESTORE entry says. sha256: of the snapshot file. replace_keys: whether the records that a sealed node
    needs, the seal and the keyring, come from the file; else the present ones stay. preconditions: as of a batch; where
    one does not hold, nothing is restored.
    """

    sha256: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    replace_keys: bool
    preconditions: tuple[Precondition, ...] = ()
    format: int = FORMAT

    def allowed(self, machine: StateMachine) -> bool:
        """Whether the preconditions hold in the state before the entry."""
        return all(machine.revision(needed.key) == needed.revision for needed in self.preconditions)


def encode(restoration: Restoration) -> bytes:
    """The payload of a RESTORE entry."""
    return msgspec.msgpack.encode(restoration)


def decode(entry: Entry) -> Restoration:
    """What a RESTORE entry says. Raises Fatal."""
    try:
        restoration = msgspec.msgpack.decode(entry.payload, type=Restoration)
    except MALFORMED as error:
        raise Fatal(f"committed entry {entry.index} does not decode; the node must not carry on") from error
    if restoration.format != FORMAT:
        raise Fatal(f"committed entry {entry.index} has format {restoration.format}; run the version that knows it")
    return restoration


def before_restore(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The entries up to the first RESTORE."""
    for position, entry in enumerate(entries):
        if entry.kind is Kind.RESTORE:
            return entries[:position]
    return entries


def fill(store: Store, records: Iterable[tuple[bytes, bytes]]) -> Iterable[int]:
    """Put a file's records into a staged store, a batch at a time; yields how many bytes each batch held. Synced when
    it is exhausted. The sum over those that no restore leaves out is kept with them, so that nobody has to read them
    again while the state is being exchanged."""
    batch: list[tuple[bytes, bytes]] = []
    size = 0
    total = Content()
    for key, value in records:
        batch.append((DATA + key, bytes(8) + value))
        if not CLEAR_NAMES_START <= key < CLEAR_NAMES_END:
            total.replace(key, None, bytes(8) + value)
        size += len(key) + len(value)
        if len(batch) >= WRITTEN_PER_BATCH or size >= 256 * 1024:
            store.write(batch)
            yield size
            batch, size = [], 0
    store.write([*batch, (RESTORED_SUM, total.encoded())])
    if batch:
        yield size
    store.sync()


class Restores:
    """One node's prepared content and the entry that waits for it. want: told the SHA-256 of content that is needed."""

    def __init__(self, want: Callable[[bytes], None]) -> None:
        self._want = want
        self._prepared: tuple[bytes, Reception] | None = None
        self._wanted = b""
        self._waiting: dict[int, OnChangeDone] = {}
        self._index = 0

    @property
    def wanted(self) -> bytes:
        """The SHA-256 of the content that an entry waits for; empty when none does."""
        return self._wanted

    def has(self, sha256: bytes) -> bool:
        """Whether this content is prepared."""
        return self._prepared is not None and self._prepared[0] == sha256

    def drop(self) -> Reception | None:
        """Give the prepared content up, to be discarded by the caller."""
        prepared, self._prepared = self._prepared, None
        return None if prepared is None else prepared[1]

    def prepare(self, sha256: bytes, content: Reception) -> None:
        """Content is ready beside the state: filled, synced and closed."""
        self._prepared = sha256, content

    def content(self, restoration: Restoration) -> Reception | None:
        """The prepared content of an entry; None, and `want` is told once, when it is not here."""
        if self._prepared is not None and self._prepared[0] == restoration.sha256:
            return self._prepared[1]
        if self._wanted != restoration.sha256:
            self._wanted = restoration.sha256
            self._want(restoration.sha256)
        return None

    def passed(self) -> None:
        """The state is another one: no entry waits for content."""
        self._wanted = b""

    # At the leader

    def appended(self, index: int, on_done: OnChangeDone) -> None:
        """This node, which leads, has appended a restore."""
        self._index = index
        self._waiting[index] = on_done

    def holds_proposals(self, applied: int) -> bool:
        """Whether what is queued was evaluated on a state that is about to go."""
        return self._index > applied

    def refused(self, index: int) -> None:
        """The restore at `index` changed nothing, because a precondition did not hold."""
        on_done = self._waiting.pop(index, None)
        if on_done is not None:
            on_done(Conflict("the keys changed while the restore was prepared; nothing was restored: try again"))

    def done(self, index: int) -> None:
        """The restore at `index` was applied, and the prepared content is the state."""
        self._prepared = None
        on_done = self._waiting.pop(index, None)
        if on_done is not None:
            on_done(index)

    def fail(self, error: Callable[[], HoldfastError]) -> None:
        """This node leads no more, or stops: nobody is told more than that."""
        self._index = 0
        waiting, self._waiting = self._waiting, {}
        for on_done in waiting.values():
            on_done(error())


def exchange(content: Reception, *, machine: StateMachine, home: StateHome, entry: Entry) -> list[bytes]:
    """Carry a RESTORE entry out with its content. Returns the cluster's keys, of the state before and after."""
    changed = set(machine.keys(KeyClass.CLUSTER.value))
    _complete(content, machine, entry, decode(entry))
    home.install(content)
    machine.adopt(home.store)
    assert machine.applied.index == entry.index, "the content was completed for this entry"
    changed.update(machine.keys(KeyClass.CLUSTER.value))
    return sorted(changed)


def _complete(content: Reception, machine: StateMachine, entry: Entry, restoration: Restoration) -> None:
    """Make prepared content the state after `entry`, short of putting it in place. May be done again after a crash."""
    store = content.open()
    try:
        if not restoration.replace_keys:
            # Also where the file has such records and the present state does not.
            store.delete_range(DATA + CLEAR_NAMES_START, DATA + CLEAR_NAMES_END)
            kept = list(machine.store.scan(DATA + CLEAR_NAMES_START, DATA + CLEAR_NAMES_END))
            if kept:
                store.write(kept)
        total = Content(_sum_of(store))
        clear = store.scan(DATA + CLEAR_NAMES_START, DATA + CLEAR_NAMES_END)
        total.add_all((key[len(DATA) :], stored) for key, stored in clear)
        take_over(
            store, machine, entry, keys_replaced=restoration.replace_keys, sha256=restoration.sha256,
            content=total.encoded(),
        )  # fmt: skip
        store.sync()
    finally:
        store.close()


def _sum_of(store: Store) -> bytes:
    total = store.get(RESTORED_SUM)
    if total is None:
        raise Corruption("the content that was prepared for a restore is not complete; start the node again")
    return total
