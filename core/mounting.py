"""`sys/mounts`: enabling, changing, moving and disabling secret engines. The meanings are Vault's.

Disabling takes the mount out of the table, so that nothing of it is served from that moment on, and notes where its
records are; `housekeeping.py` removes them a page at a time. Moving changes the path and no record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast.core.mounts import MOUNTS_NAME, Mount, MountTable, new_mount
from holdfast.core.paths import split
from holdfast.core.plugin import (
    Engine,
    HandlerContext,
    Operation,
    OperationSpec,
    PathSpec,
    Response,
    StorageView,
    fields,
)
from holdfast.core.plugin.times import rfc3339
from holdfast.proto.errors import AlreadyExists, Corruption, FailedPrecondition, InvalidArgument, NotFound

MOUNTS_MAX = 1000
"""How many engines may be enabled."""

RESERVED = ("sys", "auth", "audit", "cubbyhole", "identity")
"""First segments of paths that are no engine's."""

_TYPE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_TUNE = "tune"
_ENABLE = {"type": "The engine.", "description": "For people.", "options": "The engine's options."}
_CHANGE = {"description": "For people.", "options": "The engine's options; those that are given are changed."}


class MountsEngine:
    """`sys/`. Its view is the core's own part of the tree. engines: what can be enabled, by type."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines

    @property
    def type(self) -> str:
        """See Engine."""
        return "system"

    def paths(self) -> Sequence[PathSpec]:
        """See Engine."""
        moving = {"from": "Where it is.", "to": "Where it goes."}
        return (
            PathSpec("mounts", {Operation.READ: OperationSpec(_list, "List the mounts.")}, "The secret engines."),
            PathSpec(
                "mounts/{path...}",
                {
                    Operation.READ: OperationSpec(_read, "Read a mount, or how it is tuned."),
                    Operation.UPDATE: OperationSpec(self._write, "Enable or tune an engine.", _ENABLE),
                    Operation.DELETE: OperationSpec(_disable, "Disable an engine and destroy what it keeps."),
                },
                "A secret engine; with /tune, its settings.",
                exists=_exists,
            ),
            PathSpec(
                "remount",
                {Operation.UPDATE: OperationSpec(_move, "Move a mount.", moving)},
                "Moves a mount to another path.",
                sudo=True,
            ),
        )

    async def _write(self, ctx: HandlerContext, view: StorageView) -> Response:
        path, tuning = _named(ctx)
        table = await _table(view)
        return self._tune(ctx, view, table, path) if tuning else self._enable(ctx, view, table, path)

    def _enable(self, ctx: HandlerContext, view: StorageView, table: MountTable, path: str) -> Response:
        _free(table, path)
        if len(table.mounts) >= MOUNTS_MAX:
            raise FailedPrecondition(f"{MOUNTS_MAX} engines are enabled, the most allowed: disable one first")
        type_ = fields.text(ctx.data, "type") or path.removesuffix("/")
        if not _TYPE.fullmatch(type_) or type_ not in self._engines:
            raise InvalidArgument(
                f"there is no such engine; there are: {', '.join(sorted(self._engines))}", field="type"
            )
        mount = new_mount(
            engine=type_,
            created=rfc3339(ctx.now),
            options=self._options(type_, ctx.data),
            description=fields.text(ctx.data, "description"),
            random_bytes=ctx.random_bytes,
        )
        _store(view, table, {**table.mounts, path: mount})
        return Response()

    def _tune(self, ctx: HandlerContext, view: StorageView, table: MountTable, path: str) -> Response:
        mount = _mounted(table, path)
        if "type" in ctx.data:
            raise InvalidArgument(
                "the engine of a mount cannot be changed; tuning takes: " + ", ".join(_CHANGE), field="type"
            )
        changes: dict[str, Any] = {}
        if "description" in ctx.data:
            changes["description"] = fields.text(ctx.data, "description")
        if "options" in ctx.data:
            changes["options"] = {**mount.options, **self._options(mount.type, ctx.data)}
        _store(view, table, {**table.mounts, path: msgspec.structs.replace(mount, **changes)})
        return Response()

    def _options(self, type_: str, data: Mapping[str, Any]) -> dict[str, str]:
        options: dict[str, str] = {}
        for name, value in (fields.mapping(data, "options") or {}).items():
            if not isinstance(value, str | int | bool):
                raise InvalidArgument("an option is not a string, a number or a boolean", field="options")
            options[name] = str(value).lower() if isinstance(value, bool) else str(value)
        check = getattr(self._engines.get(type_), "check_options", None)
        if check is not None:
            check(options)
        elif options:
            raise InvalidArgument("the engine takes no options", field="options")
        return options


async def _list(ctx: HandlerContext, view: StorageView) -> Response:  # noqa: ARG001  (the contract's form)
    mounts = {path: _shown(mount) for path, mount in (await _table(view)).mounts.items()}
    mounts["sys/"] = _shown(Mount(type="system", uuid="", created="", description="system endpoints"))
    return Response(data=dict(sorted(mounts.items())))


async def _read(ctx: HandlerContext, view: StorageView) -> Response:
    path, tuning = _named(ctx)
    mount = _mounted(await _table(view), path)
    if tuning:
        return Response(data={"description": mount.description, "options": mount.options or None})
    return Response(data=_shown(mount))


async def _exists(ctx: HandlerContext, view: StorageView) -> bool:
    path, tuning = _named(ctx)
    return tuning or path in (await _table(view)).mounts


async def _disable(ctx: HandlerContext, view: StorageView) -> Response:
    path, tuning = _named(ctx)
    if tuning:
        raise InvalidArgument("what is disabled is a mount, not its settings: leave out /tune", field="path")
    table = await _table(view)
    mounts = dict(table.mounts)
    mount = mounts.pop(path, None)
    if mount is not None:  # what is not there is disabled already, as Vault has it
        _store(view, table, mounts, (*table.dropping, mount.view_prefix))
    return Response()


async def _move(ctx: HandlerContext, view: StorageView) -> Response:
    source, target = (_path(fields.text(ctx.data, name), name) for name in ("from", "to"))
    table = await _table(view)
    mounts = dict(table.mounts)
    mount = mounts.pop(source, None)
    if mount is None:
        raise NotFound("no engine is enabled at the path to move from: see sys/mounts")
    _free(MountTable(mounts), target)
    _store(view, table, {**mounts, target: mount})
    return Response()


def _named(ctx: HandlerContext) -> tuple[str, bool]:
    """The mount that a path names, and whether it means its settings."""
    given = ctx.fields["path"]
    head, _, last = given.rpartition("/")
    return (f"{head}/", True) if last == _TUNE and head else (f"{given}/", False)


def _path(given: str, field: str) -> str:
    path = given.strip("/")
    try:
        split(path, Operation.READ)
    except InvalidArgument:
        raise InvalidArgument(f"{field} must be the path of a mount", field=field) from None
    return path + "/"


def _mounted(table: MountTable, path: str) -> Mount:
    mount = table.mounts.get(path)
    if mount is None:
        raise NotFound("no engine is enabled at this path: see sys/mounts")
    return mount


def _free(table: MountTable, path: str) -> None:
    """Raise unless an engine can be enabled at a path: mounts do not stand in one another."""
    if path.split("/")[0] in RESERVED:
        raise InvalidArgument(f"a mount's path does not begin with {', '.join(RESERVED)}", field="path")
    if path.removesuffix("/").endswith("/tune") or path == "tune/":
        raise InvalidArgument('a mount\'s path does not end in "tune"', field="path")
    for other in table.mounts:
        if path == other:
            raise AlreadyExists("an engine is enabled at this path: disable or move it first, or choose another path")
        if path.startswith(other) or other.startswith(path):
            raise AlreadyExists("an engine is enabled above or below this path: choose a path of its own")


def _store(
    view: StorageView, table: MountTable, mounts: Mapping[str, Mount], dropping: Sequence[str] | None = None
) -> None:
    view.put(MOUNTS_NAME, MountTable(mounts, table.dropping if dropping is None else dropping).encode())


async def _table(view: StorageView) -> MountTable:
    record = await view.get(MOUNTS_NAME)
    if record is None:
        raise Corruption("the mount table is missing from an initialised cluster: restore it from a snapshot")
    return MountTable.decode(record)


def _shown(mount: Mount) -> dict[str, Any]:
    return {
        "type": mount.type,
        "uuid": mount.uuid,
        "description": mount.description,
        "options": mount.options or None,
        "created_time": mount.created,
    }
