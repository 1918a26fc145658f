"""holdfast.v1.RaftService: the cluster's membership, as the leader sees and changes it."""
# ruff: noqa: N802 - method names are the protocol's

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from holdfast.cluster.peer.calls import PeerCalls
from holdfast.cluster.raft.consensus import Consensus, Member, PeerProgress
from holdfast.core.request import Operation
from holdfast.proto.errors import AlreadyExists, Fatal, InvalidArgument
from holdfast.proto.v1 import raft_pb2 as pb
from holdfast.proto.v1.raft_pb2_grpc import RaftServiceServicer
from holdfast.server.authorization import Authorize, authorized
from holdfast.server.config import NODE_ID_PATTERN, NODE_ID_RULE, parse_address
from holdfast.server.frontend import FrontEnd, rpc
from holdfast.server.leader_operation import Credentials, LeaderOperation
from holdfast.server.metadata import Call

LIST_PATH = "sys/storage/raft/configuration"
JOIN_PATH = "sys/storage/raft/join"
REMOVE_PATH = "sys/storage/raft/remove-peer"


class _ListOrder(msgspec.Struct, frozen=True):
    credentials: Credentials


class _PeerList(msgspec.Struct, frozen=True):
    peers: tuple[PeerProgress, ...]
    index: int
    term: int
    commit_index: int
    applied_index: int


class _JoinOrder(msgspec.Struct, frozen=True):
    credentials: Credentials
    member: Member


class _RemoveOrder(msgspec.Struct, frozen=True):
    credentials: Credentials
    node_id: str


class _Changed(msgspec.Struct, frozen=True):
    index: int


class RaftService(RaftServiceServicer):
    """Every method runs on the leader, behind core's authorization."""

    def __init__(
        self,
        front_end: FrontEnd,
        *,
        consensus: Consensus,
        calls: PeerCalls,
        authorize: Authorize,
        admitted: Callable[[str], Awaitable[None]],
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        """admitted: told of a member that was added, or was one already."""
        self.front_end = front_end
        self._admitted = admitted
        self._consensus = consensus
        self._authorize = authorize
        self._list = LeaderOperation(
            "raft.list-peers",
            _ListOrder,
            _PeerList,
            self._list_here,
            consensus=consensus,
            calls=calls,
            on_fatal=on_fatal,
        )
        self._join = LeaderOperation(
            "raft.join", _JoinOrder, _Changed, self._join_here, consensus=consensus, calls=calls, on_fatal=on_fatal
        )
        self._remove = LeaderOperation(
            "raft.remove-peer", _RemoveOrder, _Changed, self._remove_here, consensus=consensus, calls=calls,
            on_fatal=on_fatal,
        )  # fmt: skip

    @rpc
    async def ListPeers(self, message: pb.ListPeersRequest, call: Call) -> pb.ListPeersResponse:
        del message
        shown = await self._list(_ListOrder(Credentials.of(call)), timeout_s=call.timeout_s)
        return pb.ListPeersResponse(
            peers=[_peer(progress) for progress in shown.peers],
            index=shown.index,
            term=shown.term,
            commit_index=shown.commit_index,
            applied_index=shown.applied_index,
        )

    @rpc
    async def Join(self, message: pb.JoinRequest, call: Call) -> pb.JoinResponse:
        order = _JoinOrder(Credentials.of(call), _member(message.peer))
        return pb.JoinResponse(index=(await self._join(order, timeout_s=call.timeout_s)).index)

    @rpc
    async def RemovePeer(self, message: pb.RemovePeerRequest, call: Call) -> pb.RemovePeerResponse:
        order = _RemoveOrder(Credentials.of(call), _node_id(message.node_id, "node_id"))
        return pb.RemovePeerResponse(index=(await self._remove(order, timeout_s=call.timeout_s)).index)

    async def _list_here(self, order: _ListOrder, forwarded_by: str) -> _PeerList:
        request = order.credentials.request(Operation.READ, LIST_PATH, forwarded_by=forwarded_by)
        async with authorized(self._authorize, request):
            status = self._consensus.status()
        return _PeerList(
            peers=status.peers,
            index=status.membership_index,
            term=status.term,
            commit_index=status.commit_index,
            applied_index=status.applied_index,
        )

    async def _join_here(self, order: _JoinOrder, forwarded_by: str) -> _Changed:
        credentials = order.credentials
        request = credentials.request(Operation.UPDATE, JOIN_PATH, forwarded_by=forwarded_by)
        async with authorized(self._authorize, request):
            try:
                index = await self._consensus.add_member(order.member, timeout_s=credentials.timeout_s)
            except AlreadyExists:
                # Joining again with the same addresses asks for what is so already, as operators' scripts do.
                if not self._is_member(order.member):
                    raise
                index = self._consensus.status().membership_index
            await self._admitted(order.member.node_id)
            return _Changed(index)

    def _is_member(self, wanted: Member) -> bool:
        places = (wanted.node_id, wanted.cluster_address, wanted.api_address)
        members = (peer.member for peer in self._consensus.status().peers)
        return any((m.node_id, m.cluster_address, m.api_address) == places for m in members)

    async def _remove_here(self, order: _RemoveOrder, forwarded_by: str) -> _Changed:
        credentials = order.credentials
        request = credentials.request(Operation.UPDATE, REMOVE_PATH, forwarded_by=forwarded_by)
        async with authorized(self._authorize, request):
            return _Changed(await self._consensus.remove_member(order.node_id, timeout_s=credentials.timeout_s))


def _peer(progress: PeerProgress) -> pb.Peer:
    return pb.Peer(
        node_id=progress.member.node_id,
        cluster_address=progress.member.cluster_address,
        api_address=progress.member.api_address,
        leader=progress.leader,
        voter=progress.member.voter,
        match_index=progress.match_index,
        connected=progress.connected,
        last_contact_ms=max(progress.last_contact_ms, 0),
        eligible=progress.eligible,
    )


def _member(peer: pb.Peer) -> Member:
    return Member(
        node_id=_node_id(peer.node_id, "peer.node_id"),
        cluster_address=_address(peer.cluster_address, "peer.cluster_address"),
        api_address=_address(peer.api_address, "peer.api_address"),
        voter=True,  # once it has caught up
    )


def _node_id(text: str, field: str) -> str:
    if not NODE_ID_PATTERN.fullmatch(text):
        raise InvalidArgument(f"{field} is not a node id: {NODE_ID_RULE}", field=field)
    return text


def _address(text: str, field: str) -> str:
    try:
        address = parse_address(text)
    except ValueError as error:
        raise InvalidArgument(f"{field}: {error}", field=field) from None
    if address.unspecified:
        raise InvalidArgument(f"{field} cannot be dialled by other nodes", field=field)
    return text
