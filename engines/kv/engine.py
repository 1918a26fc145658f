"""The KV engine: its paths, and for each operation what is read, decided and written.

meta/<path>              the secret's metadata (`secret.Secret`)
versions/<id>/<number>   the data of one version, JSON

The two change in one batch, so that metadata never names data that is not there. No clock and no randomness but the
context's: a handler may run again after a conflict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from holdfast.core.plugin import HandlerContext, Operation, OperationSpec, PathSpec, Response, StorageView, fields
from holdfast.core.plugin.jsondata import decode, encode
from holdfast.engines.kv.fields import LIST_LIMIT_MAX, check_cas, secret_data, settings, version_numbers
from holdfast.engines.kv.merge import merge_patch, subkeys
from holdfast.engines.kv.responses import secret_metadata, version_metadata
from holdfast.engines.kv.secret import Secret
from holdfast.proto.errors import Corruption, InvalidArgument, NotFound

SECRET_ID_BYTES = 16

_NOTHING = Response()


class KvEngine:
    """Versioned secrets. Stateless: everything is in the view."""

    @property
    def type(self) -> str:
        """See Engine."""
        return "kv"

    def paths(self) -> Sequence[PathSpec]:
        """See Engine."""
        return _PATHS

    def check_options(self, options: Mapping[str, str]) -> None:
        """Raise InvalidArgument for options of a mount that this engine does not take."""
        if not options.keys() <= {"version"}:
            raise InvalidArgument("the engine kv takes one option: version", field="options")
        if options.get("version", "2") != "2":
            raise InvalidArgument('version must be "2": this version has no unversioned secrets', field="options")


async def read_data(ctx: HandlerContext, view: StorageView) -> Response:
    """A version's data and metadata; data is None when the version is deleted or destroyed."""
    secret, number = await _version_asked_for(ctx, view)
    data = await _data(view, secret, number) if secret.versions[number].readable(ctx.now) else None
    return Response(data={"data": data, "metadata": version_metadata(secret, number)})


async def write_data(ctx: HandlerContext, view: StorageView) -> Response:
    """A new version."""
    encoded = encode(secret_data(ctx.data), field="data")
    secret = await _load(ctx, view)
    check_cas(ctx.data, secret)
    return _add_version(ctx, view, secret or _new(ctx), encoded)


async def patch_data(ctx: HandlerContext, view: StorageView) -> Response:
    """A new version that is the current one with a JSON merge patch applied (RFC 7396)."""
    patch = secret_data(ctx.data)
    secret = await _load(ctx, view)
    if secret is None:
        raise _not_found()
    check_cas(ctx.data, secret)
    current = secret.version(0)
    if current is None or not current.readable(ctx.now):
        raise NotFound("the current version has no data to patch: it is deleted, destroyed or was never written")
    merged = merge_patch(await _data(view, secret, secret.current), patch)
    return _add_version(ctx, view, secret, encode(merged, field="data"))


async def delete_latest(ctx: HandlerContext, view: StorageView) -> Response:
    """Soft-delete the current version, if there is one."""
    secret = await _load(ctx, view)
    if secret is not None:
        _store(ctx, view, secret, secret.with_deleted([secret.current], ctx.now))
    return _NOTHING


async def delete_versions(ctx: HandlerContext, view: StorageView) -> Response:
    """Soft-delete versions."""
    numbers = version_numbers(ctx.data)
    secret = await _load(ctx, view)
    if secret is not None:
        _store(ctx, view, secret, secret.with_deleted(numbers, ctx.now))
    return _NOTHING


async def undelete_versions(ctx: HandlerContext, view: StorageView) -> Response:
    """Bring soft-deleted versions back."""
    numbers = version_numbers(ctx.data)
    secret = await _load(ctx, view)
    if secret is not None:
        _store(ctx, view, secret, secret.with_undeleted(numbers, ctx.now))
    return _NOTHING


