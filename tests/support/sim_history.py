"""The end of a simulated life: what clients were told, the log that the nodes agreed on, and the nodes' states are one
story.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from support.linearizability import Kind, Operation, Undecided, linearizable
from support.sim_checks import Applied as AppliedLog
from support.sim_checks import Violation
from support.sim_clients import KEYS, REGISTERS, Clients, Write
from support.sim_faults import Restore

from holdfast.cluster.raft.consensus import Applied, Conflicted, Duplicate, Outcome
from holdfast.cluster.raft.entries import Kind as EntryKind
from holdfast.cluster.raft.entries import split_batches
from holdfast.cluster.raft.restoring import decode
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.storage.batch import Batch


@dataclass(frozen=True)
class Effect:
    """Where a request took effect: the entry, its place in it, and what it stored."""

    index: int
    place: int
    stored: bytes | None


class Model:
    """The second version of the state machine, as simple as it can be.

    restores: by the SHA-256 of its file. effects: by request, in the order of the log; more than one where a restore
    came in between, with which the earlier one is forgotten.
    """

    def __init__(self, restores: Iterable[Restore]) -> None:
        self.restores = {restore.sha256: restore for restore in restores}
        self.restored: dict[bytes, int] = {}
        self.records: dict[bytes, tuple[int, bytes]] = {}
        self.effects: dict[bytes, list[Effect]] = {}
        self._remembered: set[bytes] = set()

    def replay(self, applied: AppliedLog) -> None:
        """Everything that was applied, held against the outcomes there were."""
        if sorted(applied) != list(range(1, len(applied) + 1)):
            raise Violation("the applied history has a hole")
        for index in sorted(applied):
            entry, outcomes = applied[index]
            if entry.kind is EntryKind.RESTORE:
                self._restore(index, decode(entry).sha256)
            batches = split_batches(entry.payload) if entry.kind is EntryKind.BATCHES else ()
            for place, (batch, outcome) in enumerate(zip(batches, outcomes, strict=True)):
                if self._outcome(batch, index, place) != outcome:
                    raise Violation(f"the model disagrees with an outcome at {index}")

    def _restore(self, index: int, sha256: bytes) -> None:
        self.restored[sha256] = index
        self.records = {key: (index, value) for key, value in self.restores[sha256].records.items()}
        self._remembered.clear()

    def _outcome(self, batch: Batch, index: int, place: int) -> Outcome:
        request = batch.request
        assert request is not None
        if request.key in self._remembered:
            return Duplicate(request.response)
        for precondition in batch.preconditions:
            if self.records.get(precondition.key, (0, b""))[0] != precondition.revision:
                return Conflicted(precondition.key)
        for change in batch.puts:
            self.records[change.key] = (index, change.value)
        for key in batch.deletes:
            self.records.pop(key, None)
        self._remembered.add(request.key)
        effect = Effect(index, place, batch.puts[0].value if batch.puts else None)
        self.effects.setdefault(request.key, []).append(effect)
        return Applied(index)

    def check_state(self, node_id: str, machine: StateMachine) -> None:
        """A node holds what the model holds."""
        for key in KEYS:
            record = machine.get(key)
            if (None if record is None else (record.revision, record.value)) != self.records.get(key):
                raise Violation(f"{node_id} holds something else under {key!r} than the model")

    def value(self, register: bytes) -> bytes | None:
        """What a register holds in the end."""
        record = self.records.get(REGISTERS[register][0])
        return None if record is None else record[1]


def check_clients(clients: Clients, model: Model, now_s: float) -> None:
    """What was acknowledged is there, once; and everything that clients saw is linearizable."""
    for write in clients.writes:
        _check_write(write, model.effects)
    for register in REGISTERS:
        operations = [
            *clients.seen[register],
            *_writes(clients.writes, register, model.effects),
            *_restores(register, model),
            Operation(Kind.READ, now_s, now_s, seen=model.value(register)),
        ]
        try:
            explained = linearizable(operations)
        except Undecided as error:
            raise Violation(f"whether {register!r} is linearizable was not found out: {error}") from error
        if not explained:
            raise Violation(f"what was seen of {register!r} is not linearizable: {_told(operations)}")


def _check_write(write: Write, effects: Mapping[bytes, Sequence[Effect]]) -> None:
    indexes = [effect.index for effect in effects.get(write.request, ())]
    if write.acknowledged is not None and not indexes:
        raise Violation(f"acknowledged write {write.request!r} was lost")
    if isinstance(write.acknowledged, Applied) and write.acknowledged.revision not in indexes:
        raise Violation(f"{write.request!r} took effect at another revision than was said")


def _writes(writes: Iterable[Write], register: bytes, effects: Mapping[bytes, Sequence[Effect]]) -> list[Operation]:
    """The writes that took effect. Those that did not cannot have been seen."""
    made: list[Operation] = []
    for write in writes:
        if write.register == register:
            for number, effect in enumerate(effects.get(write.request, ())):
                made.append(_write(write, effect, first=number == 0))
    return made


def _write(write: Write, effect: Effect, *, first: bool) -> Operation:
    """One effect of a write. The client was told of it if it was told of this one or of a later one."""
    told = write.acknowledged
    until = told.revision if isinstance(told, Applied) else math.inf
    returned_s = write.returned_s if first or effect.index <= until < math.inf else math.inf
    seen = next(attempt.seen for attempt in write.attempts if attempt.stored == effect.stored)
    hint = effect.index + effect.place / 1000
    return Operation(write.kind, write.called_s, returned_s, seen, effect.stored, hint)


def _restores(register: bytes, model: Model) -> list[Operation]:
    """Restores write every register."""
    return [
        Operation(
            Kind.WRITE, restore.called_s, restore.returned_s, None, restore.records.get(REGISTERS[register][0]), index
        )
        for restore in model.restores.values()
        if (index := model.restored.get(restore.sha256)) is not None
    ]


def _told(operations: Iterable[Operation]) -> str:
    lines = [
        f"{o.called_s:.4f} to {'-' if o.returned_s == math.inf else f'{o.returned_s:.4f}'}: "
        f"{o.kind.value} seen={o.seen!r} stored={o.stored!r}"
        for o in sorted(operations, key=lambda o: o.called_s)
    ]
    return "\n".join(["", *lines])
