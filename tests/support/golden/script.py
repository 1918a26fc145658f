"""Script files: commands, each followed by its expected output, indented by four spaces. Comments and empty lines stay
as they are when the expected output is written anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import structlog
from support.golden.commands import Scene

INDENT = "    "


@dataclass(frozen=True)
class Line:
    """A line of a script: a command, with what is expected of it, or a comment or an empty line. number: from 1."""

    number: int
    text: str
    expected: tuple[str, ...] = ()

    @property
    def is_command(self) -> bool:
        return bool(self.text) and not self.text.startswith("#")


class Mismatch(AssertionError):
    """A command did something else than its script says."""


def parse(text: str) -> list[Line]:
    """The lines of a script."""
    lines: list[Line] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        if raw.startswith(INDENT):
            before = lines[-1]
            if not before.is_command:
                raise Mismatch(f"line {number}: output without a command")
            lines[-1] = Line(before.number, before.text, (*before.expected, raw.removeprefix(INDENT)))
        else:
            lines.append(Line(number, raw.strip()))
    return lines


def render(lines: list[Line]) -> str:
    """A script's text."""
    return "".join(f"{line.text}\n" + "".join(f"{INDENT}{out}\n" for out in line.expected) for line in lines)


def play(path: Path, *, rewrite: bool) -> None:
    """Run a script. Raises Mismatch where its trace differs, unless `rewrite`, which puts the trace in the file;
    Violation and ScriptError in any case."""
    lines = parse(path.read_text())
    scene = Scene()
    structlog.configure(
        processors=[scene.stage.log_event], wrapper_class=structlog.make_filtering_bound_logger(20)
    )  # fmt: skip
    try:
        played = [_play_line(scene, path, line, rewrite=rewrite) for line in lines]
    finally:
        structlog.reset_defaults()
    if rewrite:
        path.write_text(render(played))


def _play_line(scene: Scene, path: Path, line: Line, *, rewrite: bool) -> Line:
    if not line.is_command:
        return line
    try:
        output = tuple(scene.run(line.text))
    except Exception as error:
        shown = "\n".join(scene.stage.lines)
        raise type(error)(f"{path.name}:{line.number}: {line.text}: {error}\n{shown}") from error
    if not rewrite and output != line.expected:
        raise Mismatch(
            f"{path.name}:{line.number}: {line.text}\n--- the script says\n"
            + "\n".join(line.expected) + "\n--- what happened\n" + "\n".join(output)
        )  # fmt: skip
    return Line(line.number, line.text, output)
