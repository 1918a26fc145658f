"""Logical paths as callers send them, and the patterns that engines declare for them. Pure.

A path is segments separated by "/": no empty segment, no "." or "..", no control character, at most PATH_BYTES_MAX
bytes of UTF-8. A path that is listed may end in one "/". No message repeats a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.core.request import PATH_BYTES_MAX, Operation
from holdfast.proto.errors import InvalidArgument
from holdfast.storage.paths import check_name

_CAPTURE = re.compile(r"\{([a-z_]+)(\.\.\.)?\}")


def split(path: str, operation: Operation) -> tuple[str, ...]:
    """The checked segments of a request's path. Raises InvalidArgument with the field "path"."""
    if operation is Operation.LIST:
        path = path.removesuffix("/")
    if not path:
        raise InvalidArgument("the request names no path: give one, such as a mount and a name", field="path")
    size = len(path.encode(errors="surrogatepass"))
    if size > PATH_BYTES_MAX:
        raise InvalidArgument(f"the path has {size} bytes: at most {PATH_BYTES_MAX} are allowed", field="path")
    segments = tuple(path.split("/"))
    for segment in segments:
        check_name(segment)
    return segments


@dataclass(frozen=True)
class Pattern:
    """A compiled PathSpec pattern. `segments`: a literal, or None for a capture whose name stands in `names`.
    `rest`: the name that captures the remaining segments; empty when there is none."""

    segments: tuple[str | None, ...]
    names: tuple[str, ...]
    rest: str

    @classmethod
    def compile(cls, pattern: str) -> Pattern:
        """Raises ValueError for a malformed pattern: an engine's mistake, found when the node starts."""
        segments: list[str | None] = []
        names: list[str] = []
        rest = ""
        for segment in pattern.split("/") if pattern else ():
            if rest:
                raise ValueError(f"pattern {pattern!r}: only the last segment may capture the rest of the path")
            capture = _CAPTURE.fullmatch(segment)
            if capture and capture[2]:
                rest = capture[1]
            elif capture:
                segments.append(None)
                names.append(capture[1])
            elif segment and "{" not in segment and "}" not in segment:
                segments.append(segment)
            else:
                raise ValueError(f"pattern {pattern!r}: a segment is a literal, {{name}} or {{name...}}")
        if len({*names, rest}) != len(names) + 1:
            raise ValueError(f"pattern {pattern!r}: two captures have one name")
        return cls(tuple(segments), tuple(names), rest)

    def match(self, path: Sequence[str], operation: Operation) -> Mapping[str, str] | None:
        """The captures of a path given as segments, or None. The rest may be empty for LIST only."""
        fixed = len(self.segments)
        if len(path) < fixed or (len(path) > fixed and not self.rest):
            return None
        if self.rest and len(path) == fixed and operation is not Operation.LIST:
            return None
        captured: list[str] = []
        for segment, literal in zip(path, self.segments, strict=False):
            if literal is None:
                captured.append(segment)
            elif literal != segment:
                return None
        fields = dict(zip(self.names, captured, strict=True))
        if self.rest:
            fields[self.rest] = "/".join(path[fixed:])
        return fields
