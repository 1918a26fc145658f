"""The giving side: the root key for another member, if this node may give it and is certain that it is in the cluster.

Two ways lead here. A sealed member asks (`peers`), which this node's configuration must allow. Or a threshold of share
holders has just unsealed this node and wants the others unsealed too; their shares are the permission then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from holdfast.cluster.peer.calls import PeerCalls
from holdfast.cluster.raft.consensus import Consensus
from holdfast.cluster.seal.handover import KeyRequest, wrap
from holdfast.cluster.seal.seal import SealManager
from holdfast.proto.errors import FailedPrecondition, HoldfastError, InvalidArgument, Overloaded, PermissionDenied
from holdfast.storage.decoding import MALFORMED

ASK_CALL = "seal.ask"
"""A sealed member asks for the root key. KeyRequest -> the wrapped key."""

OFFER_CALL = "seal.offer"
"""A member that holds the root key offers it. Empty -> Offered."""

DELIVER_CALL = "seal.deliver"
"""The member that offered it delivers it. Delivery -> empty."""

BARRIER_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 10.0
ASKS_MAX = 10
"""How many requests of one member are looked at in `ASKS_WINDOW_S`, and four times as many of all together."""
ASKS_WINDOW_S = 60.0

_log = structlog.stdlib.get_logger(__name__)
_KeyRequests = msgspec.msgpack.Decoder(KeyRequest)


class Offered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A member's answer to an offer. request: None when it holds the keys already."""

    request: KeyRequest | None


class Delivery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The wrapped root key, as the answer to the request with this nonce."""

    nonce: bytes
    wrapped: bytes

    def __repr__(self) -> str:
        return "<Delivery>"


class Result(msgspec.Struct, frozen=True):
    """What became of one member in a ceremony for the cluster.

    unsealed: whether it holds the keys now. already: it held them before. reason: why it does not; empty when it does.
    """

    node_id: str
    unsealed: bool
    already: bool = False
    reason: str = ""


_Offers = msgspec.msgpack.Decoder(Offered)


class KeyGiver:
    """Hands the root key to other members.

    share_with_peers: whether to answer members that ask. trusts: whether a member may have the keys at all.
    clock: monotonic seconds. on_handover: called with "asked" or "ceremony" (why), the receiver's node id and the
    outcome ("given" or the error's reason). Must not block.
    """

    def __init__(
        self,
        seal: SealManager,
        consensus: Consensus,
        calls: PeerCalls,
        *,
        node_id: str,
        share_with_peers: bool,
        clock: Callable[[], float],
        check: Callable[[], None],
        trusts: Callable[[str], Awaitable[bool]],
        on_handover: Callable[[str, str, str], None],
    ) -> None:
        self._seal = seal
        self._consensus = consensus
        self._calls = calls
        self._node_id = node_id
        self._share_with_peers = share_with_peers
        self._clock = clock
        self._check = check
        self._trusts = trusts
        self._on_handover = on_handover
        self._asks: deque[tuple[float, str]] = deque()
        calls.serve(ASK_CALL, self._asked)

    async def _asked(self, caller: str, payload: bytes) -> bytes:
        """Answer a member that asks."""
        return await self._accounted("asked", caller, self._give_to_asker(caller, payload))

    async def _give_to_asker(self, caller: str, payload: bytes) -> bytes:
        if not self._share_with_peers:
            raise PermissionDenied(
                f"node {self._node_id} does not hand the root key to nodes that ask for it (seal.share_with_peers)"
            )
        self._admit(caller)
        try:
            request = _KeyRequests.decode(payload)
        except MALFORMED:
            raise InvalidArgument(
                "a request for the root key has an unknown form; do the nodes run one version?"
            ) from None
        return await self._wrapped_for(caller, request)

    async def unseal_members(self) -> list[Result]:
        """Unseal every other member, on behalf of the share holders who gave a threshold of shares to this node just
        now. One result for each, this node excepted; what fails at one stops nothing at the others."""
        members = [peer.member.node_id for peer in self._consensus.status().peers]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._unseal(name)) for name in members if name != self._node_id]
        return [task.result() for task in tasks]

    async def _unseal(self, node_id: str) -> Result:
        try:
            offered = await self._calls.call(node_id, OFFER_CALL, b"", timeout_s=CALL_TIMEOUT_S)
            try:
                request = _Offers.decode(offered).request
            except MALFORMED:
                raise FailedPrecondition("its answer has an unknown form; do the nodes run one version?") from None
            if request is None:
                return Result(node_id, unsealed=True, already=True)
            await self._accounted("ceremony", node_id, self._deliver(node_id, request))
        except HoldfastError as error:
            return Result(node_id, unsealed=False, reason=error.message)
        return Result(node_id, unsealed=True)

    async def _deliver(self, node_id: str, request: KeyRequest) -> bytes:
        wrapped = await self._wrapped_for(node_id, request)
        payload = msgspec.msgpack.encode(Delivery(request.nonce, wrapped))
        return await self._calls.call(node_id, DELIVER_CALL, payload, timeout_s=CALL_TIMEOUT_S)

    async def _wrapped_for(self, receiver: str, request: KeyRequest) -> bytes:
        """The root key for a member. Who is one is decided on a state that a quorum has just confirmed, and the keys
        are looked for after that: nothing may come between."""
        self._check()
        _ = self._seal.barrier  # raises Sealed before anybody is kept waiting
        await self._consensus.read_barrier(timeout_s=BARRIER_TIMEOUT_S)
        if not await self._trusts(receiver):
            raise PermissionDenied(
                "the node is not trusted with the root key (it came in by a join token): unseal it with shares, or "
                f"trust it first (holdfast operator raft join-token trust {receiver})"
            )
        self._check()
        members = {peer.member.node_id for peer in self._consensus.status().peers}
        if receiver == self._node_id or not {receiver, self._node_id} <= members:
            raise PermissionDenied("the root key is for current members only")
        if request.cluster_id != self._seal.status().cluster_id:
            raise PermissionDenied("the request for the root key names another cluster")
        return self._seal.with_root_key(
            lambda root_key: wrap(root_key, request, giver=self._node_id, receiver=receiver)
        )

    async def _accounted(self, why: str, receiver: str, work: Awaitable[bytes]) -> bytes:
        """Leave a trace of a hand-over, and of one that was refused."""
        try:
            given = await work
        except HoldfastError as error:
            _log.warning("root_key_not_handed_over", receiver=receiver, why=why, reason=error.reason)
            self._on_handover(why, receiver, error.reason)
            raise
        _log.warning("root_key_handed_over", receiver=receiver, why=why)
        self._on_handover(why, receiver, "given")
        return given

    def _admit(self, caller: str) -> None:
        """Raises Overloaded when too many requests came of late."""
        now_s = self._clock()
        while self._asks and now_s - self._asks[0][0] > ASKS_WINDOW_S:
            self._asks.popleft()
        own = sum(name == caller for _, name in self._asks)
        if own >= ASKS_MAX or len(self._asks) >= 4 * ASKS_MAX:
            raise Overloaded("this node was asked for the root key too often of late; ask again later")
        self._asks.append((now_s, caller))
