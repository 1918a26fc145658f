"""The form of every encrypted value: AES-256-GCM, bound to the key it is stored under. No key is kept in here.

    envelope = format (1 byte, 1) key term (4 bytes, big-endian) nonce (12 bytes) ciphertext tag (16 bytes)
    associated data = format, key term, nonce, physical key

A ciphertext moved to another key, or given another key term, does not open.

The nonce is random, so one key may encrypt at most 2**32 values before the chance that a nonce repeats passes 2**-32
(NIST SP 800-38D, section 8.3). A repeat would give away the authentication key. A key term must therefore be replaced
long before; ENCRYPTIONS_PER_TERM_MAX is where rotation has to come at the latest.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.proto.errors import Corruption

FORMAT = 1
"""The first byte of an envelope of this form."""

NONCE_BYTES = 12
"""The length of a nonce: 96 bits."""

OVERHEAD_BYTES = 1 + 4 + NONCE_BYTES + 16
"""How many bytes an envelope is longer than its plaintext."""

ENCRYPTIONS_PER_TERM_MAX = 2**31
"""How many values one key term may encrypt, cluster-wide: half the bound of SP 800-38D, so that a count that lags
behind (each node knows only its own) still ends in time."""

_TERM_END = 5
_HEADER_END = _TERM_END + NONCE_BYTES

_ADVICE = "restore this node's data from its peers or from a snapshot"


def encrypt(cipher: AESGCM, term: int, nonce: bytes, key: bytes, plaintext: bytes) -> bytes:
    """The envelope of `plaintext` for the physical key `key`. `nonce`: 12 fresh random bytes."""
    assert len(nonce) == NONCE_BYTES, "the source of randomness gave too few bytes"
    header = bytes((FORMAT,)) + term.to_bytes(4, "big") + nonce
    return header + cipher.encrypt(nonce, plaintext, header + key)


def term_of(envelope: bytes) -> int:
    """The key term an envelope was made under. Raises Corruption when it is no envelope of a known form."""
    if len(envelope) < OVERHEAD_BYTES:
        raise Corruption(f"an encrypted record is cut short at {len(envelope)} bytes: {_ADVICE}")
    if envelope[0] != FORMAT:
        raise Corruption(
            f"an encrypted record has the unknown format {envelope[0]}: run a version that knows it, or {_ADVICE}"
        )
    return int.from_bytes(envelope[1:_TERM_END], "big")


def decrypt(cipher: AESGCM, key: bytes, envelope: bytes) -> bytes:
    """The plaintext of the envelope stored under the physical key `key`. Raises Corruption when it does not open."""
    term = term_of(envelope)
    header = envelope[:_HEADER_END]
    try:
        return cipher.decrypt(header[_TERM_END:], envelope[_HEADER_END:], header + key)
    except InvalidTag:
        # The cause is not chained: it says nothing more.
        raise Corruption(
            f"an encrypted record of key term {term} fails authentication: it was changed, moved or"
            f" comes from another cluster; {_ADVICE}"
        ) from None
