"""The engines that the core brings itself: `sys/` and `auth/token/`, under the same contract as every other engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.core import tokens
from holdfast.core.mounts import MOUNTS_PATH, Mount, MountTable
from holdfast.core.plugin import HandlerContext, Operation, OperationSpec, PathSpec, Response, StorageView
from holdfast.core.router import SystemMount
from holdfast.core.tokens.engine import TokenEngine
from holdfast.proto.errors import Corruption

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


def _mount(mount: Mount) -> dict[str, Any]:
    return {
        "type": mount.type,
        "uuid": mount.uuid,
        "description": mount.description,
        "options": mount.options or None,
        "created_time": mount.created,
    }
