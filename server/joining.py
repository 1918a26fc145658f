"""What a node has to do with nodes that join by token: the paths, the open calls, whom it trusts with the root key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from holdfast.cluster.peer.calls import PeerCalls
from holdfast.cluster.raft.consensus import Consensus, Member
from holdfast.core.request import Request, Response
from holdfast.proto.errors import Fatal
from holdfast.server import join_token
from holdfast.server.config import NodeConfig
from holdfast.server.frontend import FrontEnd
from holdfast.server.join_engine import Place, join_mounts
from holdfast.server.join_records import NODES, PREFIX, StoredNode, decode
from holdfast.server.join_service import JoinService
from holdfast.storage.barrier import Barrier
from holdfast.storage.transaction import Transaction


class Joining:
    """Of one node. barrier: the open barrier; raises Sealed."""

    def __init__(self, config: NodeConfig, *, consensus: Consensus, barrier: Callable[[], Barrier]) -> None:
        self._consensus = consensus
        self._barrier = barrier
        tls = config.api.tls
        self._api_ca = join_token.issuer(Path(tls.cert_file).read_bytes(), Path(tls.ca_file).read_bytes())
        self.mounts = join_mounts(
            Place(
                cluster_name=config.cluster_name,
                cluster_ca=Path(config.cluster.tls.ca_file).read_bytes(),
                api_ca=self._api_ca,
                members=self._members,
            )
        )

    def _members(self) -> list[Member]:
        return [peer.member for peer in self._consensus.status().peers]

    async def trusts(self, node_id: str) -> bool:
        """Whether a member may be handed the root key: not one that a join token let in, unless people said so."""
        stored = await Transaction(self._consensus, self._barrier()).get(f"{PREFIX}/{NODES}/{node_id}")
        return stored is None or decode(stored, StoredNode).share_keys

    def service(
        self,
        front_end: FrontEnd,
        *,
        calls: PeerCalls,
        serve_open: Callable[[Request], Awaitable[Response]],
        clock: Callable[[], float],
        on_fatal: Callable[[Fatal], None],
    ) -> JoinService:
        """The calls that are open to new machines."""
        return JoinService(
            front_end,
            consensus=self._consensus,
            calls=calls,
            serve_open=serve_open,
            api_ca=self._api_ca,
            clock=clock,
            on_fatal=on_fatal,
        )
