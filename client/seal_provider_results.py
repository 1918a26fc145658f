"""What the calls about unseal providers return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

HEALTHY = "healthy"


@dataclass(frozen=True)
class SealProviderHealth:
    """How one node finds a provider.

    health: "healthy", "unchecked", "unreachable", "timeout", "refused", "wrong_key", "not_configured", "misconfigured"
    or "failed". last_check, last_success: None when there was none since the node was started. development: who has the
    node's files has the key too. message: why it is not healthy; empty in a seal status.
    """

    name: str
    type: str
    priority: int
    health: str
    last_check: datetime | None
    last_success: datetime | None
    duration: timedelta
    development: bool = False
    message: str = ""


@dataclass(frozen=True)
class SealProvider:
    """A stored provider. The lowest priority is tried first. enrolled_by: the node that made the wrap."""

    name: str
    type: str
    priority: int
    parameters: Mapping[str, str]
    enrolled_time: datetime | None
    enrolled_by: str
    development: bool = False


@dataclass(frozen=True)
class MemberSealProviders:
    """What a member says of all providers. error: why it did not answer; empty when it did."""

    node_id: str
    providers: tuple[SealProviderHealth, ...]
    error: str = ""


@dataclass(frozen=True)
class SealProviderList:
    """Every provider, in the order in which they are tried, and how each member finds it."""

    providers: tuple[SealProvider, ...]
    members: tuple[MemberSealProviders, ...]


@dataclass(frozen=True)
class SealProviderTest:
    """A check that `node_id` has just made."""

    node_id: str
    provider: SealProviderHealth
