"""Sweeping up: records of tokens that have ended, themselves or by one above them. They are refused all the same."""

from __future__ import annotations

from datetime import datetime

from holdfast.core.plugin import StorageView
from holdfast.core.tokens import store
from holdfast.core.tokens.store import Known

PAGE = 200
"""How many tokens one request looks at."""


async def sweep_page(view: StorageView, now: datetime, *, after: str = "") -> tuple[int, str]:
    """Remove what has ended among the next PAGE tokens: (how many were removed, where to go on; empty at the end)."""
    hashes = await view.list("id", after=after, limit=PAGE)
    removed = 0
    for name in hashes:
        entry = await store.entry_at(view, name)
        if entry is not None and (entry.ended(now) or not await store.upheld(view, entry, now)):
            await store.revoke(view, Known(name, entry))
            removed += 1
    return removed, hashes[-1] if len(hashes) >= PAGE else ""
