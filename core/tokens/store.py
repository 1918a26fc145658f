"""The token store: how tokens are made, recognised and revoked. Nothing stored gives a token back.

token                    "hfs." and 32 random bytes in base64url
salt                     32 random bytes, made once with the cluster
id/<hash>                the token's entry; <hash> = HMAC-SHA-256(salt, "id:" token)
accessor/<hash>          the <hash> of the token; <hash> = HMAC-SHA-256(salt, "accessor:" accessor)
child/<hash>/<hash>      empty: the second token was made with the first, and ends with it

All of it under `local/token/`: tokens belong to one cluster. An accessor names a token, to look it up or revoke it, and
cannot be used in its place. A token is valid while it and every token above it are there and have not ended. Revoking
one therefore ends all below it at once, however many there are; what is left of them is swept up later.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from holdfast.core.plugin import StorageView
from holdfast.core.tokens.entries import ROOT_POLICY, TokenEntry, decode, encode
from holdfast.proto.errors import Corruption, FailedPrecondition, Unauthenticated

TOKENS_PREFIX = "local/token"

TOKEN_PREFIX = "hfs."  # noqa: S105  (what every token begins with, not a token)

TOKEN_BYTES = 32

TOKEN_CHARS = len(TOKEN_PREFIX) + 43
"""How long a token is: 32 bytes in base64url are 43 characters."""

ACCESSOR_BYTES = 18

SALT_BYTES = 32

TOKEN_CHARS_MAX = 512
"""A longer token is treated as an empty one, so that no caller decides how much is hashed."""

DEPTH_MAX = 32
"""How many tokens may stand above one."""

_REFUSED = "the token is missing or not valid (any more): log in again and send the new token"


@dataclass(frozen=True)
class Known:
    """A token that was recognised, and the hash that it is stored under."""

    hash: str
    entry: TokenEntry


NOBODY = Known("", TokenEntry(accessor="", policies=(), created=datetime.fromtimestamp(0, UTC)))
"""Stands for whoever asks for what needs no token."""


def create_salt(view: StorageView, random_bytes: Callable[[int], bytes]) -> None:
    """Make the cluster's salt. Once, with the first token."""
    view.put("salt", random_bytes(SALT_BYTES))


async def create_root(view: StorageView, *, now: datetime, random_bytes: Callable[[int], bytes]) -> str:
    """Store a token that may do everything and does not expire; returns it. It is in this answer and nowhere else."""
    entry = TokenEntry(
        accessor=new_accessor(random_bytes),
        policies=(ROOT_POLICY,),
        created=now,
        display_name="root",
        path="auth/token/root",
    )
    return await create(view, entry, random_bytes)


async def create(view: StorageView, entry: TokenEntry, random_bytes: Callable[[int], bytes]) -> str:
    """Store the entry of a new token; returns the token, which is nowhere else."""
    token = TOKEN_PREFIX + _text(random_bytes(TOKEN_BYTES))
    salt = await _salt(view)
    token_hash = _hash(salt, "id", token)
    view.put(f"id/{token_hash}", encode(entry))
    view.put(f"accessor/{_hash(salt, 'accessor', entry.accessor)}", token_hash.encode())
    if not entry.orphan:
        view.put(f"child/{entry.parent}/{token_hash}", b"")
    return token


async def lookup(view: StorageView, token: str, *, now: datetime, remote_address: str = "") -> Known:
    """Recognise a token.

    remote_address: of who uses it, "host:port"; empty where it is not known, which no bound network contains.
    Raises Unauthenticated, the same for a token that is missing, malformed, unknown, ended (itself or one above it) or
    used from elsewhere, and for those that are not stored after the same work: one hash and two reads. The hash is
    keyed, so that what is stored answers no guess (and no timing does).
    """
    salt = await _salt(view)
    token_hash = _hash(salt, "id", token if len(token) <= TOKEN_CHARS_MAX else "")
    record = await view.get(f"id/{token_hash}")
    entry = None if record is None else decode(record)
    if entry is None or entry.ended(now) or not _from_bound(entry, remote_address):
        raise Unauthenticated(_REFUSED)
    if not await upheld(view, entry, now):
        raise Unauthenticated(_REFUSED)
    return Known(token_hash, entry)


