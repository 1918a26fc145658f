"""The language of the scripts: what each command does on the stage. `Scene.COMMANDS` is all of it; tests/simulation/
scripts/README.md describes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from support.golden import trace
from support.golden.facts import fact, record, summary, terms
from support.golden.promises import Violation
from support.golden.stage import Actor, Stage
from support.raft_rig import member, members, put

from holdfast.cluster.raft import membership, messages
from holdfast.cluster.raft.admission import admit
from holdfast.cluster.raft.consensus import Applied, Conflicted, Duplicate, Outcome, Role
from holdfast.cluster.raft.entries import Kind, follow, join_batches
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.messages import Message, SnapshotChunk
from holdfast.cluster.raft.sending import check_of
from holdfast.proto.errors import HoldfastError
from holdfast.storage.memory import MemoryStore
from holdfast.storage.memoryhome import MemoryHome


class ScriptError(AssertionError):
    """A command that makes no sense, or an expectation that does not hold."""


@dataclass
class Call:
    """A client's call and its outcome. floor: the highest index that was acknowledged to anyone before it was made."""

    floor: int = 0
    outcome: str = "pending"


def _options(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Plain words, and those of the form key=value."""
    plain = [word for word in words if "=" not in word]
    return plain, dict(word.split("=", 1) for word in words if "=" in word)


def _said(result: Outcome | HoldfastError) -> str:
    if isinstance(result, Applied):
        return f"applied at {result.revision}"
    if isinstance(result, Conflicted):
        return f"conflict on {result.key.decode()}"
    if isinstance(result, Duplicate):
        return "duplicate"
    return type(result).__name__


class Scene:
    """One script's run: commands in, lines of trace out."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.calls: dict[str, Call] = {}
        self.acknowledged = 0

    def run(self, command: str) -> list[str]:
        """Run a command; its output. Raises ScriptError and Violation."""
        name, *words = command.split()
        handler = self.COMMANDS.get(name)
        if handler is None:
            raise ScriptError(f"unknown command {name!r}")
        self.stage.lines = []
        self.stage.quiet = False
        try:
            handler(self, words)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ScriptError(f"{command!r} makes no sense here: {error!r}") from error
        return self.stage.lines

    def _actor(self, node_id: str) -> Actor:
        actor = self.stage.actors.get(node_id)
        if actor is None:
            raise ScriptError(f"{node_id} is not running")
        return actor

    # The cast

    def nodes(self, words: list[str]) -> None:
        self.stage.found([word for word in words if word != "fresh"], fresh="fresh" in words)

    def limits(self, words: list[str]) -> None:
        _, options = _options(words)
        self.stage.limits = replace(self.stage.limits, **{key: int(value) for key, value in options.items()})

    def timing(self, words: list[str]) -> None:
        _, options = _options(words)
        self.stage.timing = replace(self.stage.timing, **{key: float(value) for key, value in options.items()})

    def history(self, words: list[str]) -> None:
        """A disk as earlier terms left it: the founding entry, then one entry of each term. Where index and term agree,
        two such logs are the same, as Raft has it."""
        (node_id, *voters), options = _options(words)
        self.stage.prepare_disk(node_id)
        journal = Journal(self.stage.disks[node_id], initial=membership.initial(members("".join(voters))))
        for term in options["terms"].split(","):
            index = journal.last_index + 1
            payload = join_batches([admit(put(b"k%d" % index, b"of-term-%d" % int(term)))])
            journal.append(follow(journal.last, term=int(term), cluster_time_ms=0, kind=Kind.BATCHES, payload=payload))
        journal.setCurrentTerm(int(options.get("term", journal.last.term)), options.get("vote"))
        journal.vouch()
        journal.note_founded()
        journal.sync()

    def start(self, words: list[str]) -> None:
        for node_id in words:
            if node_id in self.stage.actors:
                raise ScriptError(f"{node_id} is running")
            self.stage.start(node_id)
            self.stage.say(f"{node_id}: {summary(self._actor(node_id).machine)}")

    def crash(self, words: list[str]) -> None:
        node_ids, options = _options(words)
        kept = {"none": (0, 0), "all": (10**6, 10**6), "log": (10**6, 0), "state": (0, 10**6)}[
            options.get("keeps", "none")
        ]
        for node_id in node_ids:
            self._actor(node_id)
            self.stage.crash(node_id, journal_kept=kept[0], state_kept=kept[1])

    def wipe(self, words: list[str]) -> None:
        for node_id in words:
            if node_id in self.stage.actors:
                raise ScriptError(f"{node_id} is running")
            self.stage.disks[node_id], self.stage.homes[node_id] = MemoryStore(), MemoryHome()

    def pause(self, words: list[str]) -> None:
        for node_id in words:
            self._actor(node_id).paused = True

    def resume(self, words: list[str]) -> None:
        for node_id in words:
            self._actor(node_id).paused = False

    # Time

    def campaign(self, words: list[str]) -> None:
        for node_id in words:
            actor = self._actor(node_id)
            actor.machine.election_deadline_s = self.stage.now_s
            self.stage.act(actor, actor.machine.doTick)

    def elect(self, words: list[str]) -> None:
        """a campaigns, everything is delivered, and only how it ended is shown."""
        self.campaign(words)
        self.stage.settle()
        self.stage.lines = []
        self.status(words)
        self._must(self._actor(words[0]).machine.role is Role.LEADER, f"{words[0]} was not elected")

    def patience(self, words: list[str]) -> None:
        actor = self._actor(words[0])
        actor.dice.share = float(words[1])
        actor.machine._put_off_election(self.stage.now_s)

    def tick(self, words: list[str]) -> None:
        for node_id in words:
            actor = self._actor(node_id)
            self.stage.act(actor, actor.machine.doTick)

    def wait(self, words: list[str]) -> None:
        self.stage.quiet = "quietly" in words
        self.stage.pass_time(int(words[0].removesuffix("ms")), deliver=False)

    def leap(self, words: list[str]) -> None:
        """Time passes while nobody takes a step."""
        self.stage.now_ms += int(words[0].removesuffix("ms"))

    def live(self, words: list[str]) -> None:
        self.stage.quiet = "loudly" not in words
        self.stage.pass_time(int(words[0].removesuffix("ms")), deliver=True)

    # Disks

    def slow_disk(self, words: list[str]) -> None:
        for node_id in words:
            self._actor(node_id).slow = True

    def fsync(self, words: list[str]) -> None:
        for node_id in words:
            actor = self._actor(node_id)
            if not actor.jobs:
                raise ScriptError(f"{node_id} syncs nothing")
            self.stage.work(actor)
            self.stage.act(actor, lambda: None)

    def fast_disk(self, words: list[str]) -> None:
        for node_id in words:
            actor = self._actor(node_id)
            actor.slow = False
            self.stage.act(actor, lambda: None)

    def break_disk(self, words: list[str]) -> None:
        """What the disk is asked for next, it refuses: `log` to sync the log, `state` to write the state."""
        node_id, what = words
        if what == "log":
            self.stage.disks[node_id].fail_next_sync = True
        elif what == "state":
            self.stage.homes[node_id].store.close()
        else:
            raise ScriptError(f"no disk {what!r}")

    # Links

    @staticmethod
    def _link(word: str) -> tuple[str, str]:
        sender, receiver = word.split("->")
        return sender, receiver

    def _choose(self, words: list[str]) -> list[tuple[tuple[str, str], bytes]]:
        """`a->b` all that is on its way now; then a count, `last`, `#n` (from 1) or the kind of message."""
        link = self._link(words[0])
        waiting = list(self.stage.in_flight.get(link, []))
        if len(words) == 1:
            chosen = waiting
        elif words[1] == "last":
            chosen = waiting[-1:]
        elif words[1].startswith("#"):
            number = int(words[1][1:])
            chosen = waiting[number - 1 : number]
        elif words[1].isdigit():
            chosen = waiting[: int(words[1])]
        else:
            chosen = [payload for payload in waiting if type(messages.decode(payload)).__name__ == words[1]]
        if not chosen:
            raise ScriptError(f"nothing of that kind is on its way on {words[0]}")
        return [(link, payload) for payload in chosen]

    def deliver(self, words: list[str]) -> None:
        links = [word for word in words if "->" in word]
        rest = [word for word in words if "->" not in word]
        for word in links:
            for link, payload in self._choose([word, *rest]):
                if self._actor(link[1]).paused:
                    raise ScriptError(f"{link[1]} is paused")
                if payload in self.stage.in_flight.get(link, []):
                    self.stage.in_flight[link].remove(payload)
                    self.stage.deliver(link, payload)

    def drop(self, words: list[str]) -> None:
        for link, payload in self._choose(words):
            self.stage.in_flight[link].remove(payload)
            self.stage.say(f"{link[0]} x> {link[1]}  {trace.message(messages.decode(payload))}")

    def duplicate(self, words: list[str]) -> None:
        """A copy of each chosen message, behind everything else on its way."""
        for link, payload in self._choose(words):
            self.stage.in_flight[link].append(payload)

    def damage(self, words: list[str]) -> None:
        """Flip a bit of a snapshot's chunk. `secretly`: its own checksum does not show it."""
        for link, payload in self._choose([word for word in words if word != "secretly"]):
            chunk = messages.decode(payload)
            if not isinstance(chunk, SnapshotChunk):
                raise ScriptError("only chunks of snapshots are damaged")
            data = bytes([chunk.data[0] ^ 1]) + chunk.data[1:]
            check = check_of(chunk.offset, data) if "secretly" in words else chunk.check
            waiting = self.stage.in_flight[link]
            waiting[waiting.index(payload)] = messages.encode(
                SnapshotChunk(chunk.term, chunk.id, chunk.offset, data, check, chunk.digest)
            )

    def forge(self, words: list[str]) -> None:
        """A message that no node sent, or sent long ago: kind and fields, as `forge b->a VoteReply term=1 granted=yes`."""
        link, kind = self._link(words[0]), getattr(messages, words[1])
        _, options = _options(words[2:])
        values = {key: self._value(value) for key, value in options.items()}
        message: Message = kind(**values)
        self.stage.in_flight.setdefault(link, []).append(messages.encode(message))

    def _value(self, word: str) -> Any:
        """A field of a forged message: a number, yes or no, a name, or `@a:5`, the digest of entry 5 in a's log."""
        if word.startswith("@"):
            node_id, index = word[1:].split(":")
            at = self._actor(node_id).machine.log.at(int(index))
            assert at is not None, "the log has this entry"
            return at.digest
        if word in ("yes", "no"):
            return word == "yes"
        return int(word) if word.isdigit() else word

    def in_flight(self, words: list[str]) -> None:
        for (sender, receiver), waiting in sorted(self.stage.in_flight.items()):
            for payload in waiting:
                self.stage.say(f"{sender} -> {receiver}  {trace.message(messages.decode(payload))}")

    def hold(self, words: list[str]) -> None:
        self.stage.held |= {self._link(word) for word in words}

    def release(self, words: list[str]) -> None:
        self.stage.held -= {self._link(word) for word in words}

    def settle(self, words: list[str]) -> None:
        self.stage.quiet = "loudly" not in words
        self.stage.settle()

    def partition(self, words: list[str]) -> None:
        sides = [side.split() for side in " ".join(words).split("|")]
        pool = [node_id for side in sides for node_id in side]
        side_of = {node_id: number for number, side in enumerate(sides) for node_id in side}
        self.stage.cut |= {(a, b) for a in pool for b in pool if side_of[a] != side_of[b]}
        self.stage.keep_sessions()

    def heal(self, words: list[str]) -> None:
        self.stage.cut.clear()
        self.stage.keep_sessions()

    # Clients

    def _new_call(self, kind: str) -> tuple[str, Call]:
        name = f"{kind}{sum(known[0] == kind for known in self.calls) + 1}"
        call = self.calls[name] = Call(self.acknowledged)
        return name, call

    def propose(self, words: list[str]) -> None:
        """`propose a k=v`, with `rev=3` as a precondition and `id=q` as the request's id; `garbage` for what no state
        machine can read. `quietly`: messages are not shown."""
        self.stage.quiet = "quietly" in words
        actor = self._actor(words[0])
        _, options = _options(words[1:])
        revision, request = options.pop("rev", None), options.pop("id", None)
        if "garbage" in words:
            encoded = b"\xc1"
        else:
            ((key, value),) = options.items()
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

    # What there is to see

    def status(self, words: list[str]) -> None:
        for node_id in words or sorted(self.stage.actors):
            self.stage.say(f"{node_id}: {summary(self._actor(node_id).machine)}")

    def followers(self, words: list[str]) -> None:
        """What a leader knows of the others."""
        leadership = self._actor(words[0]).machine.leadership
        if leadership is None:
            raise ScriptError(f"{words[0]} does not lead")
        for name, progress in sorted(leadership.progress.items()):
            self.stage.say(f"{name}: {progress.mode.value}, match {progress.match}, next {progress.next}")

    def logs(self, words: list[str]) -> None:
        for node_id in words or sorted(self.stage.actors):
            self.stage.say(f"{node_id}: {terms(self._actor(node_id).machine)}")

    def expect(self, words: list[str]) -> None:
        """`expect a role=leader term=2` (`facts.py` names what can be asked), `expect w1 pending`,
        `expect a holds k=v`, `expect a lacks k`, `expect no leader`, `expect same a b c` (the same applied state)."""
        subject, *rest = words
        if subject in self.calls:
            self._must(self.calls[subject].outcome == " ".join(rest), f"{subject} is: {self.calls[subject].outcome}")
        elif words == ["no", "leader"]:
            leaders = [name for name, actor in self.stage.actors.items() if actor.machine.role is Role.LEADER]
            self._must(not leaders, f"{leaders} lead")
        elif subject == "same":
            digests = {self._actor(node_id).machine.machine.state_digest for node_id in rest}
            self._must(len(digests) == 1, "their states differ")
        elif rest[0] in ("holds", "lacks"):
            for word in rest[1:]:
                key, _, value = word.partition("=")
                held = record(self._actor(subject).machine, key)
                self._must(held == (value if rest[0] == "holds" else "nothing"), f"{subject} holds {key}={held}")
        else:
            for word in rest:
                key, _, value = word.partition("=")
                held = fact(self.stage, subject, key)
                self._must(held == value, f"{subject} has {key}={held}")

    @staticmethod
    def _must(holds: bool, otherwise: str) -> None:
        if not holds:
            raise ScriptError(f"expected otherwise: {otherwise}")

    COMMANDS: ClassVar[dict[str, Callable[[Scene, list[str]], None]]] = {
        "nodes": nodes, "limits": limits, "timing": timing, "history": history, "start": start, "crash": crash,
        "wipe": wipe, "pause": pause, "resume": resume,
        "campaign": campaign, "elect": elect, "patience": patience, "tick": tick, "wait": wait, "leap": leap, "live": live,
        "slow-disk": slow_disk, "fsync": fsync, "fast-disk": fast_disk, "break-disk": break_disk,
        "deliver": deliver, "drop": drop, "duplicate": duplicate, "damage": damage, "forge": forge,
        "in-flight": in_flight, "hold": hold, "release": release, "settle": settle, "partition": partition,
        "heal": heal,
        "propose": propose, "read": read, "add": add, "remove": remove, "transfer": transfer, "eligible": eligible,
        "status": status, "followers": followers, "logs": logs, "expect": expect,
    }  # fmt: skip
