"""The end of a simulated life: what clients were told, the log that the nodes agreed on, and the nodes' states are one
story.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from support.linearizability import Kind, Operation, Undecided, linearizable
from support.sim_checks import Applied as AppliedLog
from support.sim_checks import Violation
from support.sim_clients import KEYS, REGISTERS, Clients, Write

from holdfast.cluster.raft.consensus import Applied, Conflicted, Duplicate, Outcome
from holdfast.cluster.raft.entries import Kind as EntryKind
from holdfast.cluster.raft.entries import split_batches
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.storage.batch import Batch


@dataclass(frozen=True)
class Effect:
    """Where a request took effect: the entry, its place in it, and what it stored."""

    index: int
    place: int
    stored: bytes | None


class Model:
    """The second version of the state machine, as simple as it can be."""

    def __init__(self) -> None:
        self.records: dict[bytes, tuple[int, bytes]] = {}
        self.effects: dict[bytes, Effect] = {}

    def replay(self, applied: AppliedLog) -> None:
        """Everything that was applied, held against the outcomes there were."""
        if sorted(applied) != list(range(1, len(applied) + 1)):
            raise Violation("the applied history has a hole")
        for index in sorted(applied):
            entry, outcomes = applied[index]
            batches = split_batches(entry.payload) if entry.kind is EntryKind.BATCHES else ()
            for place, (batch, outcome) in enumerate(zip(batches, outcomes, strict=True)):
                if self._outcome(batch, index, place) != outcome:
                    raise Violation(f"the model disagrees with an outcome at {index}")

    def _outcome(self, batch: Batch, index: int, place: int) -> Outcome:
        request = batch.request
        assert request is not None
        if request.key in self.effects:
            return Duplicate(request.response)
        for precondition in batch.preconditions:
            if self.records.get(precondition.key, (0, b""))[0] != precondition.revision:
                return Conflicted(precondition.key)
        for change in batch.puts:
            self.records[change.key] = (index, change.value)
        for key in batch.deletes:
            self.records.pop(key, None)
        self.effects[request.key] = Effect(index, place, batch.puts[0].value if batch.puts else None)
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
        operations = [*clients.seen[register], *_writes(clients.writes, register, model.effects)]
        operations.append(Operation(Kind.READ, now_s, now_s, seen=model.value(register)))
        try:
            explained = linearizable(operations)
        except Undecided as error:
            raise Violation(f"whether {register!r} is linearizable was not found out: {error}") from error
        if not explained:
            raise Violation(f"what was seen of {register!r} is not linearizable: {_told(operations)}")


def _check_write(write: Write, effects: Mapping[bytes, Effect]) -> None:
    effect = effects.get(write.request)
    if write.acknowledged is not None and effect is None:
        raise Violation(f"acknowledged write {write.request!r} was lost")
    if isinstance(write.acknowledged, Applied) and effect is not None and effect.index != write.acknowledged.revision:
        raise Violation(f"{write.request!r} took effect at another revision than was said")


def _writes(writes: Iterable[Write], register: bytes, effects: Mapping[bytes, Effect]) -> list[Operation]:
    """The writes that took effect. Those that did not cannot have been seen."""
    made: list[Operation] = []
    for write in writes:
        effect = effects.get(write.request)
        if write.register == register and effect is not None:
            seen = next(attempt.seen for attempt in write.attempts if attempt.stored == effect.stored)
            hint = effect.index + effect.place / 1000
            made.append(Operation(write.kind, write.called_s, write.returned_s, seen, effect.stored, hint))
    return made


def _told(operations: Iterable[Operation]) -> str:
    lines = [
        f"{o.called_s:.4f} to {'-' if o.returned_s == math.inf else f'{o.returned_s:.4f}'}: "
        f"{o.kind.value} seen={o.seen!r} stored={o.stored!r}"
        for o in sorted(operations, key=lambda o: o.called_s)
    ]
    return "\n".join(["", *lines])