async def destroy_versions(ctx: HandlerContext, view: StorageView) -> Response:
    """Remove the data of versions for good."""
    numbers = version_numbers(ctx.data)
    secret = await _load(ctx, view)
    if secret is not None:
        changed, destroyed = secret.with_destroyed(numbers)
        _store(ctx, view, secret, changed)
        _drop(view, secret, destroyed)
    return _NOTHING


async def read_metadata(ctx: HandlerContext, view: StorageView) -> Response:
    """A secret's settings and the metadata of its versions."""
    secret = await _load(ctx, view)
    if secret is None:
        raise _not_found()
    return Response(data=secret_metadata(secret))


async def write_metadata(ctx: HandlerContext, view: StorageView) -> Response:
    """Change a secret's settings; makes a secret without versions when there is none."""
    changes = settings(ctx.data)
    if changes:
        secret = await _load(ctx, view)
        _store(ctx, view, secret, (secret or _new(ctx)).with_settings(**changes))
    return _NOTHING


async def delete_metadata(ctx: HandlerContext, view: StorageView) -> Response:
    """Remove a secret whole."""
    secret = await _load(ctx, view)
    if secret is not None:
        view.delete(_meta(ctx))
        _drop(view, secret, secret.stored_versions())
    return _NOTHING


async def list_secrets(ctx: HandlerContext, view: StorageView) -> Response:
    """A page of the names directly below a path. Without a limit the first 1,000, and a warning if there are more."""
    after = fields.text(ctx.data, "after")
    limit = fields.integer(ctx.data, "limit", minimum=1, maximum=LIST_LIMIT_MAX)
    below = f"meta/{ctx.fields['path']}".removesuffix("/")
    names = list(await view.list(below, after=after, limit=limit or LIST_LIMIT_MAX))
    if not names and not after:
        raise NotFound("nothing is stored below this path")
    warnings: tuple[str, ...] = ()
    if limit is None and len(names) >= LIST_LIMIT_MAX and await view.list(below, after=names[-1], limit=1):
        warnings = (f'there are more than {LIST_LIMIT_MAX} names: ask for the next page with "after" = the last key',)
    return Response(data={"keys": names}, warnings=warnings)


async def read_subkeys(ctx: HandlerContext, view: StorageView) -> Response:
    """The names inside a version's data, without the values."""
    depth = fields.integer(ctx.data, "depth") or 0
    secret, number = await _version_asked_for(ctx, view)
    names = None
    if secret.versions[number].readable(ctx.now):
        names = subkeys(await _data(view, secret, number), depth)
    return Response(data={"subkeys": names, "metadata": version_metadata(secret, number)})


async def secret_exists(ctx: HandlerContext, view: StorageView) -> bool:
    """Whether there is a secret, be all its versions deleted."""
    return await _load(ctx, view) is not None


async def _version_asked_for(ctx: HandlerContext, view: StorageView) -> tuple[Secret, int]:
    wanted = fields.integer(ctx.data, "version") or 0
    secret = await _load(ctx, view)
    if secret is None:
        raise _not_found()
    if secret.version(wanted) is None:
        raise NotFound("the secret has no such version: it was never written, or newer ones have pushed it out")
    return secret, wanted or secret.current


def _add_version(ctx: HandlerContext, view: StorageView, secret: Secret, encoded: bytes) -> Response:
    changed, dropped = secret.with_new_version(ctx.now)
    _store(ctx, view, secret, changed)
    view.put(_body(secret, changed.current), encoded)
    _drop(view, secret, dropped)
    return Response(data=version_metadata(changed, changed.current))


def _store(ctx: HandlerContext, view: StorageView, before: Secret | None, after: Secret) -> None:
    if after is not before:
        view.put(_meta(ctx), after.encode())


def _drop(view: StorageView, secret: Secret, numbers: Iterable[int]) -> None:
    for number in numbers:
        view.delete(_body(secret, number))


async def _load(ctx: HandlerContext, view: StorageView) -> Secret | None:
    record = await view.get(_meta(ctx))
    if record is None:
        return None
    try:
        return Secret.decode(record)
    except (msgspec.MsgspecError, ValueError):
        # Not chained: the cause may quote the record.
        raise Corruption("a secret's metadata does not parse: restore this node from its peers") from None


