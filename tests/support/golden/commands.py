"""The language of the scripts: what each command does on the stage. `Scene.COMMANDS` is all of it; the README beside
the scripts describes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from support.golden.base import ScriptError, options
from support.golden.client_commands import ClientCommands
from support.golden.facts import fact, record, summary, terms
from support.golden.link_commands import LinkCommands
from support.raft_rig import members, put

from holdfast.cluster.raft import membership
from holdfast.cluster.raft.admission import admit
from holdfast.cluster.raft.consensus import Role
from holdfast.cluster.raft.entries import Kind, follow, join_batches
from holdfast.cluster.raft.journal import Journal
from holdfast.storage.memory import MemoryStore
from holdfast.storage.memoryhome import MemoryHome


class Scene(LinkCommands, ClientCommands):
    """One script's run: commands in, lines of trace out."""

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

    # The cast

    def nodes(self, words: list[str]) -> None:
        self.stage.found([word for word in words if word != "fresh"], fresh="fresh" in words)

    def limits(self, words: list[str]) -> None:
        _, values = options(words)
        self.stage.limits = replace(self.stage.limits, **{key: int(value) for key, value in values.items()})

    def timing(self, words: list[str]) -> None:
        _, values = options(words)
        self.stage.timing = replace(self.stage.timing, **{key: float(value) for key, value in values.items()})

    def history(self, words: list[str]) -> None:
        """A disk as earlier terms left it: the founding entry, then one entry of each term. Where index and term agree,
        two such logs are the same, as Raft has it; unless one has `other=3`: another entry 3 than it should have."""
        (node_id, *voters), given = options(words)
        self.stage.prepare_disk(node_id)
        journal = Journal(self.stage.disks[node_id], initial=membership.initial(members("".join(voters))))
        for term in given["terms"].split(","):
            index = journal.last_index + 1
            value = b"another" if given.get("other") == str(index) else b"of-term-%d" % int(term)
            payload = join_batches([admit(put(b"k%d" % index, value))])
            journal.append(follow(journal.last, term=int(term), cluster_time_ms=0, kind=Kind.BATCHES, payload=payload))
        self.stage.promises.broken |= "other" in given
        journal.setCurrentTerm(int(given.get("term", journal.last.term)), given.get("vote"))
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
        node_ids, given = options(words)
        kept = {"none": (0, 0), "all": (10**6, 10**6), "log": (10**6, 0), "state": (0, 10**6)}[
            given.get("keeps", "none")
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

    COMMANDS: ClassVar[dict[str, Callable[[Any, list[str]], None]]] = {
        "nodes": nodes, "limits": limits, "timing": timing, "history": history, "start": start, "crash": crash,
        "wipe": wipe, "pause": pause, "resume": resume, "campaign": campaign, "elect": elect, "patience": patience,
        "tick": tick, "wait": wait, "leap": leap, "live": live, "slow-disk": slow_disk, "fsync": fsync,
        "fast-disk": fast_disk, "break-disk": break_disk, "deliver": LinkCommands.deliver, "drop": LinkCommands.drop,
        "duplicate": LinkCommands.duplicate, "damage": LinkCommands.damage, "forge": LinkCommands.forge,
        "in-flight": LinkCommands.in_flight, "hold": LinkCommands.hold, "release": LinkCommands.release,
        "settle": LinkCommands.settle, "partition": LinkCommands.partition, "heal": LinkCommands.heal,
        "propose": ClientCommands.propose, "read": ClientCommands.read, "add": ClientCommands.add,
        "remove": ClientCommands.remove, "transfer": ClientCommands.transfer, "eligible": ClientCommands.eligible,
        "status": status, "followers": followers, "logs": logs, "expect": expect,
    }  # fmt: skip
