"""The wrap of the root key that a provider's record holds. Pure.

    wrapping key  = 32 random bytes, made for this wrap alone
    sealed key    = the wrapping key, as the provider wrapped it
    wrap          = format (1 byte, 1) length of the sealed key (2, big-endian) sealed key
                    nonce (12) AES-256-GCM(wrapping key, root key) with its tag
    associated data = the binding (cluster id, type, name), then everything before the ciphertext

The provider wraps a key of ours instead of the root key itself. Who holds the provider's key, or listens there, needs
the record as well; the binding holds whatever the provider authenticates; and every kind has the same form and tests.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.cluster.seal.providers.contract import Binding, Health, ProviderError
from holdfast.storage.keyring import KEY_BYTES

SEALED_BYTES_MAX = 8192
_FORMAT = 1
_NONCE_BYTES = 12
_CIPHERTEXT_BYTES = KEY_BYTES + 16


def seal(
    root_key: bytes, wrapping_key: bytes, sealed_key: bytes, binding: Binding, random_bytes: Callable[[int], bytes]
) -> bytes:
    """The wrap of `root_key`. sealed_key: `wrapping_key` as the provider wrapped it, 1 to SEALED_BYTES_MAX bytes."""
    assert len(root_key) == len(wrapping_key) == KEY_BYTES
    assert 0 < len(sealed_key) <= SEALED_BYTES_MAX
    header = bytes((_FORMAT,)) + len(sealed_key).to_bytes(2, "big") + sealed_key + random_bytes(_NONCE_BYTES)
    return header + AESGCM(wrapping_key).encrypt(header[-_NONCE_BYTES:], root_key, binding.aad + header)


def sealed_key(wrap: bytes) -> bytes:
    """What the provider is to unwrap. Raises ProviderError when `wrap` is none."""
    length = int.from_bytes(wrap[1:3], "big")
    if len(wrap) != 3 + length + _NONCE_BYTES + _CIPHERTEXT_BYTES or wrap[0] != _FORMAT or not length:
        raise ProviderError(Health.FAILED, "the stored wrap has an unknown form: remove the provider and add it again")
    return wrap[3 : 3 + length]


def unseal(wrap: bytes, wrapping_key: bytes, binding: Binding) -> bytes:
    """The root key in `wrap`, 32 bytes. Raises ProviderError when the key that the provider gave does not open it, or
    the wrap is not this provider's."""
    header = wrap[:-_CIPHERTEXT_BYTES]
    if len(wrapping_key) == KEY_BYTES:
        try:
            return AESGCM(wrapping_key).decrypt(header[-_NONCE_BYTES:], wrap[-_CIPHERTEXT_BYTES:], binding.aad + header)
        except InvalidTag:
            pass
    raise ProviderError(
        Health.WRONG_KEY,
        "what the provider gave does not open the stored wrap: it uses another key, or the wrap is not this provider's;"
        " restore the key there, or remove the provider and add it again",
    )


def same(one: bytes, other: bytes) -> bool:
    """Whether two keys are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(one, other)
