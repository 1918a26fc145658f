"""What calls return: frozen data, converted from the wire. Nothing here shows a secret in its repr."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from holdfast.client.seal_provider_results import SealProviderHealth


@dataclass(frozen=True)
class KvVersion:
    """One version of a secret. Times are UTC.

    version: counts from 1. deletion_time: None while the version is not deleted; in the future when the secret has a
    `delete_version_after`.
    """

    version: int
    created_time: datetime | None
    deletion_time: datetime | None = None
    destroyed: bool = False


@dataclass(frozen=True)
class KvSecret:
    """A version of a secret with its data.

    data: the JSON object that was put, exactly; None when the version is deleted or destroyed. Not shown by repr.
    """

    version: int
    created_time: datetime | None
    deletion_time: datetime | None = None
    destroyed: bool = False
    custom_metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    data: dict[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class KvMetadata:
    """All that is known about a secret except its data.

    max_versions: 0 means the default of 10. versions: those kept, in ascending order.
    """

    current_version: int
    oldest_version: int
    created_time: datetime | None
    updated_time: datetime | None
    max_versions: int
    cas_required: bool
    delete_version_after: timedelta
    custom_metadata: Mapping[str, str] = field(repr=False)
    versions: tuple[KvVersion, ...]


@dataclass(frozen=True)
class KeyPage:
    """One page of a listing. next_page_token: empty on the last page."""

    keys: tuple[str, ...] = field(repr=False)
    next_page_token: str = field(default="", repr=False)


@dataclass(frozen=True)
class InitResult:
    """The shares and the root token, given this once and kept nowhere. Not shown by repr."""

    shares: tuple[str, ...] = field(repr=False)
    root_token: str = field(repr=False)


@dataclass(frozen=True)
class SealStatus:
    """Whether a node has its keys, and how far its unsealing is. `nonce` names the unsealing under way.
    seal_providers: as the node found them when it last asked, in the order in which they are tried. next_step: what a
    person does about the node's state; empty when there is nothing to do."""

    type: str
    initialized: bool
    sealed: bool
    threshold: int
    shares: int
    progress: int
    nonce: str
    version: str
    cluster_name: str
    cluster_id: str
    node_id: str
    last_seal_reason: str
    last_seal_time: datetime | None
    role: str
    leader_id: str
    quorum_contact_age: timedelta = timedelta(0)
    seal_providers: tuple[SealProviderHealth, ...] = ()
    next_step: str = ""


@dataclass(frozen=True)
class AutopilotServer:
    """A member as the leader's autopilot sees it. stable: for how long it has been as healthy as it is, in the present
    leader's term."""

    node_id: str
    address: str
    leader: bool
    voter: bool
    healthy: bool
    stable: timedelta
    last_contact: timedelta
    last_index: int
    last_term: int


@dataclass(frozen=True)
class AutopilotState:
    """The members' health. failure_tolerance: how many healthy voters could fail without loss of quorum."""

    healthy: bool
    failure_tolerance: int
    leader: str
    voters: tuple[str, ...]
    servers: tuple[AutopilotServer, ...]


@dataclass(frozen=True)
class AutopilotConfiguration:
    """What autopilot may do; the names and meanings are Vault's."""

    cleanup_dead_servers: bool
    dead_server_last_contact_threshold: timedelta
    min_quorum: int
    server_stabilization_time: timedelta
    last_contact_threshold: timedelta
    max_trailing_logs: int


@dataclass(frozen=True)
class ReplicaState:
    """What a node's copy of the state amounts to. Two nodes of the same `applied_index` must have the same digests.

    compared_index: the latest at which the state was found to be what a majority has. scrubbed_index: of the state
    whose records were all read again last. Both 0 before the first time. differing: on the leader, members whose state
    differed from its own.
    """

    node_id: str
    applied_index: int
    state_digest: str
    log_digest: str
    compared_index: int
    scrubbed_index: int
    differing: tuple[str, ...]


@dataclass(frozen=True)
class MemberUnseal:
    """What became of one member when the cluster was unsealed. `already`: it had its keys before. `reason`: why it does
    not have them now."""

    node_id: str
    unsealed: bool
    already: bool
    reason: str


@dataclass(frozen=True)
class ClusterUnseal:
    """How far a ceremony for the whole cluster is. `members`: the other nodes, once it is `done`."""

    status: SealStatus
    done: bool
    members: tuple[MemberUnseal, ...]


class HealthState(enum.StrEnum):
    """What a node can do now."""

    UNSPECIFIED = "unspecified"
    ACTIVE = "active"
    STANDBY = "standby"
    SEALED = "sealed"
    UNINITIALIZED = "uninitialized"
    NO_LEADER = "no_leader"


@dataclass(frozen=True)
class Health:
    """One node's health and its wall clock."""

    state: HealthState
    node_id: str
    version: str
    server_time: datetime | None


@dataclass(frozen=True)
class Leader:
    """Who leads, as far as the node asked knows. leader_id and leader_address are empty when nobody is known to."""

    is_self: bool
    leader_id: str
    leader_address: str
    term: int


@dataclass(frozen=True)
class Peer:
    """A member of the cluster as the leader sees it.

    match_index: entries up to here are durable on it. last_contact_ms: since the leader last heard from it.
    eligible: unsealed, so that it can lead.
    """

    node_id: str
    cluster_address: str
    api_address: str
    leader: bool = False
    voter: bool = False
    match_index: int = 0
    connected: bool = False
    last_contact_ms: int = 0
    eligible: bool = False


@dataclass(frozen=True)
class PeerList:
    """The membership and the log index it stands at, with the leader's term and its commit and applied indexes."""

    peers: tuple[Peer, ...]
    index: int
    term: int
    commit_index: int
    applied_index: int


@dataclass(frozen=True)
class LogicalResponse:
    """An engine's answer. data: None when it answered with nothing; auth: a token that was made or renewed. Neither is
    shown by repr."""

    data: dict[str, Any] | None = field(repr=False)
    warnings: tuple[str, ...] = ()
    request_id: str = ""
    auth: dict[str, Any] | None = field(default=None, repr=False)
