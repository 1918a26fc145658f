"""Clients of a simulated world: they write, update and read registers, send again what got no answer under the same
request id, and remember what they were told. `history` says what all of it amounts to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from support.linearizability import Kind, Operation
from support.raft_world import Queue, World
from support.sim_checks import Violation
from support.sim_front import Found, Front, unless_fatal

from holdfast.cluster.raft.consensus import Applied, Conflicted, Duplicate, Outcome, Role
from holdfast.proto.errors import HoldfastError, OutcomeUnknown
from holdfast.storage.batch import Batch, Precondition, Put, RequestRecord

REGISTERS = {b"k0": (b"k0",), b"k1": (b"k1",), b"both": (b"both-0", b"both-1")}
"""By register, the keys that hold it. One with two keys is written in one batch, and must never be seen torn."""

KEYS = tuple(key for keys in REGISTERS.values() for key in keys)
ATTEMPTS_MAX = 6


@dataclass
class Attempt:
    """One evaluation of a write: what it saw, and what it would store."""

    seen: bytes | None
    stored: bytes | None


@dataclass
class Write:
    """A client's write. attempts: by the value stored, which no two have in common (a deletion stores None).
    acknowledged: the outcome that the client was told, once."""

    request: bytes
    register: bytes
    kind: Kind
    called_s: float
    returned_s: float = math.inf
    attempts: list[Attempt] = field(default_factory=list)
    sendings: int = 0
    acknowledged: Applied | Duplicate | None = None
    given_up: bool = False


class Clients:
    """All clients of a world. fronts: of the processes that are alive. told: the highest index of which anyone was told
    anything, which no later read may fall short of."""

    def __init__(self, world: World, fronts: dict[str, Front]) -> None:
        self._world = world
        self._random = world.random
        self._fronts = fronts
        self.active = False
        self.writes: list[Write] = []
        self.seen: dict[bytes, list[Operation]] = {register: [] for register in REGISTERS}
        self.reads = 0
        self.told = 0

    def begin(self) -> None:
        """Requests come from now on, until `active` is taken away."""
        self.active = True
        self._next()

    def _next(self) -> None:
        if self.active:
            draw = self._random.random()
            if draw < 0.4:
                self.read()
            elif draw < 0.5:
                self._read_stale()
            else:
                self.write()
            self._world.after(self._random.expovariate(1 / 0.014), self._next)

    def _at(self, node_id: str, step: Callable[[Front], None], otherwise: Callable[[HoldfastError], None]) -> bool:
        """Put a request to a node. False when nobody is there."""
        front = self._fronts.get(node_id)
        if front is None or not front.process.alive:
            return False
        self._world.guard(front.process, lambda: unless_fatal(lambda: step(front), otherwise), Queue.CLIENTS)
        return True

    # Writes

    def write(self, register: bytes | None = None, *, kind: Kind | None = None) -> Write:
        """A new write."""
        chosen = kind or (Kind.UPDATE if self._random.random() < 0.4 else Kind.WRITE)
        where = register or self._random.choice(list(REGISTERS))
        write = Write(b"request-%d" % len(self.writes), where, chosen, self._world.now_s)
        self.writes.append(write)
        self._send(write)
        return write

    def _leader(self) -> str:
        """A node that believes that it leads, or, now and then, any other one."""
        leaders = [p.node_id for p in self._world.processes.values() if p.machine.role is Role.LEADER]
        if not leaders or self._random.random() < 0.05:
            return self._random.choice(self._world.pool)
        return self._random.choice(leaders)

    def _send(self, write: Write) -> None:
        if write.acknowledged is not None or write.given_up:
            return
        if write.sendings >= ATTEMPTS_MAX:
            self._world.trace.count("client gave up")
            write.given_up = True
            return
        write.sendings += 1
        number = write.sendings
        if number > 1:
            self._world.trace.count("write sent again")

        def failed(error: HoldfastError) -> None:
            self._failed(write, number, error)

        if not self._at(self._leader(), lambda front: self._evaluate(front, write, number), failed):
            self._again(write, number)
        else:
            # Whatever became of it: a client that hears nothing asks another node.
            self._world.after(0.9, lambda: self._silence(write, number))

    def _evaluate(self, front: Front, write: Write, number: int) -> None:
        keys = REGISTERS[write.register]
        preconditions: tuple[Precondition, ...] = ()
        seen = None
        if write.kind is Kind.UPDATE:
            found = front.evaluate(keys)
            seen = self._whole(found, write.register)
            preconditions = tuple(Precondition(key, at[0] if (at := found[key]) else 0) for key in keys)
            stored = b"%s/%d" % (write.request, number)
        elif self._random.random() < 0.1:
            stored = None
        else:
            stored = b"%s/%d" % (write.request, number)
        write.attempts.append(Attempt(seen, stored))
        batch = Batch(
            puts=() if stored is None else tuple(Put(key, stored) for key in keys),
            deletes=keys if stored is None else (),
            preconditions=preconditions,
            request=RequestRecord(write.request, b"response to " + write.request),
        )
        front.write(batch, lambda result: self._written(write, number, result), timeout_s=0.6)

    def _written(self, write: Write, number: int, result: Outcome | HoldfastError) -> None:
        if isinstance(result, HoldfastError):
            self._failed(write, number, result)
        elif isinstance(result, Conflicted):
            if write.kind is not Kind.UPDATE:
                raise Violation("a conflict without a precondition")
            if write.acknowledged is None:
                self._world.trace.count("write conflicted")
            self._again(write, number)
        else:
            self._acknowledged(write, result)

    def _acknowledged(self, write: Write, result: Applied | Duplicate) -> None:
        if isinstance(result, Duplicate):
            self._world.trace.count("answered as a duplicate")
            if result.response != b"response to " + write.request:
                raise Violation(f"{write.request!r} was answered with {result.response!r}")
        elif (
            isinstance(write.acknowledged, Applied)
            and write.acknowledged != result
            and not self._world.checks.restored_between(write.acknowledged.revision, result.revision)
        ):
            raise Violation(f"{write.request!r} took effect twice: {write.acknowledged} and {result}")
        if write.acknowledged is not None:
            return
        self._world.trace.count("write acknowledged", "", write.request.decode())
        write.acknowledged, write.returned_s = result, self._world.now_s
        if isinstance(result, Applied):
            self.told = max(self.told, result.revision)
        if self.active and self._random.random() < 0.1:
            self._world.after(0.3 * self._random.random(), lambda: self._send_once_more(write))

    def _send_once_more(self, write: Write) -> None:
        """The answer is lost on the way to the client, so it sends again what took effect."""
        self._world.trace.count("acknowledged write sent again")
        self._at(self._leader(), lambda front: self._evaluate(front, write, ATTEMPTS_MAX + 1), lambda _error: None)

    def _failed(self, write: Write, number: int, error: HoldfastError) -> None:
        if isinstance(error, OutcomeUnknown) and write.acknowledged is None:
            self._world.trace.count("outcome unknown")
        self._again(write, number)

    def _silence(self, write: Write, number: int) -> None:
        if write.sendings == number:
            self._send(write)

    def _again(self, write: Write, number: int) -> None:
        if write.sendings == number and write.acknowledged is None:
            self._world.after(0.05 + 0.1 * number * self._random.random(), lambda: self._silence(write, number))

    # Reads

    def read(self, node_id: str | None = None, register: bytes | None = None) -> list[Operation]:
        """A linearizable read at any node. What it saw is put into the list once it is answered."""
        answer: list[Operation] = []
        where = register or self._random.choice(list(REGISTERS))
        called_s, floor = self._world.now_s, self.told
        chosen = node_id or self._random.choice(self._world.pool)

        def found(result: Found | HoldfastError, applied: int) -> None:
            if isinstance(result, HoldfastError):
                return
            if applied < floor:
                raise Violation(f"stale read at {chosen}: index {applied}, but {floor} was known")
            self.told = max(self.told, applied)
            seen = self._whole(result, where)
            self._world.trace.count("read answered", chosen, f"{where.decode()} = {seen!r}")
            self.reads += 1
            answer.append(Operation(Kind.READ, called_s, self._world.now_s, seen=seen))
            self.seen[where].extend(answer)

        self._at(chosen, lambda front: front.read(REGISTERS[where], found), lambda _error: None)
        return answer

    def _read_stale(self) -> None:
        where = self._random.choice(list(REGISTERS))
        chosen = self._random.choice(self._world.pool)

        def found(result: Found | HoldfastError, _applied: int) -> None:
            if not isinstance(result, HoldfastError):
                self._whole(result, where)
                self._world.trace.count("stale read answered", chosen)

        self._at(chosen, lambda front: front.read_stale(REGISTERS[where], found), lambda _error: None)

    @staticmethod
    def _whole(found: Found, register: bytes) -> bytes | None:
        """The one value of a register. Law 3: what is written together is seen together."""
        records = [found[key] for key in REGISTERS[register]]
        if any(record != records[0] for record in records):
            raise Violation(f"{register!r} was seen torn: {records}")
        return None if records[0] is None else records[0][1]
