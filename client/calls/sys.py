"""The calls of SysService: keys, seal and health. Most of them concern one node and go to no other."""

from __future__ import annotations

from datetime import timedelta

from holdfast.client.calls.call import Call, counted, moment, text
from holdfast.client.calls.seal_provider import healths
from holdfast.client.failures import LocalError
from holdfast.client.results import ClusterUnseal, Health, HealthState, InitResult, Leader, MemberUnseal, SealStatus
from holdfast.client.retry import Effect
from holdfast.proto.v1 import sys_pb2 as pb

_SERVICE = "/holdfast.v1.SysService/"


def init(shares: int, threshold: int) -> Call[InitResult]:
    """Makes the cluster's keys. Never repeated when it may have happened: the answer exists once."""
    request = pb.InitRequest(
        secret_shares=counted(shares, name="shares", bits=32) or 0,
        secret_threshold=counted(threshold, name="threshold", bits=32) or 0,
    )
    return Call(_SERVICE + "Init", request, pb.InitResponse, _made, Effect.ONCE)


def seal_status() -> Call[SealStatus]:
    """The state of the first node's keys."""
    return Call(
        _SERVICE + "SealStatus", pb.SealStatusRequest(), pb.SealStatusResponse, _status, Effect.READ, pinned=True
    )


def unseal(share: str, *, reset: bool) -> Call[SealStatus]:
    """Gives the first node a share, or makes it forget those it has."""
    if not reset and not share.strip():
        raise LocalError("an unseal share is needed.", field="share")
    request = pb.UnsealRequest(share=text(share, name="share").strip(), reset=reset)
    return Call(_SERVICE + "Unseal", request, pb.UnsealResponse, _unsealed, Effect.ONCE, pinned=True)


def unseal_cluster(share: str) -> Call[ClusterUnseal]:
    """Gives the first node a share for all nodes."""
    if not share.strip():
        raise LocalError("an unseal share is needed.", field="share")
    request = pb.UnsealRequest(share=text(share, name="share").strip(), cluster=True)
    return Call(_SERVICE + "Unseal", request, pb.UnsealResponse, _cluster_unsealed, Effect.ONCE, pinned=True)


def seal() -> Call[None]:
    """Drops the first node's keys."""
    return Call(_SERVICE + "Seal", pb.SealRequest(), pb.SealResponse, _nothing, Effect.ONCE, pinned=True)


def health() -> Call[Health]:
    """What the first node can do."""
    return Call(_SERVICE + "Health", pb.HealthRequest(), pb.HealthResponse, _health, Effect.READ, pinned=True)


def leader() -> Call[Leader]:
    """Who leads, as any node knows it."""
    return Call(_SERVICE + "Leader", pb.LeaderRequest(), pb.LeaderResponse, _leader, Effect.READ)


def step_down() -> Call[str]:
    """Makes the leader hand over; the id of the next one."""
    return Call(_SERVICE + "StepDown", pb.StepDownRequest(), pb.StepDownResponse, _successor, Effect.ONCE)


def _made(response: pb.InitResponse) -> InitResult:
    return InitResult(tuple(response.shares), response.root_token)


def _status(response: pb.SealStatusResponse) -> SealStatus:
    return SealStatus(
        type=response.type,
        initialized=response.initialized,
        sealed=response.sealed,
        threshold=response.threshold,
        shares=response.shares,
        progress=response.progress,
        nonce=response.nonce,
        version=response.version,
        cluster_name=response.cluster_name,
        cluster_id=response.cluster_id,
        node_id=response.node_id,
        last_seal_reason=response.last_seal_reason,
        last_seal_time=moment(response, "last_seal_time"),
        role=response.role,
        leader_id=response.leader_id,
        quorum_contact_age=timedelta(milliseconds=response.quorum_contact_age_ms),
        seal_providers=healths(response.seal_providers),
        next_step=response.next_step,
    )


def _unsealed(response: pb.UnsealResponse) -> SealStatus:
    return _status(response.status)


def _cluster_unsealed(response: pb.UnsealResponse) -> ClusterUnseal:
    members = tuple(MemberUnseal(m.node_id, m.unsealed, m.already, m.reason) for m in response.members)
    return ClusterUnseal(_status(response.status), response.cluster_done, members)


def _health(response: pb.HealthResponse) -> Health:
    states = {pb.HealthResponse.State.Value(f"STATE_{state.name}"): state for state in HealthState}
    state = states.get(response.state, HealthState.UNSPECIFIED)
    return Health(state, response.node_id, response.version, moment(response, "server_time"))


def _leader(response: pb.LeaderResponse) -> Leader:
    return Leader(response.is_self, response.leader_id, response.leader_address, response.term)


def _successor(response: pb.StepDownResponse) -> str:
    return response.new_leader_id


def _nothing(_response: object) -> None:
    return None
