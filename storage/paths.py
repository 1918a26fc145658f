"""The form of logical storage paths: a class, then names, separated by "/". Nothing encrypted, nothing stored.

path = ("cluster" | "shared" | "local") ("/" name)*
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from holdfast.proto.errors import InvalidArgument
from holdfast.storage.keys import KeyClass

NAME_BYTES_MAX = 512
"""The longest name of one segment, in bytes of UTF-8."""

_CLASSES = {"cluster": KeyClass.CLUSTER, "shared": KeyClass.SHARED, "local": KeyClass.LOCAL}


def check_name(name: str) -> None:
    """Raise InvalidArgument when `name` cannot be a segment. The message never repeats the name."""
    if not name:
        raise InvalidArgument("a path has an empty segment: remove the doubled, leading or trailing '/'", field="path")
    if name in (".", ".."):
        raise InvalidArgument("a path has the segment '.' or '..': write the whole path", field="path")
    if "/" in name:
        raise InvalidArgument("a name has a '/': name one segment at a time", field="path")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        # Not chained: the cause carries the name.
        raise InvalidArgument("a path is not valid Unicode: send it as UTF-8", field="path") from None
    if size > NAME_BYTES_MAX:
        raise InvalidArgument(f"a path segment has {size} bytes: at most {NAME_BYTES_MAX} are allowed", field="path")
    if not (name.isascii() and name.isprintable()) and any(unicodedata.category(c) == "Cc" for c in name):
        raise InvalidArgument("a path has a control character: remove it", field="path")


def split(path: str) -> tuple[KeyClass, Sequence[str]]:
    """The class and the checked names of a path. Raises InvalidArgument."""
    first, *names = path.split("/")
    key_class = _CLASSES.get(first)
    if key_class is None:
        raise InvalidArgument("a storage path must begin with 'cluster', 'shared' or 'local'", field="path")
    for name in names:
        check_name(name)
    return key_class, names
