"""What is stored of a token, and when it ends."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from holdfast.proto.errors import Corruption
from holdfast.storage.decoding import MALFORMED

ROOT_POLICY = "root"

DEFAULT_TTL_S = 768 * 3600
"""How long a token lives when nothing says otherwise, and how long it may: 32 days, as Vault's."""

MAX_TTL_S = 768 * 3600

_FORMAT = 1


class TokenEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of a token. Durations are in seconds; 0 means none.

    ttl_s: lives so long from `renewed`, or from `created` while it never was. creation_ttl_s: what it was made with.
    explicit_max_ttl_s: it never lives longer than this, counted from `created`. period_s: a renewal gives this much
    again, without a maximum. num_uses: how often it may be used yet. type: "service" or "batch".
    parent: the hash of the token it was made with; it ends with that one unless `orphan`.
    bound_cidrs: the networks it may be used from; none for all. role: the token role that it was made by.
    path: where it was made, e.g. "auth/token/root".
    """

    accessor: str
    policies: tuple[str, ...]
    created: datetime
    ttl_s: int = 0
    creation_ttl_s: int = 0
    explicit_max_ttl_s: int = 0
    period_s: int = 0
    num_uses: int = 0
    type: str = "service"
    parent: str = ""
    orphan: bool = True
    renewable: bool = False
    renewed: datetime | None = None
    bound_cidrs: tuple[str, ...] = ()
    role: str = ""
    display_name: str = ""
    metadata: dict[str, str] = {}
    path: str = ""
    format: int = _FORMAT

    @property
    def expires(self) -> datetime | None:
        """When the token ends; None when it does not."""
        return (self.renewed or self.created) + timedelta(seconds=self.ttl_s) if self.ttl_s else None

    def ended(self, now: datetime) -> bool:
        """Whether the token's time is over."""
        return self.expires is not None and self.expires <= now

    def remaining_s(self, now: datetime) -> int:
        """Whole seconds until it ends; 0 when it does not end, or has."""
        return 0 if self.expires is None else max(0, int((self.expires - now).total_seconds()))

    def longest_s(self, now: datetime) -> int:
        """How long it may live from now at most, in seconds: the explicit maximum, or the system's, less its age. A
        period has no maximum but the explicit one."""
        age_s = int((now - self.created).total_seconds())
        bounds = [self.explicit_max_ttl_s] if self.explicit_max_ttl_s else []
        if not self.period_s:
            bounds.append(MAX_TTL_S)
        return max(0, min(bounds) - age_s) if bounds else self.period_s

    def renewed_at(self, now: datetime, increment_s: int) -> TokenEntry:
        """The entry after a renewal: its period, or the increment it asked for (0: what it was made with), from now on,
        within the longest it may live."""
        wanted_s = self.period_s or increment_s or self.creation_ttl_s or DEFAULT_TTL_S
        return msgspec.structs.replace(self, renewed=now, ttl_s=max(1, min(wanted_s, self.longest_s(now))))

    def __repr__(self) -> str:
        return f"<TokenEntry type={self.type} policies={len(self.policies)}>"


def encode(entry: TokenEntry) -> bytes:
    """The stored form."""
    return msgspec.msgpack.encode(entry)


def decode(record: bytes) -> TokenEntry:
    """Raises Corruption."""
    try:
        entry = msgspec.msgpack.decode(record, type=TokenEntry)
    except MALFORMED:
        raise Corruption("a token's record does not parse: restore this node from its peers") from None
    if entry.format != _FORMAT:
        raise Corruption(f"a token's record has format {entry.format}, this build reads {_FORMAT}: upgrade the node")
    return entry
