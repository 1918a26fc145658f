"""What the commands share."""

from __future__ import annotations

from support.golden.stage import Actor, Stage


class ScriptError(AssertionError):
    """A command that makes no sense, or an expectation that does not hold."""


def options(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Plain words, and those of the form key=value."""
    plain = [word for word in words if "=" not in word]
    return plain, dict(word.split("=", 1) for word in words if "=" in word)


class Commands:
    """Commands on a stage."""

    def __init__(self) -> None:
        self.stage = Stage()

    def _actor(self, node_id: str) -> Actor:
        actor = self.stage.actors.get(node_id)
        if actor is None:
            raise ScriptError(f"{node_id} is not running")
        return actor
