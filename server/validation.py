"""Checks of the typed services' fields. Every refusal names its field and never quotes what was sent: a path may be as
telling as a secret.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from holdfast.core.request import PATH_BYTES_MAX
from holdfast.proto.errors import InvalidArgument
from holdfast.server.limits import (
    MOUNT_BYTES_MAX,
    PAGE_SIZE_MAX,
    PAGE_TOKEN_BYTES_MAX,
    VERSIONS_PER_CALL_MAX,
)

DEFAULT_MOUNT = "secret"
_PAGE_TOKEN_FORMAT = b"\x01"


def check_mount(mount: str) -> str:
    """The mount that a message names; the default one for an empty name."""
    if not mount:
        return DEFAULT_MOUNT
    _check_path(mount, "mount", MOUNT_BYTES_MAX)
    return mount


def check_path(path: str) -> str:
    """A path below a mount, which must name something."""
    if not path:
        raise InvalidArgument("path must not be empty", field="path")
    _check_path(path, "path", PATH_BYTES_MAX)
    return path


def check_folder(path: str) -> str:
    """A path to list, without its trailing slash; empty for the top of the mount."""
    folder = path.removesuffix("/")
    if path and not folder:
        raise InvalidArgument("path must not begin with '/'; leave it empty for the top of the mount", field="path")
    if folder:
        _check_path(folder, "path", PATH_BYTES_MAX)
    return folder


def check_logical_path(path: str) -> str:
    """A whole path as the generic service takes it; a trailing slash is for LIST and is dropped there."""
    if not path:
        raise InvalidArgument("path must not be empty", field="path")
    _check_path(path.removesuffix("/"), "path", PATH_BYTES_MAX)
    return path


def check_versions(versions: Sequence[int], *, empty_ok: bool = False) -> list[int]:
    """Version numbers, each above 0."""
    if not versions and not empty_ok:
        raise InvalidArgument("versions must name at least one version", field="versions")
    if len(versions) > VERSIONS_PER_CALL_MAX:
        raise InvalidArgument(f"versions has {len(versions)} members; at most {VERSIONS_PER_CALL_MAX} are allowed",
                              field="versions")  # fmt: skip
    if any(not 0 < version < 2**63 for version in versions):
        raise InvalidArgument("versions count from 1", field="versions")
    return list(versions)


def check_page_size(page_size: int) -> int:
    """Names per page; 0 means the most."""
    if page_size > PAGE_SIZE_MAX:
        raise InvalidArgument(f"page_size is at most {PAGE_SIZE_MAX}", field="page_size")
    return page_size or PAGE_SIZE_MAX


def encode_page_token(last_name: str) -> str:
    """An opaque token that continues a listing after a name."""
    return base64.urlsafe_b64encode(_PAGE_TOKEN_FORMAT + last_name.encode()).decode().rstrip("=")


def decode_page_token(token: str) -> str:
    """The name to continue after; empty for the first page."""
    if not token:
        return ""
    try:
        if len(token) > PAGE_TOKEN_BYTES_MAX:
            raise ValueError
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        if not raw.startswith(_PAGE_TOKEN_FORMAT) or len(raw) < 2:
            raise ValueError
        name = raw[1:].decode()
    except (ValueError, binascii.Error):
        raise InvalidArgument(
            "page_token must be the next_page_token of the page before, unchanged", field="page_token"
        ) from None
    _check_path(name.removesuffix("/"), "page_token", PAGE_TOKEN_BYTES_MAX)
    return name


def _check_path(path: str, field: str, bytes_max: int) -> None:
    length = len(path.encode("utf-8", "surrogatepass"))
    if length > bytes_max:
        raise InvalidArgument(f"{field} has {length} bytes; at most {bytes_max} are allowed", field=field)
    if any(character < " " or character == "\x7f" for character in path):
        raise InvalidArgument(f"{field} must not hold control characters", field=field)
    segments = path.split("/")
    if "" in segments:
        raise InvalidArgument(f"{field} must not begin or end with '/' or hold '//'", field=field)
    if "." in segments or ".." in segments:
        raise InvalidArgument(f"{field} must not hold the segments '.' or '..'", field=field)
