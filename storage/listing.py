"""Listing without a key: which encrypted segments stand directly below a prefix (law 2).

A segment's frame begins with its length, so no segment is a prefix of another, and everything below a child lies in one
range that a seek jumps over.
"""

from __future__ import annotations

from holdfast.proto.errors import Corruption
from holdfast.storage.keys import segment_at, successor
from holdfast.storage.store import Store

Child = tuple[bytes, bool, bool]
"""A framed segment; whether it has a record itself; whether there are keys below it."""


def children(store: Store, base: bytes, prefix: bytes, after: bytes, limit: int) -> list[Child]:
    """Up to `limit` children of `prefix` that sort after the framed segment `after` (b"" for the first), in key order.

    base: the prefix of the table in the store that holds the records, e.g. b"d"; `prefix` is a physical key, not empty.
    Makes at most two seeks for each child and one more, whatever lies below them. Raises Corruption for a key that is
    not made of segments.
    """
    if not prefix:
        raise ValueError("a prefix has a class byte at least")
    parent = base + prefix
    end = successor(parent)
    found: list[Child] = []
    cursor = successor(parent + after) if after else parent + b"\x00"
    while len(found) < limit and cursor is not None:
        entry = store.seek(cursor, end)
        if entry is None:
            break
        child, segment = _child_of(parent, entry[0])
        if entry[0] != child:
            found.append((segment, False, True))
        else:
            # A key that extends the child's own can only be below it, and is the very next one.
            below = store.seek(child + b"\x00", successor(child))
            found.append((segment, True, below is not None))
        cursor = successor(child)
    return found


def _child_of(parent: bytes, key: bytes) -> tuple[bytes, bytes]:
    try:
        segment = segment_at(key, len(parent))
    except ValueError as error:
        raise Corruption(
            f"a stored key of {len(key)} bytes is not made of whole segments: restore this node from its peers"
        ) from error
    return parent + segment, segment
