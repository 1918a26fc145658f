"""The text form of a share: what an operator keeps, types and pastes.

    text     = "hfs1." base64url(payload), 61 characters
    payload  = set id (4 bytes) threshold (1) y (32) x (1) checksum (4), 42 bytes, so that base64 needs no padding
    checksum = the first 4 bytes of SHA-256("holdfast/seal/share/1" and the payload before it)

The prefix carries the format's version. The checksum finds a mistyped share, the set id one that belongs to another set
(an older one, another cluster), both before any threshold is reached. Neither proves that a share is genuine: only the
key check value of the whole set does. The set id and the threshold are public.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Never

from holdfast.proto.errors import ShareRejected

SET_ID_BYTES = 4
"""The length of a set id. It tells sets apart by accident, not against an adversary."""

SECRET_BYTES = 32
"""The length of the key that is split."""

CORE_BYTES = SECRET_BYTES + 1
"""The length of a share proper: y and x, as Vault's."""

PREFIX = "hfs1."
"""What every share of this format begins with."""

_FAMILY = "hfs"
_PURPOSE = b"holdfast/seal/share/1"
_CHECKSUM_BYTES = 4
_PAYLOAD_BYTES = SET_ID_BYTES + 1 + CORE_BYTES + _CHECKSUM_BYTES
_ENCODED_CHARS = _PAYLOAD_BYTES * 8 // 6
_CHECK_YOURS = "compare it with the original, character by character"

assert _PAYLOAD_BYTES % 3 == 0, "base64 of the payload has neither padding nor spare bits"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Share:
    """One share of one set. `core` is y (32 bytes) and x (1 byte)."""

    set_id: bytes
    threshold: int
    core: bytes

    def __post_init__(self) -> None:
        assert len(self.set_id) == SET_ID_BYTES
        assert len(self.core) == CORE_BYTES
        assert 1 <= self.threshold <= 255
        assert self.x != 0

    @property
    def x(self) -> int:
        """The share's number within its set, 1 to 255."""
        return self.core[-1]

    def encode(self) -> str:
        """One line of printable ASCII. The only way a share's content leaves this object as text."""
        body = self.set_id + bytes((self.threshold,)) + self.core
        return PREFIX + base64.urlsafe_b64encode(body + _checksum(body)).decode("ascii")

    def __repr__(self) -> str:
        return f"<Share {self.x} of set {self.set_id.hex()}>"

    def __reduce__(self) -> Never:
        raise TypeError("a share is never copied or serialised; encode it")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Shares:
    """What an initialisation hands out, once: every share in its text form, in the order of their numbers."""

    set_id: bytes
    threshold: int
    texts: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Shares {len(self.texts)}, threshold {self.threshold}, set {self.set_id.hex()}>"

    def __reduce__(self) -> Never:
        raise TypeError("shares are never copied or serialised")


def decode(text: str) -> Share:
    """The share in a line of text; white space around it does not matter.

    Raises ShareRejected whose details["kind"] is "not_a_share" (it does not look like one), "unknown_version" or
    "mistyped" (it looks like one, and its length, its characters or its checksum are wrong)."""
    text = text.strip()
    if not text.startswith(PREFIX):
        raise _unlike_a_share(text)
    encoded = text[len(PREFIX) :]
    if len(encoded) != _ENCODED_CHARS:
        raise rejected(
            "mistyped",
            f"the share is mistyped: it has {len(text)} characters instead of {len(PREFIX) + _ENCODED_CHARS};"
            f" {_CHECK_YOURS}",
        )
    try:
        payload = base64.b64decode(encoded, altchars=b"-_", validate=True)
    except ValueError:  # of characters outside the alphabet, or outside ASCII
        payload = b""
    body, checksum = payload[:-_CHECKSUM_BYTES], payload[-_CHECKSUM_BYTES:]
    # Shorter than it must be when there was "=" among the characters; "+" and "/" are accepted beside "-" and "_" by
    # some versions of b64decode, so the text must also be the one that encoding gives.
    if len(payload) != _PAYLOAD_BYTES or checksum != _checksum(body) or "+" in encoded or "/" in encoded:
        raise rejected("mistyped", f"the share is mistyped: its checksum does not match; {_CHECK_YOURS}")
    threshold, core = body[SET_ID_BYTES], body[SET_ID_BYTES + 1 :]
    if threshold == 0 or core[-1] == 0:
        raise rejected("not_a_share", "this is not a share: its checksum matches and its numbers cannot be")
    return Share(set_id=body[:SET_ID_BYTES], threshold=threshold, core=core)


def rejected(kind: str, message: str) -> ShareRejected:
    """The error for a share, with a machine-readable kind. The message never holds any part of a share's secret."""
    return ShareRejected(message, details={"kind": kind})


def _unlike_a_share(text: str) -> ShareRejected:
    if text.startswith(_FAMILY) and text[len(_FAMILY) : text.find(".")].isdigit():
        return rejected(
            "unknown_version",
            f"the share is of another format than the one this version reads ({PREFIX[:-1]}): unseal with the version"
            " of Holdfast that the shares were made with, or a newer one",
        )
    return rejected(
        "not_a_share",
        f'this is not a share: a share begins with "{PREFIX}" and has {len(PREFIX) + _ENCODED_CHARS} characters',
    )


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(_PURPOSE + body).digest()[:_CHECKSUM_BYTES]
