"""What a node has to do with nodes that join by token: the paths, the open calls, whom it trusts with the root key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from holdfast.cluster.peer.calls import PeerCalls
from holdfast.cluster.raft.consensus import Conflicted, Consensus, Member
from holdfast.core.request import Request, Response
from holdfast.proto.errors import Conflict, Fatal
from holdfast.server import join_token
from holdfast.server.config import NodeConfig
from holdfast.server.frontend import FrontEnd
from holdfast.server.join_engine import Place, join_mounts
from holdfast.server.join_records import NODES, PREFIX, StoredNode, decode, encode
from holdfast.server.join_service import JoinService
from holdfast.storage.barrier import Barrier
from holdfast.storage.transaction import Transaction

ATTEMPTS_MAX = 16
ADMITTED_TIMEOUT_S = 10.0


class Joining:
    """Of one node. barrier: the open barrier; raises Sealed. wall_clock: Unix time in seconds."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        consensus: Consensus,
        barrier: Callable[[], Barrier],
        wall_clock: Callable[[], float],
    ) -> None:
        self._consensus = consensus
        self._wall_clock = wall_clock
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

    def bootstrap(self, txn: Transaction) -> None:
        """The members that found the cluster may have its keys."""
        for member in self._members():
            txn.put(_path(member.node_id), self._trusted())

    async def trusts(self, node_id: str) -> bool:
        """Whether a member may be handed the root key: only one of which the keys' holders have said so, in a record
        that a member without the keys can remove and cannot make."""
        stored = await Transaction(self._consensus, self._barrier()).get(_path(node_id))
        return stored is not None and decode(stored, StoredNode).share_keys

    async def admitted(self, node_id: str) -> None:
        """An operator has added this member by hand: trust it, unless a record says otherwise. On the leader.

        Raises what `propose` raises; the member is one already then, and adding it again does this again."""
        for _ in range(ATTEMPTS_MAX):
            txn = Transaction(self._consensus, self._barrier())
            if await txn.get(_path(node_id)) is not None:
                return
            txn.put(_path(node_id), self._trusted())
            outcome = await self._consensus.propose(txn.batch(), timeout_s=ADMITTED_TIMEOUT_S)
            if not isinstance(outcome, Conflicted):
                return
        raise Conflict(
            "the node is a member, and what is known of it kept changing: add it again, so that it is trusted"
        )

    def _trusted(self) -> bytes:
        now = datetime.fromtimestamp(self._wall_clock(), UTC)
        return encode(StoredNode(joined=now, share_keys=True))

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


def _path(node_id: str) -> str:
    return f"{PREFIX}/{NODES}/{node_id}"
