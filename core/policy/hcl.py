"""The part of HashiCorp's configuration language (HCL 1) that policies are written in, and JSON, which reads alike.

    body  = { key [label...] "{" body "}" | key ("=" | ":") value [","] }
    value = string | number | true | false | null | "[" { value [","] } "]" | "{" body "}"
    key   = identifier | string

Comments: `#` and `//` to the end of the line, `/*` to `*/`. Strings are JSON's. No interpolation, no here-documents.
Every error says where: line and column, both from 1. Nothing of the text itself is repeated. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Never

from holdfast.proto.errors import InvalidArgument

TEXT_BYTES_MAX = 256 * 1024
"""The longest policy, in bytes of UTF-8."""

DEPTH_MAX = 16

_NUMBER_CHARS_MAX = 1000

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\ufeff]+|\#[^\n]*|//[^\n]*|/\*.*?\*/)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_.]))
      | (?P<name>[A-Za-z_][A-Za-z0-9_.-]*)
      | (?P<mark>[{}\[\]=:,])""",
    re.VERBOSE | re.DOTALL,
)
_CONSTANTS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in the text: line and column, from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar (str, int, float, bool, None), a list of Values, or a Body."""

    value: Any
    place: Place


@dataclass(frozen=True, slots=True)
class Item:
    """One member of a body: `key label... { body }` or `key = value`."""

    key: str
    labels: tuple[str, ...]
    value: Value
    place: Place


@dataclass(frozen=True, slots=True)
class Body:
    """Members in the order of the text; a key may come more than once."""

    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    place: Place


def parse(text: str) -> Body:
    """The text's members. Raises InvalidArgument (field "policy") with line and column."""
    if len(text.encode(errors="surrogatepass")) > TEXT_BYTES_MAX:
        raise InvalidArgument(f"the policy is over {TEXT_BYTES_MAX // 1024} KiB long: split it", field="policy")
    reader = _Reader(list(_tokens(text)))
    if reader.next.text == "{":  # JSON: the whole text is one object
        reader.take()
        body = reader.body(closing="}", depth=1)
        reader.end()
        return body
    return reader.body(closing="", depth=0)


def refuse(place: Place, what: str) -> Never:
    """Raise InvalidArgument for what stands at a place."""
    raise InvalidArgument(f"line {place.line}, column {place.column}: {what}", field="policy")


def _tokens(text: str) -> Iterator[_Token]:
    at, line, line_began = 0, 1, 0
    while at < len(text):
        place = Place(line, at - line_began + 1)
        found = _TOKEN.match(text, at)
        if found is None:
            if text[at] == '"':
                refuse(place, "this string does not end on its line")
            if text.startswith("/*", at):
                refuse(place, "this comment does not end")
            if text.startswith("<<", at):
                refuse(place, 'here-documents are not understood: write the value between quotes ("...")')
            refuse(place, "this character has no meaning here")
        if found.lastgroup != "space":
            yield _Token(str(found.lastgroup), found[0], place)
        newlines = found[0].count("\n")
        if newlines:
            line += newlines
            line_began = at + found[0].rindex("\n") + 1
        at = found.end()
    yield _Token("end", "", Place(line, at - line_began + 1))


class _Reader:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def next(self) -> _Token:
        return self._tokens[self._at]

    def take(self) -> _Token:
        token = self.next
        if token.kind != "end":
            self._at += 1
        return token

    def end(self) -> None:
        if self.next.kind != "end":
            refuse(self.next.place, "the policy has ended before this")

    def body(self, *, closing: str, depth: int) -> Body:
        """Members up to and with the closing mark; up to the end of the text when it is empty."""
        if depth > DEPTH_MAX:
            refuse(self.next.place, f"this is nested over {DEPTH_MAX} levels deep")
        items: list[Item] = []
        while True:
            token = self.take()
            if token.kind == "end" and not closing:
                return Body(tuple(items))
            if token.kind == "mark" and token.text == closing:
                return Body(tuple(items))
            if token.kind not in ("name", "string"):
                expected = f'a name or "{closing}"' if closing else "a name"
                refuse(token.place, f"expected {expected}")
            items.append(self._item(token, depth))
            if self.next.text == ",":
                self.take()

    def _item(self, token: _Token, depth: int) -> Item:
        key, labels = _word(token), list[str]()
        while self.next.kind == "string":
            labels.append(_word(self.take()))
        mark = self.take()
        if mark.kind == "mark" and mark.text == "{":
            value = Value(self.body(closing="}", depth=depth + 1), mark.place)
        elif mark.kind == "mark" and mark.text in "=:" and not labels:
            value = self._value(depth + 1)
        else:
            refuse(mark.place, 'expected "{"' if labels else 'expected "=" or "{"')
        return Item(key, tuple(labels), value, token.place)

    def _value(self, depth: int) -> Value:
        token = self.take()
        if token.kind == "string":
            return Value(_word(token), token.place)
        if token.kind == "number":
            return Value(_number(token), token.place)
        if token.kind == "name" and token.text in _CONSTANTS:
            return Value(_CONSTANTS[token.text], token.place)
        if token.text == "{":
            return Value(self.body(closing="}", depth=depth), token.place)
        if token.text == "[":
            return Value(self._list(depth), token.place)
        refuse(token.place, 'expected a value: a string between quotes, a number, true, false, "[" or "{"')

    def _list(self, depth: int) -> list[Value]:
        if depth > DEPTH_MAX:
            refuse(self.next.place, f"this is nested over {DEPTH_MAX} levels deep")
        values: list[Value] = []
        while self.next.text != "]" or self.next.kind != "mark":
            values.append(self._value(depth + 1))
            if self.next.text == ",":
                self.take()
            elif self.next.text != "]":
                refuse(self.next.place, 'expected "," or "]"')
        self.take()
        return values


def _number(token: _Token) -> int | float:
    if len(token.text) > _NUMBER_CHARS_MAX:
        refuse(token.place, "this number is too long")
    number = json.loads(token.text)
    assert isinstance(number, int | float)
    return number


def _word(token: _Token) -> str:
    if token.kind == "name":
        return token.text
    try:
        word = json.loads(token.text, strict=False)
    except ValueError:
        refuse(token.place, "this string has an escape that JSON does not know")
    assert isinstance(word, str)
    return word