async def named(view: StorageView, accessor: str, *, now: datetime) -> Known | None:
    """The token that an accessor names; None when there is none that is valid."""
    salt = await _salt(view)
    token_hash = await view.get(f"accessor/{_hash(salt, 'accessor', accessor)}")
    if token_hash is None:
        return None
    record = await view.get(f"id/{token_hash.decode()}")
    entry = None if record is None else decode(record)
    if entry is None or entry.ended(now) or not await upheld(view, entry, now):
        return None
    return Known(token_hash.decode(), entry)


async def by_token(view: StorageView, token: str, *, now: datetime) -> Known | None:
    """The token itself, asked about by another; None when there is none that is valid."""
    salt = await _salt(view)
    token_hash = _hash(salt, "id", token if len(token) <= TOKEN_CHARS_MAX else "")
    record = await view.get(f"id/{token_hash}")
    entry = None if record is None else decode(record)
    if entry is None or entry.ended(now) or not await upheld(view, entry, now):
        return None
    return Known(token_hash, entry)


async def depth(view: StorageView, entry: TokenEntry) -> int:
    """How many tokens stand above one."""
    count = 0
    while not entry.orphan and count < DEPTH_MAX:
        record = await view.get(f"id/{entry.parent}")
        if record is None:
            break
        entry, count = decode(record), count + 1
    return count


async def revoke(view: StorageView, known: Known) -> None:
    """End a token, and with it all below it."""
    salt = await _salt(view)
    view.delete(f"id/{known.hash}")
    view.delete(f"accessor/{_hash(salt, 'accessor', known.entry.accessor)}")
    if not known.entry.orphan:
        view.delete(f"child/{known.entry.parent}/{known.hash}")


async def revoke_orphaning(view: StorageView, known: Known, *, children_max: int = 500) -> None:
    """End a token and leave those made with it, as orphans. Raises FailedPrecondition when they are too many."""
    children = await view.list(f"child/{known.hash}", limit=children_max + 1)
    if len(children) > children_max:
        raise FailedPrecondition(
            f"over {children_max} tokens were made with this one, too many to be orphaned at once: revoke it with them"
        )
    for child in children:
        record = await view.get(f"id/{child}")
        if record is not None:
            view.put(f"id/{child}", encode(msgspec.structs.replace(decode(record), parent="", orphan=True)))
        view.delete(f"child/{known.hash}/{child}")
    await revoke(view, known)


async def entry_at(view: StorageView, token_hash: str) -> TokenEntry | None:
    """The entry stored under a hash, ended or not."""
    record = await view.get(f"id/{token_hash}")
    return None if record is None else decode(record)


async def use(view: StorageView, known: Known) -> None:
    """Count one use of a token with a limited number of them. The last one ends it.

    Reads the entry again, for the request itself may have renewed the token or ended it."""
    record = await view.get(f"id/{known.hash}")
    if record is None:
        return
    entry = decode(record)
    assert entry.num_uses > 0
    if entry.num_uses == 1:
        await revoke(view, Known(known.hash, entry))
    else:
        store(view, known, msgspec.structs.replace(entry, num_uses=entry.num_uses - 1))


def store(view: StorageView, known: Known, entry: TokenEntry) -> None:
    """Replace the entry of a token."""
    view.put(f"id/{known.hash}", encode(entry))


def new_accessor(random_bytes: Callable[[int], bytes]) -> str:
    """A new accessor."""
    return _text(random_bytes(ACCESSOR_BYTES))


async def upheld(view: StorageView, entry: TokenEntry, now: datetime) -> bool:
    """Whether every token above one is there and has not ended. What is read becomes a precondition, so that a write
    does not outlive a revocation anywhere above."""
    for _ in range(DEPTH_MAX + 1):
        if entry.orphan:
            return True
        record = await view.get(f"id/{entry.parent}")
        if record is None:
            return False
        entry = decode(record)
        if entry.ended(now):
            return False
    return False


def _from_bound(entry: TokenEntry, remote_address: str) -> bool:
    if not entry.bound_cidrs:
        return True
    host = remote_address.rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in ipaddress.ip_network(cidr) for cidr in entry.bound_cidrs)


async def _salt(view: StorageView) -> bytes:
    salt = await view.get("salt")
    if salt is None or len(salt) != SALT_BYTES:
        raise Corruption("the token salt is missing or damaged: restore this cluster from a snapshot")
    return salt


def _hash(salt: bytes, purpose: str, text: str) -> str:
    return hmac.digest(salt, f"{purpose}:{text}".encode(errors="surrogatepass"), "sha256").hex()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
