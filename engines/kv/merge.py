"""Two walks over JSON: merging a patch into a document, and reducing a document to the names in it. Pure.

Depth is bounded by the JSON that was accepted, so recursion is safe.
"""

from __future__ import annotations

from typing import Any


def merge_patch(target: Any, patch: Any) -> Any:
    """The result of a JSON merge patch (RFC 7396, section 2): null removes a member, an object is merged, anything else
    replaces. Neither argument is changed."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def subkeys(document: dict[str, Any], depth: int) -> dict[str, Any]:
    """The names in a document: every value that is not an object, every empty object, and every object below `depth`
    levels (0: no limit) is replaced by None."""
    return {
        name: subkeys(value, depth - 1 if depth else 0) if isinstance(value, dict) and value and depth != 1 else None
        for name, value in document.items()
    }
