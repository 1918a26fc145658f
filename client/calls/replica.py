"""The calls of ReplicaService: one node's copy of the state."""

from __future__ import annotations

from holdfast.client.calls.call import Call
from holdfast.client.results import ReplicaState
from holdfast.client.retry import Effect
from holdfast.proto.v1 import replica_pb2 as pb

_SERVICE = "/holdfast.v1.ReplicaService/"


def state() -> Call[ReplicaState]:
    """What the first node's state amounts to."""
    return Call(
        _SERVICE + "ReplicaState", pb.ReplicaStateRequest(), pb.ReplicaStateResponse, _state, Effect.READ, pinned=True
    )


def _state(response: pb.ReplicaStateResponse) -> ReplicaState:
    return ReplicaState(
        node_id=response.node_id,
        applied_index=response.applied_index,
        state_digest=response.state_digest.hex(),
        log_digest=response.log_digest.hex(),
        compared_index=response.compared_index,
        scrubbed_index=response.scrubbed_index,
        differing=tuple(response.differing),
    )
