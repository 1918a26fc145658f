"""The calls of RaftService: the cluster's members."""

from __future__ import annotations

from holdfast.client.calls.call import Call, text
from holdfast.client.results import Peer, PeerList
from holdfast.client.retry import Effect
from holdfast.proto.v1 import raft_pb2 as pb

_SERVICE = "/holdfast.v1.RaftService/"


def join(node_id: str, cluster_address: str, api_address: str) -> Call[int]:
    """Adds a node; the log index of the change."""
    peer = pb.Peer(
        node_id=text(node_id, name="node_id"),
        cluster_address=text(cluster_address, name="cluster_address"),
        api_address=text(api_address, name="api_address"),
    )
    return Call(_SERVICE + "Join", pb.JoinRequest(peer=peer), pb.JoinResponse, _index, Effect.ONCE)


def list_peers() -> Call[PeerList]:
    """The members as the leader sees them."""
    return Call(_SERVICE + "ListPeers", pb.ListPeersRequest(), pb.ListPeersResponse, _peers, Effect.READ)


def remove_peer(node_id: str) -> Call[int]:
    """Removes a node; the log index of the change."""
    request = pb.RemovePeerRequest(node_id=text(node_id, name="node_id"))
    return Call(_SERVICE + "RemovePeer", request, pb.RemovePeerResponse, _index, Effect.ONCE)


def _index(response: pb.JoinResponse | pb.RemovePeerResponse) -> int:
    return response.index


def _peers(response: pb.ListPeersResponse) -> PeerList:
    peers = tuple(
        Peer(
            node_id=peer.node_id,
            cluster_address=peer.cluster_address,
            api_address=peer.api_address,
            leader=peer.leader,
            voter=peer.voter,
            match_index=peer.match_index,
            connected=peer.connected,
            last_contact_ms=peer.last_contact_ms,
            eligible=peer.eligible,
        )
        for peer in response.peers
    )
    return PeerList(peers, response.index, response.term, response.commit_index, response.applied_index)
