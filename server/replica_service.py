"""holdfast.v1.ReplicaService: what this node's copy of the state amounts to."""
# ruff: noqa: N802 - method names are the protocol's

from __future__ import annotations

from holdfast.cluster.raft.consensus import Consensus
from holdfast.proto.v1 import replica_pb2 as pb
from holdfast.proto.v1.replica_pb2_grpc import ReplicaServiceServicer
from holdfast.server.frontend import FrontEnd, probe
from holdfast.server.metadata import Call


class ReplicaService(ReplicaServiceServicer):
    """Digests of ciphertext, to compare replicas with; like the seal's status they need no token."""

    def __init__(self, front_end: FrontEnd, consensus: Consensus) -> None:
        self.front_end = front_end
        self._consensus = consensus

    @probe
    async def ReplicaState(self, message: pb.ReplicaStateRequest, call: Call) -> pb.ReplicaStateResponse:
        del message, call
        status = self._consensus.status()
        return pb.ReplicaStateResponse(
            node_id=status.node_id,
            applied_index=status.applied_index,
            state_digest=bytes.fromhex(status.state_digest),
            log_digest=bytes.fromhex(status.digest),
            compared_index=status.state_compared_index,
            scrubbed_index=status.state_scrubbed_index,
            differing=status.state_differing,
        )
