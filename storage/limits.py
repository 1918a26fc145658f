"""What every Store accepts, checked in one place so that the driver and its twin refuse the same things."""

from __future__ import annotations

from collections.abc import Sequence

STORE_KEY_BYTES_MAX = 4096
"""The longest key of a store, in bytes; the shortest has one."""

STORE_VALUE_BYTES_MAX = 4 * 1024 * 1024
"""The largest value of a store, in bytes."""


def check_write(puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
    """Raise ValueError for a key or value out of limits. Requests are refused long before: only a bug comes here."""
    for key, value in puts:
        check_key(key)
        if len(value) > STORE_VALUE_BYTES_MAX:
            raise ValueError(f"a value of {len(value)} bytes; at most {STORE_VALUE_BYTES_MAX} allowed")
    for key in deletes:
        check_key(key)


def check_key(key: bytes) -> None:
    """Raise ValueError for a key out of limits."""
    if not 0 < len(key) <= STORE_KEY_BYTES_MAX:
        raise ValueError(f"a key of {len(key)} bytes; 1 to {STORE_KEY_BYTES_MAX} allowed")
