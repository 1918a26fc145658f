"""Secret data as it is written on the command line: `key=value`, `key=@file`, `key=-`, `@whole.json`, `-`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.client.failures import LocalError

FILE_BYTES_MAX = 1024 * 1024
"""The largest file or standard input read, in bytes: the most that a secret may hold."""

_TELLING = re.compile(
    r"pass(word|wd|phrase|code)?|pwd|secret|token|private|credential|api.?key|access.?key|encryption.?key|\bkey\b|\bpin\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class GivenData:
    """What was given. exposed: the keys whose values stood on the command line and look like secrets."""

    members: dict[str, Any] = field(repr=False)
    exposed: tuple[str, ...] = ()


def parse_data(arguments: Sequence[str], *, read_input: Callable[[str], str]) -> GivenData:
    """The object that the arguments describe.

    A value is taken literally, except that `@name` is the content of that file, `-` is `read_input(key)`, and a leading
    backslash makes a literal `@` or `-`. `@name` and `-` alone are a whole JSON object. Raises LocalError, which never
    shows a value.
    """
    members: dict[str, Any] = {}
    exposed: list[str] = []
    for argument in arguments:
        if argument == "-":
            _merge(members, _whole(read_input(""), "standard input"))
        elif argument.startswith("@"):
            _merge(members, _whole(_read_file(argument[1:]), argument[1:]))
        else:
            key, equals, value = argument.partition("=")
            if not equals or not key:
                raise LocalError(
                    "one of the arguments is not data. Write key=value, key=@file, key=- or @file.json.", field="data"
                )
            literal, text = _value(key, value, read_input)
            if literal and text and _TELLING.search(key):
                exposed.append(key)
            _merge(members, {key: text})
    return GivenData(members, tuple(exposed))


def _value(key: str, value: str, read_input: Callable[[str], str]) -> tuple[bool, str]:
    """Whether the value stood on the command line, and the value."""
    if value == "-":
        return False, read_input(key)
    if value.startswith("@"):
        return False, _read_file(value[1:])
    if value.startswith(("\\@", "\\-")):
        value = value[1:]
    return True, value


def _merge(members: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if key in members:
            raise LocalError(f"the key {key!r} is given twice.", field="data")
        members[key] = value


def _read_file(name: str) -> str:
    try:
        with Path(name).expanduser().open("rb") as file:
            return decode_text(file.read(FILE_BYTES_MAX + 1), name)
    except OSError as problem:
        raise LocalError(f"the file {name} cannot be read: {problem.strerror}.", field="data") from None


def decode_text(content: bytes, source: str) -> str:
    """The text that `content` is. Raises LocalError when it is too large or not UTF-8."""
    if len(content) > FILE_BYTES_MAX:
        raise LocalError(f"{source} is larger than 1 MiB, the most that a secret may hold.", field="data")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise LocalError(
            f"{source} is not UTF-8 text. Encode binary data first, e.g. with base64.", field="data"
        ) from None


def _whole(text: str, source: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except LocalError:
        raise
    except (ValueError, RecursionError) as problem:
        where = f" (line {problem.lineno}, column {problem.colno})" if isinstance(problem, json.JSONDecodeError) else ""
        raise LocalError(f"{source} is not valid JSON{where}.", field="data") from None
    if not isinstance(value, dict):
        raise LocalError(f"{source} must hold a JSON object, that is, members in braces.", field="data")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise LocalError("the JSON has an object that holds a key twice.", field="data")
    return members
