"""A node's front in a simulated world: its keys, the product's quorum guard over them, and the way of a request through
both, as `core` goes it. The keys are a flag; what is tested is when they go and what is answered meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from support.raft_world import Process, Queue, World
from support.sim_checks import Violation

from holdfast.cluster.raft.admission import admit
from holdfast.cluster.raft.consensus import ConsensusStatus, Outcome
from holdfast.cluster.raft.status import status_of
from holdfast.cluster.seal.quorum_guard import QuorumGuard
from holdfast.proto.errors import Fatal, HoldfastError, NotLeader, Sealed
from holdfast.storage.batch import Batch

GRACE_S = 0.8
"""How long contact with a quorum may be lost, by the node's own clock."""

_SLACK_S = 0.1

Found = dict[bytes, tuple[int, bytes] | None]
"""By key, the revision and the value of a record."""

OnFound = Callable[[Found | HoldfastError, int], None]
"""Told the records, and the index up to which the node had applied."""

OnWritten = Callable[[Outcome | HoldfastError], None]
"""Told the outcome."""


@dataclass(frozen=True)
class _Changed:
    sealed: bool


class Keys:
    """A node's keys, as far as the guard sees them: held or not."""

    def __init__(self, on_change: Callable[[bool, str], None]) -> None:
        self._told = on_change
        self._listeners: list[Callable[[_Changed], None]] = []
        self.sealed = True

    def on_change(self, callback: Callable[[_Changed], None]) -> Callable[[], None]:
        """See SealManager."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    def seal(self, reason: str) -> None:
        """See SealManager."""
        self._turn(sealed=True, reason=reason)

    def open(self) -> None:
        """The keys are here."""
        self._turn(sealed=False, reason="")

    def _turn(self, *, sealed: bool, reason: str) -> None:
        if self.sealed is not sealed:
            self.sealed = sealed
            self._told(sealed, reason)
            for listener in list(self._listeners):
                listener(_Changed(sealed))


class _Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Front:
    """One process's front. Its methods are steps of the process: call them inside `World.guard`."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self.process = process
        self.keys = Keys(self._turned)
        process.machine.set_eligible(eligible=False)
        self.guard = QuorumGuard(
            self.keys,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            enabled=True,
            grace_s=GRACE_S,
            clock=process.clock,
            on_sealed=lambda: None,
            call_later=self._call_later,
        )
        self.guard.start()

    # What the guard is given

    def status(self) -> ConsensusStatus:
        """See Consensus. What it says of its quorum is held against what it can know."""
        status = status_of(self.process.machine, self.process.clock())
        world = self._world
        age_s = status.quorum_contact_age_s / (1.0 - world.clock_spread)
        bound_s = world.checks.quorum_bound_s(self.process, world.now_s)
        if world.now_s - age_s > bound_s + self._patience_s:
            raise Violation(
                f"{self.process.node_id} claims contact with a quorum {age_s:.3f} s ago; "
                f"it can know of none since {world.now_s - bound_s:.3f} s"
            )
        return status

    @property
    def _patience_s(self) -> float:
        """What a stop shorter than the quorum timeout can hide from a follower (DESIGN.md, "Pauses")."""
        return self._world.timing.quorum_timeout_s / (1.0 - self._world.clock_spread) + _SLACK_S

    def _call_later(self, delay_s: float, callback: Callable[[], None]) -> _Timer:
        timer = _Timer()
        self._world.after(
            delay_s / self.process.clock.rate,
            lambda: self._world.guard(self.process, lambda: None if timer.cancelled else callback(), Queue.TIMERS),
        )
        return timer

    def _turned(self, sealed: bool, reason: str) -> None:
        self.process.machine.set_eligible(eligible=not sealed)
        if not sealed:
            what = "unsealed"
        elif "stood still" in reason:
            what = "sealed: stood still"
        else:
            what = "sealed: quorum lost" if "quorum" in reason else "sealed by an operator"
        self._world.trace.count(what, self.process.node_id)

    # Requests

    def unseal(self) -> None:
        """Whoever holds the keys gives them to a node that is in contact. (One that was opened without may serve
        stale reads until it has had some: see QuorumWatch.)"""
        self.guard.check()
        watch = self.guard._watch
        recent = self.process.machine.quorum_contact_age_s() <= GRACE_S / 2
        if self.keys.sealed and watch is not None and watch.armed and recent:
            self.keys.open()

    def write(self, batch: Batch, on_done: OnWritten, *, timeout_s: float) -> None:
        """Propose. Raises Sealed, NotLeader, Overloaded."""
        self._gate()
        proposal = self.process.machine.propose(admit(batch), on_done)
        self._call_later(timeout_s, proposal.abandon)

    def evaluate(self, keys: Sequence[bytes]) -> Found:
        """What a write sees that is evaluated here: this leader's own state. Raises Sealed, NotLeader."""
        self._gate()
        if not self.process.machine.ready:
            raise NotLeader("not the leader, or not ready")
        return self._found(keys)

    def read(self, keys: Sequence[bytes], on_found: OnFound) -> None:
        """A linearizable read. Raises Sealed, Overloaded."""
        self._gate()

        def reached(result: int | HoldfastError) -> None:
            if isinstance(result, HoldfastError):
                on_found(result, 0)
            else:
                self._answer(keys, on_found)

        self.process.machine.read(reached)

    def read_stale(self, keys: Sequence[bytes], on_found: OnFound) -> None:
        """A read of what is here. Raises Sealed."""
        self._answer(keys, on_found)

    def _gate(self) -> None:
        self.guard.check()
        if self.keys.sealed:
            self._world.trace.count("refused by a sealed node", self.process.node_id)
            raise Sealed("this node holds no keys")

    def _answer(self, keys: Sequence[bytes], on_found: OnFound) -> None:
        try:
            self._gate()
        except Sealed as error:
            on_found(error, 0)
            return
        world = self._world
        alone_s = world.now_s - world.checks.quorum_bound_s(self.process, world.now_s)
        if alone_s > GRACE_S / (1.0 - world.clock_spread) + self._patience_s:
            raise Violation(
                f"{self.process.node_id} answers a read {alone_s:.3f} s after it can last have had a quorum"
            )
        on_found(self._found(keys), self.process.machine.machine.applied.index)

    def _found(self, keys: Sequence[bytes]) -> Found:
        found: Found = {}
        for key in keys:
            record = self.process.machine.machine.get(key)
            found[key] = None if record is None else (record.revision, record.value)
        return found


def unless_fatal(step: Callable[[], None], otherwise: Callable[[HoldfastError], None]) -> None:
    """Run a step; what a client is to be told is handed on, what ends the process is raised."""
    try:
        step()
    except Fatal:
        raise
    except HoldfastError as error:
        otherwise(error)
