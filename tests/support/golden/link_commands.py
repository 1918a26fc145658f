"""Commands about messages: what arrives, what is lost, what comes twice, what was forged."""

from __future__ import annotations

from typing import Any

from support.golden import trace
from support.golden.base import Commands, ScriptError, options

from holdfast.cluster.raft import messages
from holdfast.cluster.raft.messages import Message, SnapshotChunk
from holdfast.cluster.raft.sending import check_of


class LinkCommands(Commands):
    """See the module."""

    @staticmethod
    def _link(word: str) -> tuple[str, str]:
        sender, receiver = word.split("->")
        return sender, receiver

    def _choose(self, words: list[str]) -> list[tuple[tuple[str, str], bytes]]:
        """`a->b`: all that is on its way now. Each word more narrows it: a kind of message, `#n` (from 1), `last`, or
        how many."""
        link = self._link(words[0])
        chosen = list(self.stage.in_flight.get(link, []))
        for word in words[1:]:
            if word == "last":
                chosen = chosen[-1:]
            elif word.startswith("#"):
                chosen = chosen[int(word[1:]) - 1 : int(word[1:])]
            elif word.isdigit():
                chosen = chosen[: int(word)]
            else:
                chosen = [payload for payload in chosen if type(messages.decode(payload)).__name__ == word]
        if not chosen:
            raise ScriptError(f"nothing of that kind is on its way on {words[0]}")
        return [(link, payload) for payload in chosen]

    def deliver(self, words: list[str]) -> None:
        links = [word for word in words if "->" in word]
        rest = [word for word in words if "->" not in word]
        for word in links:
            for link, payload in self._choose([word, *rest]):
                if payload not in self.stage.in_flight.get(link, []):
                    continue  # an earlier one has cost the session
                if self._actor(link[1]).paused:
                    raise ScriptError(f"{link[1]} is paused")
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
        """A message that no node sent, or sent long ago: `forge b->a VoteReply term=1 granted=yes`."""
        link, kind = self._link(words[0]), getattr(messages, words[1])
        _, fields = options(words[2:])
        values = {key: self._value(value) for key, value in fields.items()}
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