async def _data(view: StorageView, secret: Secret, number: int) -> dict[str, Any]:
    record = await view.get(_body(secret, number))
    if record is None:
        raise Corruption("a version's data is missing although its metadata stands: restore this node from its peers")
    try:
        data = decode(record)
    except ValueError:
        raise Corruption("a version's data does not parse: restore this node from its peers") from None
    assert isinstance(data, dict), "only objects are stored"
    return data


def _new(ctx: HandlerContext) -> Secret:
    return Secret(id=ctx.random_bytes(SECRET_ID_BYTES).hex(), created=ctx.now, updated=ctx.now)


def _meta(ctx: HandlerContext) -> str:
    return f"meta/{ctx.fields['path']}"


def _body(secret: Secret, number: int) -> str:
    return f"versions/{secret.id}/{number}"


def _not_found() -> NotFound:
    return NotFound("no secret is stored at this path")


_VERSION = {"version": "the version to read; 0 or nothing for the current one"}
_VERSIONS = {"versions": "the numbers of the versions"}
_WRITE = {"data": "the secret, a JSON object of at most 1 MiB", "options": 'an object; "cas" is the current version'}
_SETTINGS = {
    "max_versions": "how many versions are kept; 0 for the default of 10",
    "cas_required": "whether every write must send options.cas",
    "delete_version_after": 'how long a new version lives, such as "720h"; "0s" for ever',
    "custom_metadata": "up to 64 strings by name; replaces those there are",
}
_PAGE = {"after": "the last name of the page before", "limit": "how many names at most, up to 1,000"}

_PUT_DATA = OperationSpec(write_data, "Write a new version.", _WRITE)
_PUT_METADATA = OperationSpec(write_metadata, "Change the settings of a secret.", _SETTINGS)

_PATHS: tuple[PathSpec, ...] = (
    PathSpec(
        "data/{path...}",
        {
            Operation.READ: OperationSpec(read_data, "Read a version, by default the current one.", _VERSION),
            Operation.CREATE: _PUT_DATA,
            Operation.UPDATE: _PUT_DATA,
            Operation.PATCH: OperationSpec(patch_data, "Merge a patch into the current version (RFC 7396).", _WRITE),
            Operation.DELETE: OperationSpec(delete_latest, "Soft-delete the current version."),
        },
        "The data of a secret.",
        exists=secret_exists,
    ),
    PathSpec(
        "delete/{path...}",
        {Operation.UPDATE: OperationSpec(delete_versions, "Soft-delete versions.", _VERSIONS)},
        "Soft-deletes versions of a secret.",
    ),
    PathSpec(
        "undelete/{path...}",
        {Operation.UPDATE: OperationSpec(undelete_versions, "Bring soft-deleted versions back.", _VERSIONS)},
        "Brings versions of a secret back.",
    ),
    PathSpec(
        "destroy/{path...}",
        {Operation.UPDATE: OperationSpec(destroy_versions, "Remove the data of versions for good.", _VERSIONS)},
        "Removes versions of a secret for good.",
    ),
    PathSpec(
        "metadata/{path...}",
        {
            Operation.READ: OperationSpec(read_metadata, "Read the settings and the versions' metadata."),
            Operation.CREATE: _PUT_METADATA,
            Operation.UPDATE: _PUT_METADATA,
            Operation.LIST: OperationSpec(list_secrets, "List the names directly below a path.", _PAGE),
            Operation.DELETE: OperationSpec(delete_metadata, "Remove a secret with all its versions."),
        },
        "The settings of a secret, and the list of secrets.",
        exists=secret_exists,
    ),
    PathSpec(
        "subkeys/{path...}",
        {
            Operation.READ: OperationSpec(
                read_subkeys,
                "Read the names inside a version, without the values.",
                {**_VERSION, "depth": "how many levels to show; 0 for all"},
            )
        },
        "The structure of a secret.",
    ),
)
