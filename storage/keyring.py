"""The keys of a cluster's data: one AES-256 key per key term, the name key, the request key. All of it travels and is
stored only wrapped under the root key.

The active term encrypts new values; the others still decrypt old ones. The name key is never rotated: it decides where
a record is, so a new one would move every record. The request key hides request ids. `installed_ms` tells when a
term came (Unix time in milliseconds, by the clock of the node that made it), for display and for rotation by age.

    wrapped = format (1 byte, 1) nonce (12 bytes) AES-256-GCM(root key, msgpack of the keys) with its tag
    associated data = "holdfast/keyring", format, nonce

Wiping memory is best effort. `close` drops the cipher objects and the key bytes, after which nothing here refers to
them; CPython frees them at once, but neither it nor the cryptography library overwrites every copy, and a core dump or
a swapped page may hold some. Nodes should run with swap off or encrypted and core dumps off.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Collection, Mapping
from typing import Never

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

from holdfast.proto.errors import Corruption, FailedPrecondition, Sealed
from holdfast.storage.decoding import MALFORMED
from holdfast.storage.names import NAME_KEY_BYTES

KEY_BYTES = 32
"""The length of a root key, of each term's key and of the request key."""

REQUEST_KEY_BYTES = 16
"""The length of a request's key in the state machine."""

TERMS_MAX = 1000
"""How many key terms a keyring may hold."""

_FORMAT = 1
_NONCE_BYTES = 12
_HEADER_BYTES = 1 + _NONCE_BYTES
_PURPOSE = b"holdfast/keyring"


