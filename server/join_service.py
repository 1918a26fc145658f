"""holdfast.v1.JoinService: a new machine comes with a join token and leaves as a node.

Both calls are open to strangers. What they may cost is bounded here: so many attempts an address and all together.
"""
# ruff: noqa: N802 - method names are the protocol's

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.cluster.peer.calls import PeerCalls
from holdfast.cluster.raft.consensus import Consensus, Member
from holdfast.core.request import Operation, Request, Response
from holdfast.proto.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    Fatal,
    HoldfastError,
    InvalidArgument,
    Overloaded,
    PermissionDenied,
)
from holdfast.proto.v1 import join_pb2 as pb
from holdfast.proto.v1.join_pb2_grpc import JoinServiceServicer
from holdfast.server.frontend import FrontEnd, rpc
from holdfast.server.join_engine import CSR_BYTES_MAX
from holdfast.server.join_token import SECRET_BYTES
from holdfast.server.leader_operation import LeaderOperation
from holdfast.server.metadata import Call

JOIN_PATH = "sys/join"
FAILURES_PER_ADDRESS, FAILURES_TOGETHER, WINDOW_S = 30, 120, 60.0
"""How many attempts may fail in a window, from one address and from all. A secret has 256 bits: this bounds what
strangers cost, not what they guess."""

UNDER_WAY_MAX = 4
"""How many attempts are served at once."""

RETRY_S = 0.2


class _Order(msgspec.Struct, frozen=True, kw_only=True):
    call_id: str
    remote_address: str
    timeout_s: float
    secret: bytes
    member: Member
    certificate_request: bytes

    def __repr__(self) -> str:
        return f"_Order(call_id={self.call_id!r})"


class _Joined(msgspec.Struct, frozen=True, kw_only=True):
    certificate: bytes
    ca_certificate: bytes
    cluster_name: str
    index: int


class Attempts:
    """Failed attempts of late. clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failed: deque[tuple[float, str]] = deque()
        self._under_way = 0

    def begin(self, host: str) -> None:
        """Raises Overloaded when too many failed of late, or too many are under way."""
        now_s = self._clock()
        while self._failed and now_s - self._failed[0][0] > WINDOW_S:
            self._failed.popleft()
        own = sum(name == host for _, name in self._failed)
        if own >= FAILURES_PER_ADDRESS or len(self._failed) >= FAILURES_TOGETHER:
            raise Overloaded("too many attempts to join failed of late: wait a minute", retry_after_ms=60_000)
        if self._under_way >= UNDER_WAY_MAX:
            raise Overloaded("other machines are joining at this moment: try again")
        self._under_way += 1

    def end(self, host: str, *, failed: bool) -> None:
        """An attempt that had begun is over."""
        self._under_way -= 1
        if failed:
            self._failed.append((self._clock(), host))


class JoinService(JoinServiceServicer):
    """serve_open: see Core. api_ca: the CA that signed the API port's certificate; None when it is not at hand."""

    def __init__(
        self,
        front_end: FrontEnd,
        *,
        consensus: Consensus,
        calls: PeerCalls,
        serve_open: Callable[[Request], Awaitable[Response]],
        api_ca: x509.Certificate | None,
        clock: Callable[[], float],
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        self.front_end = front_end
        self._consensus = consensus
        self._serve_open = serve_open
        self._api_ca = api_ca
        self._attempts = Attempts(clock)
        self._redeem = LeaderOperation(
            "raft.redeem", _Order, _Joined, self._redeem_here, consensus=consensus, calls=calls, on_fatal=on_fatal
        )

    @rpc
    async def CaCertificate(self, message: pb.CaCertificateRequest, call: Call) -> pb.CaCertificateResponse:
        del message, call
        if self._api_ca is None:
            raise FailedPrecondition("the CA of this node's API port is not at hand: no token can name it")
        return pb.CaCertificateResponse(certificate=self._api_ca.public_bytes(Encoding.PEM))

    @rpc
    async def Redeem(self, message: pb.RedeemRequest, call: Call) -> pb.RedeemResponse:
        host = call.remote_address.rpartition(":")[0]
        self._attempts.begin(host)
        failed = True
        try:
            joined = await self._redeem(_order(message, call), timeout_s=call.timeout_s)
            failed = False
        except HoldfastError as error:
            failed = isinstance(error, PermissionDenied | FailedPrecondition | InvalidArgument)
            raise
        finally:
            self._attempts.end(host, failed=failed)
        return pb.RedeemResponse(
            certificate=joined.certificate,
            ca_certificate=joined.ca_certificate,
            cluster_name=joined.cluster_name,
            index=joined.index,
        )

    async def _redeem_here(self, order: _Order, forwarded_by: str) -> _Joined:
        """On the leader. The certificate is handed out only after the cluster has taken the node in under its id, which
        it does for one node at a time: so no two machines get one for the same id."""
        member = order.member
        response = await self._serve_open(
            Request(
                operation=Operation.UPDATE,
                path=JOIN_PATH,
                data={
                    "secret": order.secret.hex(),
                    "node_id": member.node_id,
                    "certificate_request": base64.b64encode(order.certificate_request).decode(),
                    "cluster_address": member.cluster_address,
                    "api_address": member.api_address,
                },
                id=order.call_id,
                remote_address=order.remote_address,
                timeout_s=order.timeout_s,
                forwarded_by=forwarded_by,
            )
        )
        told: dict[str, Any] = response.data or {}
        index = await self._add(msgspec.structs.replace(member, voter=bool(told["voter"])), order.timeout_s)
        return _Joined(
            certificate=told["certificate"].encode(),
            ca_certificate=told["ca_certificate"].encode(),
            cluster_name=told["cluster_name"],
            index=index,
        )

    async def _add(self, member: Member, timeout_s: float) -> int:
        """Add the member, after the change of members that may be under way."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            remaining_s = deadline - asyncio.get_running_loop().time()
            try:
                return await self._consensus.add_member(member, timeout_s=max(0.1, remaining_s))
            except Conflict:
                if remaining_s <= RETRY_S:
                    raise
            except AlreadyExists:
                raise FailedPrecondition(
                    f"{member.node_id} became a member in another way meanwhile: make a new token and choose another id"
                ) from None
            await asyncio.sleep(RETRY_S)


def _order(message: pb.RedeemRequest, call: Call) -> _Order:
    """Sizes are looked at here, before anything is forwarded; the leader judges the rest."""
    if len(message.secret) != SECRET_BYTES:
        raise InvalidArgument(f"the secret of a join token has {SECRET_BYTES} bytes", field="secret")
    if len(message.certificate_request) > CSR_BYTES_MAX:
        raise InvalidArgument("the certificate request is too large", field="certificate_request")
    for field in ("node_id", "cluster_address", "api_address"):
        if len(getattr(message, field)) > 300:
            raise InvalidArgument(f"{field} is too long", field=field)
    return _Order(
        call_id=call.id,
        remote_address=call.remote_address,
        timeout_s=call.timeout_s,
        secret=message.secret,
        member=Member(
            node_id=message.node_id, cluster_address=message.cluster_address, api_address=message.api_address
        ),
        certificate_request=message.certificate_request,
    )
