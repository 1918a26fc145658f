"""Keyed hashes of what an audit entry must not show, and the key they are made with."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any

from holdfast.core.plugin import StorageView
from holdfast.proto.errors import Corruption

AUDIT_PREFIX = "local/audit"

KEY_BYTES = 32

VALUES_MAX = 4096
"""How many values of one request or answer are hashed one by one. More of them stand under one hash, so that nobody
makes a node compute hundreds of thousands of hashes, and write lines of tens of megabytes, with a small request."""


class Hasher:
    """Keyed hashes of sensitive values: equal values can be told, and a guess checked by who holds the key."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def hash(self, value: str) -> str:
        """ "hmac-sha256:" and hex digits, Vault's form; empty for an empty value."""
        if not value:
            return ""
        return "hmac-sha256:" + hmac.digest(self._key, value.encode(errors="surrogatepass"), "sha256").hex()

    def scrub(self, value: Any) -> Any:
        """A JSON value with every string and number hashed; names, booleans and null stay. One that holds over
        VALUES_MAX values is one hash, of its JSON with sorted members and without spaces."""
        if _holds_over(value, VALUES_MAX):
            return self.hash(json.dumps(value, sort_keys=True, separators=(",", ":")))
        return self._scrub(value)

    def _scrub(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._scrub(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._scrub(item) for item in value]
        return value if value is None or isinstance(value, bool) else self.hash(str(value))

    def __repr__(self) -> str:
        return "<Hasher>"


def _holds_over(value: Any, count: int) -> bool:
    """Whether a JSON value holds more than `count` values, objects and lists among them."""
    level = [value]
    while level:
        count -= len(level)
        if count < 0:
            return True
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list | tuple):
                below.extend(item)
        level = below
    return False


def create_key(view: StorageView, random_bytes: Callable[[int], bytes]) -> None:
    """Make the cluster's audit key. Once, at bootstrap."""
    view.put("key", random_bytes(KEY_BYTES))


async def load_hasher(view: StorageView) -> Hasher:
    """Raises Corruption when an initialised cluster has no audit key."""
    key = await view.get("key")
    if key is None or len(key) != KEY_BYTES:
        raise Corruption("the audit key is missing or damaged: restore this cluster from a snapshot")
    return Hasher(key)
