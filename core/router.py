"""From a path to the handler that serves it: the mount, the engine, the declared path, the operation.

Two mounts stand outside the table because the core cannot do without them: `sys/` and `auth/token/`. They are engines
under the same contract; only the place of their storage is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.core.mounts import MountTable
from holdfast.core.paths import Pattern, split
from holdfast.core.plugin import Engine, Operation, OperationSpec, PathSpec
from holdfast.core.request import Request
from holdfast.proto.errors import InvalidArgument, NotFound, Unimplemented

_FALLBACK = {Operation.CREATE: Operation.UPDATE, Operation.UPDATE: Operation.CREATE}


@dataclass(frozen=True)
class SystemMount:
    """A mount that is always there. path: ends in "/". view_prefix: where its engine's records are; empty for the whole
    tree."""

    path: str
    engine: Engine
    view_prefix: str


@dataclass(frozen=True)
class Route:
    """What serves a request.

    view_prefix: where the engine's records are; empty for the whole tree. path: relative to the mount. fields: captures
    of its pattern. object_key: names what the request is about: the mount and the captures, so that `data/x` and
    `metadata/x` are one object.
    """

    spec: OperationSpec
    path_spec: PathSpec
    view_prefix: str
    options: Mapping[str, str] = field(repr=False)
    path: str = field(repr=False)
    fields: Mapping[str, str] = field(repr=False)
    object_key: str = field(repr=False)


class Router:
    """Compiles every engine's paths once. Raises ValueError when one of them is malformed."""

    def __init__(self, engines: Mapping[str, Engine], system: Sequence[SystemMount]) -> None:
        self._engines = {name: _compile(engine) for name, engine in engines.items()}
        self._system = {tuple(m.path.removesuffix("/").split("/")): (m, _compile(m.engine)) for m in system}
        self._system_depths = sorted({len(segments) for segments in self._system}, reverse=True)

    def route(self, table: MountTable, request: Request) -> Route:
        """The handler of a request, its members checked against what the operation takes.

        Raises NotFound (no mount, or no such path in it), Unimplemented (the path has no such operation, or this build
        no such engine) and InvalidArgument (a member that the operation does not take)."""
        segments = split(request.path, request.operation)
        for depth in self._system_depths:
            if found := self._system.get(segments[:depth]):
                mount, patterns = found
                return _match(patterns, mount.view_prefix, {}, segments[depth:], request)
        _, stored, below = table.lookup(segments)
        engine = self._engines.get(stored.type)
        if engine is None:
            raise Unimplemented("this build has no engine of this mount's type: use a build that has it")
        return _match(engine, stored.view_prefix, stored.options, below, request)


_Patterns = Sequence[tuple[Pattern, PathSpec]]


def _compile(engine: Engine) -> _Patterns:
    return [(Pattern.compile(spec.pattern), spec) for spec in engine.paths()]


def _match(
    patterns: _Patterns, view_prefix: str, options: Mapping[str, str], path: Sequence[str], request: Request
) -> Route:
    for pattern, spec in patterns:
        fields = pattern.match(path, request.operation)
        if fields is not None:
            operation = _operation(spec, request)
            return Route(
                spec=operation,
                path_spec=spec,
                view_prefix=view_prefix,
                options=options,
                path="/".join(path),
                fields=fields,
                object_key="/".join([view_prefix, *(fields.values() or path)]),
            )
    raise NotFound("the mount has no such path: see the paths that its engine documents")


def _operation(spec: PathSpec, request: Request) -> OperationSpec:
    asked = request.operation
    operation = spec.operations.get(asked) or spec.operations.get(_FALLBACK.get(asked, asked))
    if operation is None:
        known = ", ".join(sorted(known.value for known in spec.operations))
        raise Unimplemented(f"this path has no operation {asked.value!r}: it has {known}")
    if not operation.free_form and not request.data.keys() <= operation.fields.keys():
        # The member is not named: who forgets a level of nesting sends the names inside a secret here.
        takes = ", ".join(operation.fields) or "none"
        raise InvalidArgument(
            f"the request has a member that the operation does not take; it takes: {takes}", field="data"
        )
    return operation
