"""holdfast.v1.SysService: initialisation, seal, health, leadership.

Init and Unseal carry shares and the root token: their messages are never logged, printed or put into an error.
"""
# ruff: noqa: N802 - method names are the protocol's

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.cluster.peer.calls import PeerCalls
from holdfast.cluster.raft.consensus import Consensus, Role
from holdfast.cluster.seal.providers.contract import Health
from holdfast.cluster.seal.providers.health import ProviderStatus
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.sharing import Result as MemberResult
from holdfast.cluster.seal.state import SealStatus as NodeSealStatus
from holdfast.core.request import Consistency, Operation
from holdfast.proto.errors import Fatal, InvalidArgument
from holdfast.proto.v1 import sys_pb2 as pb
from holdfast.proto.v1.sys_pb2_grpc import SysServiceServicer
from holdfast.server.advice import OPERATOR_SEALED, next_step
from holdfast.server.authorization import Authorize, authorized
from holdfast.server.frontend import FrontEnd, probe, rpc
from holdfast.server.health import HealthReport
from holdfast.server.leader_operation import Credentials, LeaderOperation
from holdfast.server.limits import SHARE_CHARS_MAX
from holdfast.server.metadata import Call
from holdfast.server.seal_provider_messages import health_message
from holdfast.storage.transaction import Transaction

SEAL_PATH = "sys/seal"
STEP_DOWN_PATH = "sys/step-down"

SHARES_DEFAULT = 5
SHARES_MAX = 255
THRESHOLD_DEFAULT = 3

_STATES = {
    "active": pb.HealthResponse.STATE_ACTIVE,
    "standby": pb.HealthResponse.STATE_STANDBY,
    "sealed": pb.HealthResponse.STATE_SEALED,
    "uninitialized": pb.HealthResponse.STATE_UNINITIALIZED,
    "no_leader": pb.HealthResponse.STATE_NO_LEADER,
}


class _InitOrder(msgspec.Struct, frozen=True):
    shares: int
    threshold: int


class _InitResult(msgspec.Struct, frozen=True):
    shares: tuple[str, ...]
    root_token: str

    def __repr__(self) -> str:
        return f"_InitResult({len(self.shares)} shares)"


class _StepDownOrder(msgspec.Struct, frozen=True):
    credentials: Credentials


class _StepDownResult(msgspec.Struct, frozen=True):
    new_leader_id: str


