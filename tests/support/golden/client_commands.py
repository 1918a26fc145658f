"""Commands of those who use the cluster: writes, reads, membership changes, transfers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from support.golden.base import Commands, ScriptError, options
from support.golden.promises import Violation
from support.raft_rig import member, put

from holdfast.cluster.raft.admission import admit
from holdfast.cluster.raft.consensus import Applied, Conflicted, Duplicate, Outcome
from holdfast.proto.errors import HoldfastError


@dataclass
class Call:
    """A client's call and its outcome. floor: the highest index that was acknowledged to anyone before it was made."""

    floor: int = 0
    outcome: str = "pending"


def _said(result: Outcome | HoldfastError) -> str:
    if isinstance(result, Applied):
        return f"applied at {result.revision}"
    if isinstance(result, Conflicted):
        return f"conflict on {result.key.decode()}"
    if isinstance(result, Duplicate):
        return "duplicate"
    return type(result).__name__


class ClientCommands(Commands):
    """See the module. acknowledged: the highest index that anyone was told of."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, Call] = {}
        self.acknowledged = 0

    def _new_call(self, kind: str) -> tuple[str, Call]:
        name = f"{kind}{sum(known[0] == kind for known in self.calls) + 1}"
        call = self.calls[name] = Call(self.acknowledged)
        return name, call

    def propose(self, words: list[str]) -> None:
        """`propose a k=v`, with `rev=3` as a precondition and `id=q` as the request's id; `garbage` for what no state
        machine can read. `quietly`: messages are not shown."""
        self.stage.quiet = "quietly" in words
        actor = self._actor(words[0])
        _, fields = options(words[1:])
        revision, request = fields.pop("rev", None), fields.pop("id", None)
        if "garbage" in words:
            encoded = b"\xc1"
        else:
            ((key, value),) = fields.items()
            batch = put(
                key.encode(), value.encode(), revision=None if revision is None else int(revision),
                request=None if request is None else request.encode(),
            )  # fmt: skip
            encoded = admit(batch)
        name, call = self._new_call("w")
        self.stage.act(actor, lambda: self._asking(name, call, lambda done: actor.machine.propose(encoded, done)))

    def _asking(self, name: str, call: Call, ask: Callable[[Callable[[Any], None]], object]) -> None:
        def done(result: Outcome | HoldfastError | int) -> None:
            if call.outcome != "pending":
                raise Violation(f"{name} was answered twice")
            call.outcome = f"index {result}" if isinstance(result, int) else _said(result)
            if isinstance(result, Applied):
                self.acknowledged = max(self.acknowledged, result.revision)
            self.stage.say(f"{name}: {call.outcome}")

        try:
            ask(done)
        except HoldfastError as error:
            done(error)

    def read(self, words: list[str]) -> None:
        """A linearizable read at a node: answered when the node's own state holds all that was acknowledged before."""
        actor = self._actor(words[0])
        name, call = self._new_call("r")

        def ask(done: Callable[[Any], None]) -> None:
            def checked(result: int | HoldfastError) -> None:
                if isinstance(result, int) and actor.machine.applied < call.floor:
                    raise Violation(f"stale read {name} at {actor.node_id}: {call.floor} was acknowledged before")
                done(result)

            actor.machine.read(checked)

        self.stage.act(actor, lambda: self._asking(name, call, ask))

    def _change(self, node_id: str, change: Callable[[Any], Any]) -> None:
        actor = self._actor(node_id)
        name, call = self._new_call("m")
        self.stage.act(actor, lambda: self._asking(name, call, lambda done: actor.machine.change_members(change, done)))

    def add(self, words: list[str]) -> None:
        """`add a d`: ask a to add d, a voter once it has caught up; `learner`: never a voter."""
        node_id, added = words[:2]
        self._change(node_id, lambda now: now.with_learner(member(added, voter="learner" not in words)))

    def remove(self, words: list[str]) -> None:
        node_id, gone = words
        self._change(node_id, lambda now: now.without(gone))

    def transfer(self, words: list[str]) -> None:
        actor = self._actor(words[0])
        leadership = actor.machine.leadership
        if leadership is None or words[1] not in leadership.successors():
            raise ScriptError(f"{words[1]} is no successor")
        self.stage.act(actor, lambda: actor.machine.transfer(words[1]))

    def eligible(self, words: list[str]) -> None:
        actor = self._actor(words[0])
        self.stage.act(actor, lambda: actor.machine.set_eligible(eligible=words[1] == "yes"))
