"""Tokens: what is stored of them, and how one is recognised. Nothing stored gives a token back.

token              "hfs." and 32 random bytes in base64url
salt               32 random bytes, made once with the cluster
id/<hash>          the token's entry; <hash> = HMAC-SHA-256(salt, "id:" token)
accessor/<hash>    the <hash> of the token; <hash> = HMAC-SHA-256(salt, "accessor:" accessor)

All of it under `local/token/`: tokens belong to one cluster. An accessor names a token, to look it up or revoke it, and
cannot be used in its place.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec

from holdfast.core.plugin import StorageView
from holdfast.proto.errors import Corruption, Unauthenticated
from holdfast.storage.decoding import MALFORMED

TOKENS_PREFIX = "local/token"

TOKEN_PREFIX = "hfs."  # noqa: S105  (what every token begins with, not a token)

TOKEN_BYTES = 32

TOKEN_CHARS = len(TOKEN_PREFIX) + 43
"""How long a token is: 32 bytes in base64url are 43 characters."""

ACCESSOR_BYTES = 18

SALT_BYTES = 32

TOKEN_CHARS_MAX = 512
"""A longer token is treated as an empty one, so that no caller decides how much is hashed."""

ROOT_POLICY = "root"

_FORMAT = 1


class TokenEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of a token. Durations are in seconds; 0 means none.

    ttl_s: lives so long from `created`, longer when renewed. explicit_max_ttl_s: and never longer than this.
    period_s: a renewal gives this much again, without a maximum. num_uses: how often it may be used. type: "service".
    parent: the hash of the token it was made with; it is revoked with that one unless `orphan`.
    path: where it was made, e.g. "auth/token/root".
    """

    accessor: str
    policies: tuple[str, ...]
    created: datetime
    ttl_s: int = 0
    explicit_max_ttl_s: int = 0
    period_s: int = 0
    num_uses: int = 0
    type: str = "service"
    parent: str = ""
    orphan: bool = True
    display_name: str = ""
    metadata: dict[str, str] = {}
    path: str = ""
    format: int = _FORMAT

    @property
    def expires(self) -> datetime | None:
        """When the token ends; None when it does not."""
        return self.created + timedelta(seconds=self.ttl_s) if self.ttl_s else None

    def __repr__(self) -> str:
        return f"<TokenEntry type={self.type} policies={len(self.policies)}>"


NOBODY = TokenEntry(accessor="", policies=(), created=datetime.fromtimestamp(0, UTC))
"""Stands for whoever asks for what needs no token."""


def create_salt(view: StorageView, random_bytes: Callable[[int], bytes]) -> None:
    """Make the cluster's salt. Once, with the first token."""
    view.put("salt", random_bytes(SALT_BYTES))


async def create_root(view: StorageView, *, now: datetime, random_bytes: Callable[[int], bytes]) -> str:
    """Store a token that may do everything and does not expire; returns it. It is in this answer and nowhere else."""
    entry = TokenEntry(
        accessor=_text(random_bytes(ACCESSOR_BYTES)),
        policies=(ROOT_POLICY,),
        created=now,
        display_name="root",
        path="auth/token/root",
    )
    return await create(view, entry, random_bytes)


async def lookup(view: StorageView, token: str, *, now: datetime) -> TokenEntry:
    """The entry of a token.

    Raises Unauthenticated, the same for a token that is missing, malformed, unknown or expired, and after the same
    work: one hash and two reads. The hash is keyed, so that what is stored answers no guess (and no timing does).
    """
    salt = await _salt(view)
    record = await view.get(f"id/{_hash(salt, 'id', token if len(token) <= TOKEN_CHARS_MAX else '')}")
    entry = None if record is None else _decode(record)
    if entry is None or (entry.expires is not None and entry.expires <= now):
        raise Unauthenticated("the token is missing or not valid (any more): log in again and send the new token")
    return entry


async def lookup_accessor(view: StorageView, accessor: str) -> TokenEntry | None:
    """The entry of the token that an accessor names; None when there is none."""
    salt = await _salt(view)
    token_hash = await view.get(f"accessor/{_hash(salt, 'accessor', accessor)}")
    record = None if token_hash is None else await view.get(f"id/{token_hash.decode()}")
    return None if record is None else _decode(record)


async def create(view: StorageView, entry: TokenEntry, random_bytes: Callable[[int], bytes]) -> str:
    """Store the entry of a new token; returns the token, which is nowhere else."""
    token = TOKEN_PREFIX + _text(random_bytes(TOKEN_BYTES))
    salt = await _salt(view)
    token_hash = _hash(salt, "id", token)
    view.put(f"id/{token_hash}", msgspec.msgpack.encode(entry))
    view.put(f"accessor/{_hash(salt, 'accessor', entry.accessor)}", token_hash.encode())
    return token


async def _salt(view: StorageView) -> bytes:
    salt = await view.get("salt")
    if salt is None or len(salt) != SALT_BYTES:
        raise Corruption("the token salt is missing or damaged: restore this cluster from a snapshot")
    return salt


def _hash(salt: bytes, purpose: str, text: str) -> str:
    return hmac.digest(salt, f"{purpose}:{text}".encode(errors="surrogatepass"), "sha256").hex()


def _decode(record: bytes) -> TokenEntry:
    try:
        entry = msgspec.msgpack.decode(record, type=TokenEntry)
    except MALFORMED:
        raise Corruption("a token's record does not parse: restore this node from its peers") from None
    if entry.format != _FORMAT:
        raise Corruption(f"a token's record has format {entry.format}, this build reads {_FORMAT}: upgrade the node")
    return entry


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
