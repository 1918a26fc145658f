"""A snapshot takes the place of the state, and the log begins anew at it. State and log are two stores: what a crash
between any two steps leaves behind is what `reconcile` understands. DESIGN.md, "Snapshots", says why this is safe."""

from __future__ import annotations

from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.receiving import Receiving
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.proto.errors import Corruption
from holdfast.storage.home import StateHome
from holdfast.storage.keys import KeyClass


def reconcile(journal: Journal, machine: StateMachine) -> int:
    """At start: how far the state has applied. It may be behind the log (its writes are not synced) but must be a
    point on it. An install that was cut short is finished where the state has been exchanged, and forgotten where it
    has not. Raises Corruption."""
    applied = machine.applied
    if journal.announced is not None:
        if applied == journal.announced.at:
            journal.restart()
        else:
            journal.give_up_restart()
        journal.sync()
    at = journal.at(applied.index)
    if at is None or (at.term, at.digest) != (applied.term, applied.digest):
        raise Corruption(
            f"the state stands at index {applied.index} (term {applied.term}), which is not on the log "
            f"({journal.base.index} to {journal.last_index}): files of different nodes or times were mixed; "
            "rebuild this node from its peers"
        )
    return applied.index


def install(ready: Receiving, *, journal: Journal, machine: StateMachine, home: StateHome) -> list[bytes]:
    """Exchange the state and begin the log anew. Nobody else may use either. Returns the keys of the keyed side's own
    records (class CLUSTER), before and after: it reads them again, as after any change of them."""
    at = ready.restart.at
    changed = set(machine.keys(KeyClass.CLUSTER.value))
    journal.announce_restart(ready.restart)
    journal.sync()
    home.install(ready.reception)
    machine.adopt(home.store)
    assert machine.applied == at, "the snapshot was looked into when it had come"
    journal.restart()
    journal.sync()
    changed.update(machine.keys(KeyClass.CLUSTER.value))
    return sorted(changed)