class _Keys(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    active: int
    terms: Mapping[int, bytes]
    name_key: bytes
    request_key: bytes
    installed_ms: Mapping[int, int] = {}

    def __repr__(self) -> str:
        return "<keys>"

    def well_formed(self) -> bool:
        return (
            0 < len(self.terms) <= TERMS_MAX
            and self.active == max(self.terms)
            and min(self.terms) >= 1
            and self.active < 2**32
            and all(len(key) == KEY_BYTES for key in self.terms.values())
            and len(self.name_key) == NAME_KEY_BYTES
            and len(self.request_key) == KEY_BYTES
            and self.installed_ms.keys() <= self.terms.keys()
        )


class UnknownTerm(Corruption):
    """A value names a key term that this keyring does not have. A keyring that was replaced meanwhile may have it: take
    up the newest one and read the value again; only when that fails too is the value damaged."""


class Keyring:
    """The keys of the cluster's data, and the ciphers made of them. After `close` every use raises Sealed.

    Whoever made it closes it; a Barrier closes the keyring it was given.
    """

    __slots__ = ("_ciphers", "_keys", "_names")

    def __init__(self, keys: _Keys) -> None:
        """Use `generate`, `rotated` or `unwrap`."""
        assert keys.well_formed()
        self._keys: _Keys | None = keys
        self._ciphers: dict[int, AESGCM] = {}
        self._names: AESSIV | None = AESSIV(keys.name_key)

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes], *, now_ms: int = 0) -> Keyring:
        """A new keyring with key term 1. `random_bytes` must be cryptographically secure. now_ms: 0 when not known."""
        return cls(
            _Keys(
                active=1,
                terms={1: random_bytes(KEY_BYTES)},
                name_key=random_bytes(NAME_KEY_BYTES),
                request_key=random_bytes(KEY_BYTES),
                installed_ms=_stamp(1, now_ms),
            )
        )

    def rotated(self, random_bytes: Callable[[int], bytes], *, now_ms: int = 0) -> Keyring:
        """A keyring with one more term, which is active. This one stays as it is.

        Raises FailedPrecondition at TERMS_MAX terms."""
        keys = self._open()
        if len(keys.terms) >= TERMS_MAX:
            raise FailedPrecondition(f"the keyring holds {TERMS_MAX} key terms, the most allowed: re-encrypt old data")
        active = keys.active + 1
        return Keyring(
            _Keys(
                active=active,
                terms={**keys.terms, active: random_bytes(KEY_BYTES)},
                name_key=keys.name_key,
                request_key=keys.request_key,
                installed_ms={**keys.installed_ms, **_stamp(active, now_ms)},
            )
        )

    def without(self, terms: Collection[int]) -> Keyring:
        """A keyring that lacks these terms; never the active one. This one stays as it is. Whoever drops a term must
        know that nothing is encrypted under it any more."""
        keys = self._open()
        assert keys.active not in terms, "the active term is never dropped"
        return Keyring(
            msgspec.structs.replace(
                keys,
                terms={term: key for term, key in keys.terms.items() if term not in terms},
                installed_ms={term: at for term, at in keys.installed_ms.items() if term not in terms},
            )
        )

    def wrap(self, root_key: bytes, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> bytes:
        """The keyring encrypted under a root key of 32 bytes."""
        header = bytes((_FORMAT,)) + random_bytes(_NONCE_BYTES)
        assert len(header) == _HEADER_BYTES, "the source of randomness gave too few bytes"
        plaintext = msgspec.msgpack.encode(self._open())
        return header + _root_cipher(root_key).encrypt(header[1:], plaintext, _PURPOSE + header)

    @classmethod
    def unwrap(cls, blob: bytes, root_key: bytes) -> Keyring:
        """The keyring in `blob`. Raises Corruption when it does not open: AES-GCM cannot tell a changed blob from a
        wrong root key, and the message says both."""
        header = blob[:_HEADER_BYTES]
        if len(blob) < _HEADER_BYTES + 16:
            raise Corruption(
                f"the stored keyring is cut short at {len(blob)} bytes: restore it from a peer or a snapshot"
            )
        if header[0] != _FORMAT:
            raise Corruption(f"the stored keyring has the unknown format {header[0]}: run a version that knows it")
        try:
            plaintext = _root_cipher(root_key).decrypt(header[1:], blob[_HEADER_BYTES:], _PURPOSE + header)
        except InvalidTag:
            raise Corruption(
                "the stored keyring does not open: either the root key is another one (check that the shares belong to"
                " this cluster) or the stored bytes were changed (restore them from a peer or a snapshot)"
            ) from None
        try:
            keys = msgspec.msgpack.decode(plaintext, type=_Keys)
        except MALFORMED:
            keys = None
        if keys is None or not keys.well_formed():
            raise Corruption("the stored keyring opens and is not a keyring: run the version that wrote it")
        return cls(keys)

    @property
    def active_term(self) -> int:
        """The term that encrypts new values."""
        return self._open().active

    @property
    def terms(self) -> tuple[int, ...]:
        """All terms, in ascending order."""
        return tuple(sorted(self._open().terms))

    def installed_ms(self, term: int) -> int:
        """When a term came, as Unix time in milliseconds; 0 when that is not known."""
        return self._open().installed_ms.get(term, 0)

    def succeeds(self, earlier: Keyring) -> bool:
        """Whether this keyring can take the place of `earlier` under one tree of names."""
        ours, theirs = self._open(), earlier._open()
        return hmac.compare_digest(ours.name_key, theirs.name_key) and hmac.compare_digest(
            ours.request_key, theirs.request_key
        )

    def covers(self, earlier: Keyring) -> bool:
        """Whether this keyring opens everything that `earlier` opens."""
        ours, theirs = self._open().terms, earlier._open().terms
        return self.succeeds(earlier) and all(
            hmac.compare_digest(ours.get(term, b""), key) for term, key in theirs.items()
        )

    def cipher(self, term: int) -> AESGCM:
        """The value cipher of a term. Do not keep it: `close` must be able to release it.

        Raises UnknownTerm when the keyring has no such term."""
        cipher = self._ciphers.get(term)
        if cipher is None:
            key = self._open().terms.get(term)
            if key is None:
                raise UnknownTerm(
                    f"a record was encrypted under key term {term} and the newest here is {self.active_term}: this"
                    " node's keyring is older than its data, or the record was changed; unseal the node again"
                )
            cipher = self._ciphers[term] = AESGCM(key)
        return cipher

    def name_cipher(self) -> AESSIV:
        """The cipher of names. Do not keep it: `close` must be able to release it."""
        if self._names is None:
            raise _sealed()
        return self._names

    def request_key(self, material: bytes) -> bytes:
        """A keyed hash (HMAC-SHA-256, cut to 16 bytes) that stands for a request id in the state machine."""
        return hmac.digest(self._open().request_key, material, "sha256")[:REQUEST_KEY_BYTES]

    def close(self) -> None:
        """Drop the keys and the ciphers. May be called again."""
        self._keys = None
        self._names = None
        self._ciphers.clear()

    def _open(self) -> _Keys:
        if self._keys is None:
            raise _sealed()
        return self._keys

    def __repr__(self) -> str:
        if self._keys is None:
            return "<Keyring closed>"
        return f"<Keyring terms={len(self._keys.terms)} active={self._keys.active}>"

    def __reduce__(self) -> Never:
        raise TypeError("a keyring is never copied or serialised; wrap it")


def _stamp(term: int, now_ms: int) -> dict[int, int]:
    return {term: now_ms} if now_ms else {}


def _sealed() -> Sealed:
    return Sealed("this node holds no keys: unseal it, or ask another node")


def _root_cipher(root_key: bytes) -> AESGCM:
    if len(root_key) != KEY_BYTES:
        raise ValueError(f"a root key has {KEY_BYTES} bytes, not {len(root_key)}")
    return AESGCM(root_key)
