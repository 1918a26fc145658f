"""The receiving side: how a sealed member comes by the root key from another one.

It asks by itself (`on_quorum_return: peers`, or `auto` once the unseal providers were tried) when it is in contact with
a quorum, if it was never unsealed in this process's life or sealed itself for want of a quorum; what people sealed
stays sealed. And it takes what a member offers on behalf of share holders. In both cases it must be in contact, so that
the quorum watch holds from the first moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from holdfast.cluster.peer.calls import Handler, PeerCalls
from holdfast.cluster.peer.tasks import Tasks
from holdfast.cluster.raft.consensus import Consensus
from holdfast.cluster.seal.handover import PendingKey
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.sharing import ASK_CALL, DELIVER_CALL, OFFER_CALL, Delivery, Offered
from holdfast.proto.errors import (
    FailedPrecondition,
    Fatal,
    HoldfastError,
    InvalidArgument,
    NoLeader,
    PermissionDenied,
    Unavailable,
    Uninitialized,
)
from holdfast.storage.decoding import MALFORMED

CONTACT_S = 1.0
"""A node whose last contact with a quorum is older is not taken to be in contact."""

LOOK_S = 0.2
_CONTACT_LOOKS = 15
"""How often a node looks for contact before it refuses an offer: 3 s, of the 10 s that a giver waits."""

ASK_TIMEOUT_S = 10.0
PAUSE_S_MIN, PAUSE_S_MAX = 0.25, 15.0
"""Between two rounds of asking every member: from the one, doubling, to the other. A giver's limit of asks fits it."""

OFFER_LIFE_S = 30.0
"""How long a member that offered the key may take to deliver it."""

_log = structlog.stdlib.get_logger(__name__)


