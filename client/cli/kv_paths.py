"""Where a secret is: `secret/myapp/db`, or `-mount=secret myapp/db`."""

from __future__ import annotations

from holdfast.client.failures import LocalError


def mount_and_path(mount: str, path: str, *, whole_mount: bool = False) -> tuple[str, str]:
    """The mount and the path below it. Without a mount, the path's first segment names it.

    whole_mount: the path may be the mount itself. Raises LocalError when the path names no secret.
    """
    rest = path.strip("/")
    if not mount.strip("/"):
        mount, _, rest = rest.partition("/")
    if not mount.strip("/") or not (rest or whole_mount):
        raise LocalError(
            "the path names no secret. Write the mount and the path below it, as secret/myapp/db, "
            "or name the mount with -mount.",
            field="path",
        )
    return mount.strip("/"), rest
