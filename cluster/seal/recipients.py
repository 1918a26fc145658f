"""Shares that only their holders can read: encrypted on the node that makes them, to OpenPGP keys or to age recipients.

The two libraries are extras of the distribution and imported by whoever asks for them. Their errors are not passed on:
they render stack traces.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast.proto.errors import InvalidArgument, Unimplemented

KEY_CHARS_MAX = 64 * 1024
"""The longest OpenPGP key or age recipient, in characters."""


class Recipients(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom the shares are for, one each, in their order.

    kind: "pgp" (keys: OpenPGP certificates, ASCII-armored or base64) or "age" (keys: "age1..." or an SSH public key).
    """

    kind: str
    keys: tuple[str, ...]

    def fingerprints(self) -> tuple[str, ...]:
        """What tells the recipients apart: OpenPGP fingerprints in hexadecimal digits; age recipients as they are."""
        if self.kind == "pgp":
            return tuple(str(_certificate(key, number).fingerprint) for number, key in enumerate(self.keys, 1))
        return self.keys

    def encrypt(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Each text for its recipient, ASCII-armored. Raises InvalidArgument for a key that cannot be used."""
        assert len(texts) == len(self.keys), "one recipient for each text"
        one = _pgp if self.kind == "pgp" else _age
        return tuple(one(text, key, number) for number, (text, key) in enumerate(zip(texts, self.keys, strict=True), 1))


def checked(kind: str, keys: Sequence[str], count: int) -> Recipients:
    """Recipients that were seen to work. count: how many there must be.

    Raises InvalidArgument, and Unimplemented when the library is not installed on this node."""
    field = "pgp_keys" if kind == "pgp" else "age_recipients"
    if len(keys) != count:
        raise InvalidArgument(f"{count} keys are needed, one for each share, and {len(keys)} were given", field=field)
    if any(not 0 < len(key) <= KEY_CHARS_MAX for key in keys):
        raise InvalidArgument(f"a key has 1 to {KEY_CHARS_MAX} characters", field=field)
    recipients = Recipients(kind, tuple(keys))
    recipients.encrypt(["trial"] * count)
    return recipients


def _pgp(text: str, key: str, number: int) -> str:
    certificate = _certificate(key, number)
    try:
        return bytes(_library("pysequoia", "pgp").encrypt(recipients=[certificate], bytes=text.encode())).decode()
    except RuntimeError:
        problem = f"OpenPGP key {number} has no valid key for encryption (any more)"
    raise InvalidArgument(f"{problem}: export a current public key", field="pgp_keys")


def _certificate(key: str, number: int) -> Any:
    raw = key.strip().encode(errors="replace")
    if not raw.startswith(b"-----BEGIN"):
        try:
            raw = base64.b64decode(raw, validate=True)
        except binascii.Error:
            raw = b""
    try:
        return _library("pysequoia", "pgp").Cert.from_bytes(raw)
    except RuntimeError:
        problem = f"OpenPGP key {number} cannot be read"
    raise InvalidArgument(f"{problem}: give an exported public key, ASCII-armored or base64", field="pgp_keys")


def _age(text: str, key: str, number: int) -> str:
    pyrage = _library("pyrage", "age")
    kind = pyrage.ssh if key.startswith("ssh-") else pyrage.x25519
    try:
        return bytes(pyrage.encrypt(text.encode(), [kind.Recipient.from_str(key.strip())], armored=True)).decode()
    except (pyrage.RecipientError, pyrage.EncryptError):
        problem = f"age recipient {number} cannot be used"
    raise InvalidArgument(f"{problem}: give an age1... recipient or an SSH public key", field="age_recipients")


def _library(name: str, extra: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise Unimplemented(
            f"this node cannot encrypt shares so: install holdfast[{extra}] on every node that may lead, or have the"
            " shares shown in the clear"
        ) from None