class KeyReceiver:
    """Takes the root key from other members.

    ask: whether to ask members by itself. first: what is tried before that, told how to know whether the node is still
    to be unsealed; None when nothing is. lost_quorum: whether the node is sealed because it had lost its quorum.
    clock: monotonic seconds. on_fatal: told of damaged records that came to light; the process must end then.
    """

    def __init__(
        self,
        seal: SealManager,
        consensus: Consensus,
        calls: PeerCalls,
        *,
        node_id: str,
        ask: bool,
        first: Callable[[Callable[[], bool]], Awaitable[None]] | None = None,
        lost_quorum: Callable[[], bool],
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        self._seal = seal
        self._consensus = consensus
        self._calls = calls
        self._node_id = node_id
        self._ask = ask
        self._first = first
        self._lost_quorum = lost_quorum
        self._clock = clock
        self._random_bytes = random_bytes
        self._on_fatal = on_fatal
        self._pending: dict[str, tuple[float, PendingKey]] = {}
        self._tasks = Tasks()
        calls.serve(OFFER_CALL, self._ending_on_fatal(self._offered))
        calls.serve(DELIVER_CALL, self._ending_on_fatal(self._delivered))

    def start(self) -> None:
        """Ask from now on, and try what comes first, where that is configured. Call once, when the seal was loaded."""
        assert not len(self._tasks), "started twice"
        if self._ask or self._first is not None:
            self._tasks.spawn(self._keep_asking(), name="seal ask")

    async def stop(self) -> None:
        """Ask no more. May be called again, and without `start`."""
        await self._tasks.cancel_all()
        self._pending.clear()

    # Asking

    async def _keep_asking(self) -> None:
        pause_s = PAUSE_S_MIN
        while True:
            if not self._wants():
                pause_s = PAUSE_S_MIN
                await asyncio.sleep(LOOK_S)
                continue
            try:
                if self._first is not None:
                    await self._first(self._wants)
                if self._ask:
                    await self._ask_everyone()
            except Fatal as error:
                self._on_fatal(error)
                return
            except Unavailable:
                pass  # consensus is stopping, and so is this node
            if self._wants():
                share = int.from_bytes(self._random_bytes(2), "big") / 2**16
                await asyncio.sleep(pause_s * (0.75 + share / 4))
                pause_s = min(2 * pause_s, PAUSE_S_MAX)

    def _wants(self) -> bool:
        seal = self._seal
        return seal.initialized and seal.sealed and (self._lost_quorum() or not seal.was_unsealed) and self._in_contact

    @property
    def _in_contact(self) -> bool:
        status = self._consensus.status()
        return bool(status.leader_id) and status.quorum_contact_age_s <= CONTACT_S

    def _others(self) -> list[str]:
        """The other members, the leader first: it is the likeliest to be unsealed."""
        status = self._consensus.status()
        names = [peer.member.node_id for peer in status.peers if peer.member.node_id != self._node_id]
        return sorted(names, key=lambda name: name != status.leader_id)

    async def _ask_everyone(self) -> None:
        for giver in self._others():
            if not self._wants():
                return
            pending = self._new_request()
            request = msgspec.msgpack.encode(pending.request)
            try:
                wrapped = await self._calls.call(giver, ASK_CALL, request, timeout_s=ASK_TIMEOUT_S)
            except HoldfastError as error:  # its Fatal is not ours
                _log.info("root_key_not_received", giver=giver, reason=error.reason)
                continue
            if not self._wants():
                return
            try:
                await self._unseal(pending, wrapped, giver)
            except Fatal:
                raise
            except HoldfastError as error:
                _log.warning("root_key_not_usable", giver=giver, reason=error.reason, message=error.message)

    # Being given

    async def _offered(self, caller: str, payload: bytes) -> bytes:
        del payload
        self._check_member(caller)
        if not self._seal.initialized:
            raise Uninitialized("this node has not yet received the cluster's keys from its peers; try again")
        if not self._seal.sealed:
            return msgspec.msgpack.encode(Offered(None))
        await self._await_contact()
        pending = self._new_request()
        self._pending[caller] = self._clock(), pending
        return msgspec.msgpack.encode(Offered(pending.request))

    async def _delivered(self, caller: str, payload: bytes) -> bytes:
        self._check_member(caller)
        try:
            delivery = msgspec.msgpack.decode(payload, type=Delivery)
        except MALFORMED:
            raise InvalidArgument("a hand-over has an unknown form; do the nodes run one version?") from None
        offered_s, pending = self._pending.pop(caller, (0.0, None))
        if pending is None or pending.request.nonce != delivery.nonce or self._clock() - offered_s > OFFER_LIFE_S:
            raise FailedPrecondition("this node did not ask for that, or not lately; offer the root key again")
        await self._await_contact()
        await self._unseal(pending, delivery.wrapped, caller)
        return b""

    # What both share

    def _new_request(self) -> PendingKey:
        return PendingKey(
            cluster_id=self._seal.status().cluster_id, receiver=self._node_id, random_bytes=self._random_bytes
        )

    async def _unseal(self, pending: PendingKey, wrapped: bytes, giver: str) -> None:
        await self._seal.unseal_with_root_key(pending.open(wrapped, giver=giver))
        _log.warning("unsealed_by_member", giver=giver)

    def _check_member(self, caller: str) -> None:
        if caller not in self._others():
            raise PermissionDenied("the root key is taken from current members only")

    async def _await_contact(self) -> None:
        """Wait for an election to end, if there is one: unsealing nodes may move leadership."""
        for _ in range(_CONTACT_LOOKS):
            if self._in_contact:
                return
            await asyncio.sleep(LOOK_S)
        raise NoLeader("the node is not in contact with a quorum; unseal it when it is")

    def _ending_on_fatal(self, handle: Callable[[str, bytes], Awaitable[bytes]]) -> Handler:
        async def answer(caller: str, payload: bytes) -> bytes:
            try:
                return await handle(caller, payload)
            except Fatal as error:
                self._on_fatal(error)
                raise

        return answer
