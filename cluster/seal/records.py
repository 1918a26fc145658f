"""The seal's record: how the root key is wrapped under the Shamir-split share key, and what the seal is.

It stands in the clear under `cluster_key("seal/shamir")`, since a sealed node must read it. Nothing in it is secret.

    record      = format (1 byte, 1) msgpack of SealConfig
    check value = the first 8 bytes of HMAC-SHA-256(share key, "holdfast/seal/check/1" and the binding)
    wrap key    = HMAC-SHA-256(share key, "holdfast/seal/wrap/1" and the binding)
    wrapped     = format (1 byte, 1) nonce (12 bytes) AES-256-GCM(wrap key, root key) with its tag
    binding     = cluster id, set id (4 bytes), shares (1), threshold (1); also the wrap's associated data, after
                  "holdfast/seal/wrap/1", format and nonce

The check value tells a wrong set of shares from a damaged record. It is computed from 256 bits that fewer shares than
the threshold say nothing about, so that it helps nobody to guess them.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.cluster.seal.shares import SECRET_BYTES, SET_ID_BYTES, rejected
from holdfast.proto.errors import Corruption
from holdfast.storage.decoding import MALFORMED
from holdfast.storage.keyring import KEY_BYTES
from holdfast.storage.keys import cluster_key

SEAL_KEY = cluster_key("seal/shamir")
"""Where the SealConfig is."""

KEYRING_KEY = cluster_key("keyring")
"""Where the keyring is, wrapped under the root key."""

_RECORD_FORMAT = 1
_WRAP_FORMAT = 1
_NONCE_BYTES = 12
_HEADER_BYTES = 1 + _NONCE_BYTES
_WRAPPED_BYTES = _HEADER_BYTES + KEY_BYTES + 16
_CHECK_BYTES = 8
_CHECK_PURPOSE = b"holdfast/seal/check/1"
_WRAP_PURPOSE = b"holdfast/seal/wrap/1"
_REMEDY = "restore it from a peer or a snapshot"


class SealConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Shamir seal of a cluster.

    cluster_id: a random UUID in its text form. created_ms: Unix time in milliseconds, by the clock of the node that
    initialised the cluster. check_value, wrapped_root_key: see the module.
    """

    cluster_id: str
    cluster_name: str
    created_ms: int
    set_id: bytes
    shares: int
    threshold: int
    check_value: bytes
    wrapped_root_key: bytes

    def well_formed(self) -> bool:
        """Whether the numbers and lengths can be those of a seal."""
        return (
            len(self.set_id) == SET_ID_BYTES
            and 1 <= self.threshold <= self.shares <= 255
            and len(self.check_value) == _CHECK_BYTES
            and len(self.wrapped_root_key) == _WRAPPED_BYTES
        )

    def verify(self, share_key: bytes) -> None:
        """Raises ShareRejected when `share_key` is not the one this seal was made with."""
        if not hmac.compare_digest(_check_value(share_key, self._binding), self.check_value):
            raise rejected(
                "wrong_set",
                "the shares given together do not open the seal: at least one of them is not genuine. All of them were"
                " forgotten; begin again, and try other holders' shares if it happens again",
            )

    def unwrap(self, share_key: bytes) -> bytes:
        """The root key, 32 bytes. Raises ShareRejected as `verify`, and Corruption when the share key is right and the
        wrapped key does not open."""
        self.verify(share_key)
        header = self.wrapped_root_key[:_HEADER_BYTES]
        if header[0] != _WRAP_FORMAT:
            raise Corruption(f"the wrapped root key has the unknown format {header[0]}: run a version that knows it")
        cipher = AESGCM(_wrap_key(share_key, self._binding))
        try:
            root_key = cipher.decrypt(
                header[1:], self.wrapped_root_key[_HEADER_BYTES:], _WRAP_PURPOSE + header + self._binding
            )
        except InvalidTag:
            raise Corruption(f"the shares are right and the wrapped root key does not open: {_REMEDY}") from None
        assert len(root_key) == KEY_BYTES
        return root_key

    @property
    def _binding(self) -> bytes:
        return _binding(self.cluster_id, self.set_id, self.shares, self.threshold)


def make_config(
    *,
    root_key: bytes,
    share_key: bytes,
    cluster_id: str,
    cluster_name: str,
    created_ms: int,
    set_id: bytes,
    shares: int,
    threshold: int,
    random_bytes: Callable[[int], bytes],
) -> SealConfig:
    """The seal that opens `root_key` to `share_key`, each 32 bytes. `random_bytes` gives the nonce."""
    assert len(root_key) == KEY_BYTES
    assert len(share_key) == SECRET_BYTES
    binding = _binding(cluster_id, set_id, shares, threshold)
    header = bytes((_WRAP_FORMAT,)) + random_bytes(_NONCE_BYTES)
    assert len(header) == _HEADER_BYTES, "the source of randomness gave too few bytes"
    cipher = AESGCM(_wrap_key(share_key, binding))
    config = SealConfig(
        cluster_id=cluster_id,
        cluster_name=cluster_name,
        created_ms=created_ms,
        set_id=set_id,
        shares=shares,
        threshold=threshold,
        check_value=_check_value(share_key, binding),
        wrapped_root_key=header + cipher.encrypt(header[1:], root_key, _WRAP_PURPOSE + header + binding),
    )
    assert config.well_formed()
    return config


def encode_config(config: SealConfig) -> bytes:
    """The record's stored form."""
    return bytes((_RECORD_FORMAT,)) + msgspec.msgpack.encode(config)


def decode_config(value: bytes) -> SealConfig:
    """The record in `value`. Raises Corruption when it is not one that this version can read."""
    if not value or value[0] != _RECORD_FORMAT:
        form = str(value[0]) if value else "none"
        raise Corruption(
            f"the seal's record has the unknown format {form}: run the version that wrote it, or {_REMEDY}"
        )
    try:
        config = msgspec.msgpack.decode(value[1:], type=SealConfig)
    except MALFORMED:
        config = None
    if config is None or not config.well_formed():
        raise Corruption(f"the seal's record is damaged: {_REMEDY}")
    return config


def _binding(cluster_id: str, set_id: bytes, shares: int, threshold: int) -> bytes:
    return cluster_id.encode() + set_id + bytes((shares, threshold))


def _check_value(share_key: bytes, binding: bytes) -> bytes:
    return hmac.digest(share_key, _CHECK_PURPOSE + binding, "sha256")[:_CHECK_BYTES]


def _wrap_key(share_key: bytes, binding: bytes) -> bytes:
    return hmac.digest(share_key, _WRAP_PURPOSE + binding, "sha256")
