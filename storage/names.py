"""Encrypted names: one path segment at a time, deterministic, so that a path can be looked up and a prefix listed.

AES-SIV (RFC 5297) under the name key, a 64-byte key (AES-256), with the parent's physical key as associated data: equal
names in different folders look different, and a segment moved to another folder does not open. Within one folder equal
names give equal ciphertext, which is what makes a name a key; the threat model says what that shows.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from holdfast.proto.errors import Corruption
from holdfast.storage import keys

NAME_KEY_BYTES = 64
"""The length of the name key."""

SIV_BYTES = 16
"""How many bytes a segment's ciphertext is longer than its name."""

_ADVICE = "restore this node's data from its peers or from a snapshot"


def encrypt_segment(cipher: AESSIV, parent_key: bytes, name: str) -> bytes:
    """The framed segment of `name` (1 to 512 bytes of UTF-8) below `parent_key`."""
    return keys.frame(cipher.encrypt(name.encode(), [parent_key]))


def decrypt_segment(cipher: AESSIV, parent_key: bytes, segment: bytes) -> str:
    """The name in a framed segment. Raises Corruption when it is none, or was not made for this parent."""
    try:
        whole = keys.segment_at(segment, 0) == segment
    except ValueError:
        whole = False
    if not whole or len(segment) <= 2 + SIV_BYTES:
        raise Corruption(f"an encrypted name has the wrong length ({len(segment)} bytes): {_ADVICE}")
    try:
        return cipher.decrypt(segment[2:], [parent_key]).decode()
    except (InvalidTag, UnicodeDecodeError):
        # Not chained: a decoding error carries the bytes it failed on.
        raise Corruption(
            f"an encrypted name fails authentication (changed, moved, or of another cluster): {_ADVICE}"
        ) from None
