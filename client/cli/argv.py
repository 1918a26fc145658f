"""The command line as Vault's users write it, turned into the one click reads. Pure.

`-format=json`, `--format json`, `-n=5`, `-yes=true` and flags after positional arguments all work. What follows a flag
that takes a value, and everything after `--`, is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import click

_LONG = re.compile(r"-(?P<name>[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)*)(?P<value>=.*)?", re.DOTALL)
_SHORT_WITH_NUMBER = re.compile(r"-[A-Za-z]\d+")
_SHORT_WITH_VALUE = re.compile(r"(?P<flag>-[A-Za-z])=(?P<value>.*)", re.DOTALL)
_TRUE = frozenset({"true", "t", "1"})
_FALSE = frozenset({"false", "f", "0"})


@dataclass(frozen=True)
class Vocabulary:
    """The flags of a command line. valued: those followed by a value. switches: those that stand alone; the second
    name, where there is one, is the opposite. Names are without dashes; one-letter names are short flags."""

    valued: frozenset[str]
    switches: dict[str, str]

    @classmethod
    def of(cls, command: click.Command) -> Vocabulary:
        """All flags of a command and of those below it."""
        valued: set[str] = set()
        switches: dict[str, str] = {}
        for option in _options(command):
            for name in option.opts:
                if option.is_flag:
                    opposite = option.secondary_opts[0].lstrip("-") if option.secondary_opts else ""
                    switches[name.lstrip("-")] = opposite
                else:
                    valued.add(name.lstrip("-"))
        return cls(frozenset(valued), switches)


def _options(command: click.Command) -> Iterable[click.Option]:
    # With the command's own settings, because click keeps the help option that is made here.
    with command.context_class(command, info_name=command.name, **command.context_settings) as context:
        yield from (parameter for parameter in command.get_params(context) if isinstance(parameter, click.Option))
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                yield from _options(below)


def normalize(arguments: Sequence[str], vocabulary: Vocabulary) -> list[str]:
    """`arguments` with long flags in two dashes and switches without values."""
    result: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            result.append(argument)
            result.extend(waiting)
            break
        flag = _flag(argument, vocabulary)
        if flag is None:
            result.append(argument)
            continue
        result.extend(flag)
        name = flag[0].lstrip("-") if len(flag) == 1 else ""
        if name in vocabulary.valued and name not in vocabulary.switches:
            result.extend(value for value in [next(waiting, None)] if value is not None)
    return result


def _flag(argument: str, vocabulary: Vocabulary) -> list[str] | None:
    """The words that a flag becomes; None for anything that is no flag."""
    if short := _SHORT_WITH_VALUE.fullmatch(argument):
        return [short["flag"], short["value"]]
    if _SHORT_WITH_NUMBER.fullmatch(argument):
        return None
    match = _LONG.fullmatch(argument[1:] if argument.startswith("--") else argument)
    if match is None:
        return None
    name, value = match["name"], match["value"]
    if len(name) == 1 and not argument.startswith("--"):
        return [argument]
    switch = name in vocabulary.switches and name not in vocabulary.valued
    if value is not None and switch and value[1:].lower() in _TRUE | _FALSE:
        if value[1:].lower() in _TRUE:
            return [f"--{name}"]
        opposite = vocabulary.switches[name]
        return [f"--{opposite}"] if opposite else []
    return [f"--{name}{value or ''}"]
