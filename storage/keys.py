"""The form of physical keys, which both sides know: a class byte, then segments. No cryptography in here.

    key     = class segment*
    class   = "c" (cluster: never leaves the cluster) | "s" (shared) | "l" (local)
    segment = length (2 bytes, big-endian) ciphertext (`length` bytes)

A path's key is a prefix of the keys below it, so that listing is a seek-and-skip scan.
"""

from __future__ import annotations

import enum

SEGMENT_BYTES_MAX = 1024
"""The longest encrypted segment, in bytes."""

KEY_BYTES_MAX = 4000
"""The longest physical key, in bytes."""


CLEAR_SEGMENT_BYTES_MAX = 16
"""The longest segment that is a readable name, in bytes. An encrypted segment is always longer: its first 16 bytes are
the synthetic IV (RFC 5297). So the two can never be taken for each other, and the readable ones sort first."""


CLEAR_NAMES_START, CLEAR_NAMES_END = b"c\x00\x01", b"c" + (CLEAR_SEGMENT_BYTES_MAX + 1).to_bytes(2, "big")
"""The range of the cluster records under readable names: what a sealed node needs, the seal and the keyring."""


class KeyClass(bytes, enum.Enum):
    """Where a key's record may travel."""

    CLUSTER = b"c"
    SHARED = b"s"
    LOCAL = b"l"


def frame(ciphertext: bytes) -> bytes:
    """One segment in its stored form."""
    if not 0 < len(ciphertext) <= SEGMENT_BYTES_MAX:
        raise ValueError(f"segment of {len(ciphertext)} bytes; 1 to {SEGMENT_BYTES_MAX} allowed")
    return len(ciphertext).to_bytes(2, "big") + ciphertext


def cluster_key(name: str) -> bytes:
    """The key of a cluster record whose name is no secret ("keyring", "seal/shamir") and is needed while sealed.

    Raises ValueError when the name is longer than CLEAR_SEGMENT_BYTES_MAX."""
    clear = name.encode()
    if len(clear) > CLEAR_SEGMENT_BYTES_MAX:
        raise ValueError(f"a cluster record's name has {len(clear)} bytes; at most {CLEAR_SEGMENT_BYTES_MAX} allowed")
    return KeyClass.CLUSTER.value + frame(clear)


def segment_at(key: bytes, offset: int) -> bytes:
    """The framed segment (length and ciphertext) that begins at `offset` of a key.

    Raises ValueError when the key is too short for the length it names."""
    end = offset + 2 + int.from_bytes(key[offset : offset + 2], "big")
    if len(key) < offset + 3 or len(key) < end:
        raise ValueError("truncated segment in a physical key")
    return key[offset:end]


def successor(prefix: bytes) -> bytes | None:
    """The smallest byte string greater than every string that begins with `prefix`; None when there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None
