"""Join tokens: one printable line that is all a new machine needs to become a node.

    hfj1.<base64url of: the parts below in msgpack, and 4 bytes of SHA-256 over them>

The fingerprint is the SHA-256 of the SubjectPublicKeyInfo (RFC 7469, section 2.4) of the CA that signed the
certificates on the API port: it lets the new machine know the cluster. The secret lets the cluster know the machine.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Annotated

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from holdfast.proto.errors import InvalidArgument
from holdfast.storage.decoding import MALFORMED

PREFIX = "hfj1."
SECRET_BYTES = 32
TOKEN_CHARS_MAX = 8192
ADDRESSES_MAX = 9
"""How many nodes' addresses a token names. The first that answers suffices."""

_CHECK_BYTES = 4
_Exactly32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Address = Annotated[str, msgspec.Meta(min_length=3, max_length=300)]


class JoinToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """fingerprint: of the CA (see the module). addresses: API ports to dial, host:port. secret: 256 random bits."""

    fingerprint: _Exactly32
    addresses: Annotated[tuple[_Address, ...], msgspec.Meta(min_length=1, max_length=ADDRESSES_MAX)]
    secret: _Exactly32

    def __repr__(self) -> str:
        return f"<JoinToken addresses={self.addresses}>"


def encode(token: JoinToken) -> str:
    """The line."""
    body = msgspec.msgpack.encode(token)
    return PREFIX + base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")


def decode(text: str) -> JoinToken:
    """The token in a line. Raises InvalidArgument when it is not as it was printed; never quotes it."""
    line = text.strip()
    if not line.startswith(PREFIX) or len(line) > TOKEN_CHARS_MAX:
        raise InvalidArgument(f"this is no join token: it begins with {PREFIX}", field="join-token")
    encoded = line.removeprefix(PREFIX)
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
        if _check(body) == check:
            return msgspec.msgpack.decode(body, type=JoinToken)
    except (binascii.Error, ValueError, *MALFORMED):
        pass
    raise InvalidArgument("the join token is mangled: copy the whole line again", field="join-token")


def _check(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECK_BYTES]


def secret_id(secret: bytes) -> str:
    """What is stored of a secret: 256 random bits need no salt, and nothing leads back."""
    return hashlib.sha256(b"holdfast join token\x00" + secret).hexdigest()


def fingerprint(certificate: x509.Certificate) -> bytes:
    """The SHA-256 of a certificate's SubjectPublicKeyInfo."""
    form = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(form).digest()


def issuer(certificate_pem: bytes, bundle_pem: bytes) -> x509.Certificate | None:
    """The CA of a bundle that has signed a certificate itself; None when there is none."""
    certificate = x509.load_pem_x509_certificates(certificate_pem)[0]
    for authority in x509.load_pem_x509_certificates(bundle_pem):
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return authority
    return None
