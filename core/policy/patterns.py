"""Path patterns: how specific each is, and the trie that finds those which match a path. Pure.

Of several patterns that match, the one with the greatest `priority` decides; the order is Vault's ("Policies", priority
matching): the later the first wildcard, the better; then without a `*` at the end; then with fewer `+`; then the
longer; then the greater in the order of its characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

Priority = tuple[int, bool, int, int, str]

_NO_WILDCARD = 1 << 30


def priority(pattern: str) -> Priority:
    """Sorts patterns by how specific they are, the most specific last."""
    segments = pattern.split("/")
    star = pattern.endswith("*")
    first, at = _NO_WILDCARD, 0
    for segment in segments:
        if segment == "+":
            first = at
            break
        at += len(segment) + 1
    if star:
        first = min(first, len(pattern) - 1)
    return first, not star, -segments.count("+"), len(pattern), pattern


class _Node(Generic[T]):
    __slots__ = ("any_segment", "children", "exact", "prefixes")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.any_segment: _Node[T] | None = None
        self.exact: tuple[str, T] | None = None  # a pattern that ends here
        self.prefixes: dict[int, dict[str, tuple[str, T]]] = {}  # by length: begin the segment below and end in "*"


class Trie(Generic[T]):
    """Values by pattern. Finding costs what the path's own length and the matches cost, however many patterns there
    are, but for the ways that `+` opens beside literal segments."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._exact: dict[str, tuple[str, T]] = {}

    def add(self, pattern: str, value: T) -> None:
        """Set the value of a pattern."""
        if not pattern.endswith("*") and "+" not in pattern.split("/"):
            self._exact[pattern] = (pattern, value)
            return
        node = self._root
        *above, last = pattern.split("/")
        for segment in above:
            node = _below(node, segment)
        if last.endswith("*"):
            node.prefixes.setdefault(len(last) - 1, {})[last[:-1]] = (pattern, value)
        else:
            _below(node, last).exact = (pattern, value)

    def exact(self, path: str) -> tuple[str, T] | None:
        """The pattern without wildcards that is the path."""
        return self._exact.get(path)

    def matches(self, path: str) -> list[tuple[str, T]]:
        """Every pattern with a wildcard that matches the path, in no order."""
        found: list[tuple[str, T]] = []
        nodes = [self._root]
        for segment in path.split("/"):
            for node in nodes:
                for length, prefixes in node.prefixes.items():
                    if (hit := prefixes.get(segment[:length])) is not None and len(segment) >= length:
                        found.append(hit)
            nodes = list(_next(nodes, segment))
            if not nodes:
                return found
        found += [node.exact for node in nodes if node.exact is not None]
        return found


def _below(node: _Node[T], segment: str) -> _Node[T]:
    if segment != "+":
        return node.children.setdefault(segment, _Node())
    if node.any_segment is None:
        node.any_segment = _Node()
    return node.any_segment


def _next(nodes: Sequence[_Node[T]], segment: str) -> Iterator[_Node[T]]:
    for node in nodes:
        child = node.children.get(segment)
        if child is not None:
            yield child
        if node.any_segment is not None:
            yield node.any_segment
