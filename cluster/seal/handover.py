"""The root key on its way from one member to another: HPKE to a key that the receiver makes for this one time.

    HPKE (RFC 9180), base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM
    info = "holdfast/seal/handover/1" and, each framed by its length: cluster id, giver, receiver, nonce, receiver's key

Who speaks is proved by the mutual TLS of the session that carries the messages: the peer port tells the node id of the
other side from its certificate. `info` binds the ciphertext to both ids, the cluster and the one request, so that it
opens nowhere else and never again. Nothing here is logged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Never

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from holdfast.proto.errors import FailedPrecondition, InvalidArgument
from holdfast.storage.keyring import KEY_BYTES

NONCE_BYTES = 16
_PURPOSE = b"holdfast/seal/handover/1"
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_WRAPPED_BYTES = 32 + KEY_BYTES + 16

_Exactly16 = Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
_Exactly32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class KeyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a receiver asks with: a fresh public key, a nonce, and the cluster whose key it needs."""

    cluster_id: Annotated[str, msgspec.Meta(max_length=64)]
    nonce: _Exactly16
    public_key: _Exactly32


class PendingKey:
    """A receiver's side of one request. `open` works once."""

    __slots__ = ("_private_key", "receiver", "request")

    def __init__(self, *, cluster_id: str, receiver: str, random_bytes: Callable[[int], bytes]) -> None:
        """receiver: this node's id."""
        private_key = X25519PrivateKey.from_private_bytes(random_bytes(32))
        self._private_key: X25519PrivateKey | None = private_key
        self.receiver = receiver
        self.request = KeyRequest(
            cluster_id=cluster_id,
            nonce=random_bytes(NONCE_BYTES),
            public_key=private_key.public_key().public_bytes_raw(),
        )

    def open(self, wrapped: bytes, *, giver: str) -> bytes:
        """The root key that member `giver` wrapped. Raises FailedPrecondition when it was not wrapped for this request,
        or when the request was answered before; the request is spent either way."""
        private_key, self._private_key = self._private_key, None
        if private_key is None:
            raise FailedPrecondition("this hand-over of the root key was completed or given up before; ask anew")
        try:
            root_key = _SUITE.decrypt(wrapped, private_key, _info(self.request, giver, self.receiver))
        except (InvalidTag, ValueError):
            root_key = b""
        if len(root_key) != KEY_BYTES:
            raise FailedPrecondition(
                "what the other node handed over was not wrapped for this node's request; ask anew"
            )
        return root_key

    def __repr__(self) -> str:
        return f"<PendingKey of {self.receiver}>"

    def __reduce__(self) -> Never:
        raise TypeError("keys are never copied or serialised")


def wrap(root_key: bytes, request: KeyRequest, *, giver: str, receiver: str) -> bytes:
    """The root key, readable by `receiver` alone and only as the answer to `request`. giver: this node's id.

    Raises InvalidArgument for a public key that no honest node makes."""
    assert len(root_key) == KEY_BYTES
    public_key = X25519PublicKey.from_public_bytes(request.public_key)
    try:
        wrapped = _SUITE.encrypt(root_key, public_key, _info(request, giver, receiver))
    except ValueError:
        raise InvalidArgument("the public key of the request for the root key is not usable") from None
    assert len(wrapped) == _WRAPPED_BYTES
    return wrapped


def _info(request: KeyRequest, giver: str, receiver: str) -> bytes:
    parts = (request.cluster_id.encode(), giver.encode(), receiver.encode(), request.nonce, request.public_key)
    return _PURPOSE + b"".join(len(part).to_bytes(2, "big") + part for part in parts)