class SysService(SysServiceServicer):
    """What an operator does to a node and to the cluster.

    bootstrap: writes the first records of a new cluster and returns the root token. unseal_members: hands the root key
    to every other member; called only after a threshold of shares was given for that. seal_providers: how this node
    finds them. on_quorum_return: the node's setting.
    """

    def __init__(
        self,
        front_end: FrontEnd,
        *,
        version: str,
        consensus: Consensus,
        calls: PeerCalls,
        seal: SealManager,
        unseal_members: Callable[[], Awaitable[Sequence[MemberResult]]],
        seal_providers: Callable[[], Sequence[ProviderStatus]],
        on_quorum_return: str,
        bootstrap: Callable[[Transaction], Awaitable[str]],
        authorize: Authorize,
        health: Callable[[], HealthReport],
        wall_clock: Callable[[], float],
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        self.front_end = front_end
        self._version = version
        self._consensus = consensus
        self._seal = seal
        self._unseal_members = unseal_members
        self._seal_providers = seal_providers
        self._on_quorum_return = on_quorum_return
        self._bootstrap = bootstrap
        self._authorize = authorize
        self._health = health
        self._wall_clock = wall_clock
        self._init = LeaderOperation(
            "sys.init", _InitOrder, _InitResult, self._init_here, consensus=consensus, calls=calls, on_fatal=on_fatal
        )
        self._step_down = LeaderOperation(
            "sys.step-down", _StepDownOrder, _StepDownResult, self._step_down_here, consensus=consensus, calls=calls,
            on_fatal=on_fatal,
        )  # fmt: skip

    @rpc
    async def Init(self, message: pb.InitRequest, call: Call) -> pb.InitResponse:
        result = await self._init(_init_order(message), timeout_s=call.timeout_s)
        return pb.InitResponse(shares=result.shares, root_token=result.root_token)

    @probe
    async def SealStatus(self, message: pb.SealStatusRequest, call: Call) -> pb.SealStatusResponse:
        del message, call
        return self._status_message(self._seal.status())

    @probe
    async def Unseal(self, message: pb.UnsealRequest, call: Call) -> pb.UnsealResponse:
        del call
        if message.reset:
            return pb.UnsealResponse(status=self._status_message(self._seal.reset_unseal()))
        if not 0 < len(message.share) <= SHARE_CHARS_MAX or not message.share.isascii():
            raise InvalidArgument("share must be one of the lines that init printed", field="share")
        if not message.cluster:
            return pb.UnsealResponse(status=self._status_message(await self._seal.unseal(message.share)))
        if not await self._seal.unseal_for_cluster(message.share):
            return pb.UnsealResponse(status=self._status_message(self._seal.status()))
        results = await self._unseal_members()
        members = [
            pb.MemberUnseal(node_id=r.node_id, unsealed=r.unsealed, already=r.already, reason=r.reason) for r in results
        ]
        status = self._status_message(self._seal.status())
        return pb.UnsealResponse(status=status, members=members, cluster_done=True)

    @rpc
    async def Seal(self, message: pb.SealRequest, call: Call) -> pb.SealResponse:
        del message
        # A node that has lost its quorum can still be sealed: its own state decides whose token may do it.
        request = Credentials.of(call).request(Operation.UPDATE, SEAL_PATH, consistency=Consistency.STALE)
        async with authorized(self._authorize, request):
            self._seal.seal(OPERATOR_SEALED)
        return pb.SealResponse()

    @probe
    async def Health(self, message: pb.HealthRequest, call: Call) -> pb.HealthResponse:
        del message, call
        report = self._health()
        return pb.HealthResponse(
            state=_STATES[report.state],
            node_id=report.node_id,
            version=report.version,
            server_time=_timestamp(self._wall_clock()),
        )

    @probe
    async def Leader(self, message: pb.LeaderRequest, call: Call) -> pb.LeaderResponse:
        del message, call
        status = self._consensus.status()
        addresses = {peer.member.node_id: peer.member.api_address for peer in status.peers}
        return pb.LeaderResponse(
            is_self=status.role is Role.LEADER,
            leader_id=status.leader_id,
            leader_address=addresses.get(status.leader_id, ""),
            term=status.term,
        )

    @rpc
    async def StepDown(self, message: pb.StepDownRequest, call: Call) -> pb.StepDownResponse:
        del message
        result = await self._step_down(_StepDownOrder(Credentials.of(call)), timeout_s=call.timeout_s)
        return pb.StepDownResponse(new_leader_id=result.new_leader_id)

    async def _init_here(self, order: _InitOrder, forwarded_by: str) -> _InitResult:
        del forwarded_by
        shares, root_token = await self._seal.initialize(
            shares=order.shares, threshold=order.threshold, bootstrap=self._bootstrap
        )
        return _InitResult(shares=shares.texts, root_token=root_token)

    async def _step_down_here(self, order: _StepDownOrder, forwarded_by: str) -> _StepDownResult:
        credentials = order.credentials
        request = credentials.request(Operation.UPDATE, STEP_DOWN_PATH, forwarded_by=forwarded_by)
        async with authorized(self._authorize, request):
            return _StepDownResult(await self._consensus.transfer_leadership(timeout_s=credentials.timeout_s))

    def _status_message(self, status: NodeSealStatus) -> pb.SealStatusResponse:
        return pb.SealStatusResponse(
            type=status.type,
            initialized=status.initialized,
            sealed=status.sealed,
            threshold=status.threshold,
            shares=status.shares,
            progress=status.progress,
            nonce=status.nonce,
            version=self._version,
            cluster_name=status.cluster_name,
            cluster_id=status.cluster_id,
            node_id=status.node_id,
            last_seal_reason=status.last_seal_reason,
            last_seal_time=None if status.last_seal_time_s is None else _timestamp(status.last_seal_time_s),
            role=self._part(status),
            leader_id=status.leader_id,
            quorum_contact_age_ms=round(status.quorum_contact_age_s * 1000),
            seal_providers=[health_message(provider, message=False) for provider in self._seal_providers()],
            next_step=next_step(
                status, part=self._part(status), on_quorum_return=self._on_quorum_return, unhealthy=self._unhealthy()
            ),
        )

    def _unhealthy(self) -> list[tuple[str, str]]:
        working = (Health.HEALTHY, Health.UNCHECKED)
        return [(found.name, found.health.value) for found in self._seal_providers() if found.health not in working]

    def _part(self, status: NodeSealStatus) -> str:
        """The node's part in the cluster: its role, unless it is no member."""
        members = [peer.member.node_id for peer in self._consensus.status().peers]
        if not members:
            return "joining"
        return status.role.value if status.node_id in members else "removed"


def _init_order(message: pb.InitRequest) -> _InitOrder:
    shares = message.secret_shares or SHARES_DEFAULT
    if shares > SHARES_MAX:
        raise InvalidArgument(f"secret_shares is at most {SHARES_MAX}", field="secret_shares")
    threshold = message.secret_threshold or min(THRESHOLD_DEFAULT, shares)
    if threshold > shares:
        raise InvalidArgument("secret_threshold is at most secret_shares", field="secret_threshold")
    if threshold == 1 and shares > 1:
        raise InvalidArgument("secret_threshold is at least 2 with more than one share", field="secret_threshold")
    return _InitOrder(shares=shares, threshold=threshold)


def _timestamp(unix_s: float) -> Timestamp:
    fraction, seconds = math.modf(unix_s)
    return Timestamp(seconds=int(seconds), nanos=int(fraction * 1e9))
