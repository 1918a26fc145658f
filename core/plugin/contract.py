"""An engine declares its paths and, for each, the operations with their handlers. A handler sees the parsed request, a
transactional view of its own storage, time and randomness, and nothing else. What it puts into the view becomes one
Batch; a handler may run more than once for one request (after a conflict), so it must not act outside its view.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from holdfast.core.request import Operation, Response


class StorageView(Protocol):
    """An engine's own storage within one request: a tree of paths, isolated and atomic.

    Paths are relative, "/"-separated, without empty segments. Reads see the view's own writes. Everything read becomes
    a precondition of everything written, so that a request acts on the state it saw or not at all.
    """

    async def get(self, path: str) -> bytes | None:
        """The plaintext stored at a path, or None."""
        ...

    def put(self, path: str, value: bytes) -> None:
        """Store plaintext at a path (encrypted before it leaves the request)."""
        ...

    def delete(self, path: str) -> None:
        """Remove what is stored at a path, if anything."""
        ...

    async def list(self, path: str, *, after: str = "", limit: int = 1000) -> Sequence[str]:
        """Up to `limit` names directly below `path`, those with names below them ending in "/" (a name that is both
        appears twice, adjacent: "a" and "a/"; both or neither are in a page, so a page may hold limit + 1). Stable
        order, not alphabetical; `after` is the last name of the page before. Shows committed state only. Not a
        precondition."""
        ...


@dataclass(frozen=True)
class Caller:
    """Who asks, as far as an engine may know: never the token itself.

    accessor: names the token without being one. policies: the names of the token's policies. sudo: whether they give
    "sudo" on the path that is asked for.
    """

    accessor: str = field(default="", repr=False)
    display_name: str = field(default="", repr=False)
    policies: tuple[str, ...] = ()
    sudo: bool = False


@dataclass(frozen=True)
class HandlerContext:
    """What a handler gets beside its view. Its repr shows nothing of the request but the operation.

    path: the request's path relative to the mount. fields: captures of the path pattern.
    data: the request's JSON members. now: the wall clock of the node that evaluates (for a write the leader), UTC.
    random_bytes: cryptographically secure.
    options: the mount's options. caller: who asks.
    """

    operation: Operation
    path: str = field(repr=False)
    fields: Mapping[str, str] = field(repr=False)
    data: Mapping[str, Any] = field(repr=False)
    now: datetime
    random_bytes: Callable[[int], bytes] = field(repr=False)
    options: Mapping[str, str] = field(default_factory=dict)
    caller: Caller = field(default_factory=Caller)


Handler = Callable[[HandlerContext, StorageView], Awaitable[Response]]


@dataclass(frozen=True)
class OperationSpec:
    """One operation of a path. `fields`: accepted members of `data` and their help; others are refused unless
    `free_form`."""

    handler: Handler
    help: str
    fields: Mapping[str, str] = field(default_factory=dict)
    free_form: bool = False


@dataclass(frozen=True)
class PathSpec:
    """A pattern and its operations.

    pattern: segments separated by "/", none for the mount itself; `{name}` captures one segment, `{name...}` (last
    only) the rest of the path, which may be empty for LIST and must not be for anything else. Captured values hold no
    empty segment, no "." or "..", and no control character; the router refuses such paths before a handler sees them.
    CREATE and UPDATE fall back to each other when only one is declared.
    sudo: whether the path also needs the capability "sudo". exists: whether what a request is about is there: then a
    write to it needs the capability "update", else "create"; without it, a write always needs "update", as Vault's.
    """

    pattern: str
    operations: Mapping[Operation, OperationSpec]
    help: str = ""
    sudo: bool = False
    exists: Callable[[HandlerContext, StorageView], Awaitable[bool]] | None = None


class Engine(Protocol):
    """A secret engine or auth method."""

    @property
    def type(self) -> str:
        """The name used to enable it, e.g. "kv"."""
        ...

    def paths(self) -> Sequence[PathSpec]:
        """All paths; the first whose pattern matches serves the request."""
        ...


class TakesOptions(Protocol):
    """An engine whose mounts have options. One that is not of this form takes none."""

    def check_options(self, options: Mapping[str, str]) -> None:
        """Raise InvalidArgument, with the field "options", for options that the engine does not take."""
        ...
