"""The engines that the core brings itself: `sys/` and `auth/token/`, under the same contract as every other engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.core import tokens
from holdfast.core.mounts import MOUNTS_PATH, Mount, MountTable
from holdfast.core.plugin import HandlerContext, Operation, OperationSpec, PathSpec, Response, StorageView
from holdfast.core.plugin.times import rfc3339
from holdfast.core.router import SystemMount
from holdfast.proto.errors import Corruption, Unauthenticated

SYSTEM_PREFIX, _MOUNTS_NAME = MOUNTS_PATH.rsplit("/", 1)


class SystemEngine:
    """`sys/`. Its view is the core's own part of the tree."""

    @property
    def type(self) -> str:
        """See Engine."""
        return "system"

    def paths(self) -> Sequence[PathSpec]:
        """See Engine."""
        return (
            PathSpec("mounts", {Operation.READ: OperationSpec(read_mounts, "List the mounts.")}, "The secret engines."),
        )


class TokenEngine:
    """`auth/token/`. Its view is the token store."""

    @property
    def type(self) -> str:
        """See Engine."""
        return "token"

    def paths(self) -> Sequence[PathSpec]:
        """See Engine."""
        lookup = OperationSpec(lookup_self, "Read what is stored of the token that asks.")
        return (PathSpec("lookup-self", {Operation.READ: lookup}, "The token that asks."),)


SYSTEM_MOUNTS = (
    SystemMount("sys/", SystemEngine(), SYSTEM_PREFIX),
    SystemMount("auth/token/", TokenEngine(), tokens.TOKENS_PREFIX),
)


async def read_mounts(ctx: HandlerContext, view: StorageView) -> Response:  # noqa: ARG001  (the contract's form)
    """Every mount by its path, `sys/` among them."""
    record = await view.get(_MOUNTS_NAME)
    if record is None:
        raise Corruption("the mount table is missing from an initialised cluster: restore it from a snapshot")
    mounts = {path: _mount(mount) for path, mount in MountTable.decode(record).mounts.items()}
    mounts["sys/"] = _mount(Mount(type="system", uuid="", created="", description="system endpoints"))
    return Response(data=dict(sorted(mounts.items())))


async def lookup_self(ctx: HandlerContext, view: StorageView) -> Response:
    """The caller's token as Vault shows it, without the token itself: who asks has it, and an answer may be kept."""
    entry = await tokens.lookup_accessor(view, ctx.caller.accessor)
    if entry is None:
        raise Unauthenticated("the token is not valid any more: log in again and send the new token")
    remaining = 0 if entry.expires is None else max(0, int((entry.expires - ctx.now).total_seconds()))
    return Response(
        data={
            "accessor": entry.accessor,
            "creation_time": int(entry.created.timestamp()),
            "creation_ttl": entry.ttl_s,
            "display_name": entry.display_name,
            "expire_time": None if entry.expires is None else rfc3339(entry.expires),
            "explicit_max_ttl": entry.explicit_max_ttl_s,
            "issue_time": rfc3339(entry.created),
            "meta": entry.metadata or None,
            "num_uses": entry.num_uses,
            "orphan": entry.orphan,
            "path": entry.path,
            "period": entry.period_s,
            "policies": list(entry.policies),
            "renewable": False,
            "ttl": remaining,
            "type": entry.type,
        }
    )


def _mount(mount: Mount) -> dict[str, Any]:
    return {
        "type": mount.type,
        "uuid": mount.uuid,
        "description": mount.description,
        "options": mount.options or None,
        "created_time": mount.created,
    }
