"""holdfast.v1.SealProviderService: the unseal providers, added and removed while the cluster runs."""
# ruff: noqa: N802 - method names are the protocol's

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from holdfast.cluster.peer.calls import PeerCalls
from holdfast.cluster.raft.consensus import Consensus
from holdfast.cluster.seal.providers.health import ProviderStatus
from holdfast.cluster.seal.providers.keeper import ProviderKeeper
from holdfast.cluster.seal.providers.records import ProviderRecord
from holdfast.cluster.seal.providers.wraps import ProviderWraps, Spec
from holdfast.core.request import Operation
from holdfast.proto.errors import Fatal, HoldfastError, InvalidArgument
from holdfast.proto.v1 import seal_provider_pb2 as pb
from holdfast.proto.v1.seal_provider_pb2_grpc import SealProviderServiceServicer
from holdfast.server.authorization import Authorize, authorized
from holdfast.server.forwarding import call_member, serve_member
from holdfast.server.frontend import FrontEnd, rpc
from holdfast.server.leader_operation import Credentials, LeaderOperation
from holdfast.server.metadata import Call
from holdfast.server.seal_provider_messages import health_message, provider_message
from holdfast.storage.decoding import MALFORMED

PATH = "sys/seal-provider"
HEALTH_CALL = "seal-provider.health"
MEMBER_TIMEOUT_S = 3.0
"""How long a member may take to say how it finds the providers: it only looks into its memory."""

PARAMETERS_MAX = 16
NAME_CHARS_MAX = 64


class _AddOrder(msgspec.Struct, frozen=True):
    credentials: Credentials
    spec: Spec


class _RemoveOrder(msgspec.Struct, frozen=True):
    credentials: Credentials
    name: str


class _Removed(msgspec.Struct, frozen=True):
    pass


_Statuses = msgspec.msgpack.Decoder(tuple[ProviderStatus, ...])


class SealProviderService(SealProviderServiceServicer):
    """Adding and removing run on the leader; a test runs on the node that is called."""

    def __init__(
        self,
        front_end: FrontEnd,
        *,
        node_id: str,
        consensus: Consensus,
        calls: PeerCalls,
        wraps: ProviderWraps,
        keeper: ProviderKeeper,
        authorize: Authorize,
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        self.front_end = front_end
        self._node_id = node_id
        self._consensus = consensus
        self._calls = calls
        self._wraps = wraps
        self._keeper = keeper
        self._authorize = authorize
        self._add = LeaderOperation(
            "seal-provider.add", _AddOrder, ProviderRecord, self._add_here, consensus=consensus, calls=calls,
            on_fatal=on_fatal,
        )  # fmt: skip
        self._remove = LeaderOperation(
            "seal-provider.remove", _RemoveOrder, _Removed, self._remove_here, consensus=consensus, calls=calls,
            on_fatal=on_fatal,
        )  # fmt: skip
        serve_member(calls, HEALTH_CALL, self._answer_health, on_fatal)

    @rpc
    async def AddSealProvider(self, message: pb.AddSealProviderRequest, call: Call) -> pb.AddSealProviderResponse:
        if len(message.parameters) > PARAMETERS_MAX:
            raise InvalidArgument(f"at most {PARAMETERS_MAX} parameters", field="parameters")
        spec = Spec(
            name=_name(message.name),
            type=message.type,
            priority=message.priority,
            parameters=dict(message.parameters),
        )
        record = await self._add(_AddOrder(Credentials.of(call), spec), timeout_s=call.timeout_s)
        return pb.AddSealProviderResponse(provider=provider_message(record))

    @rpc
    async def RemoveSealProvider(
        self, message: pb.RemoveSealProviderRequest, call: Call
    ) -> pb.RemoveSealProviderResponse:
        await self._remove(_RemoveOrder(Credentials.of(call), _name(message.name)), timeout_s=call.timeout_s)
        return pb.RemoveSealProviderResponse()

    @rpc
    async def ListSealProviders(self, message: pb.ListSealProvidersRequest, call: Call) -> pb.ListSealProvidersResponse:
        del message
        async with authorized(self._authorize, Credentials.of(call).request(Operation.READ, PATH)):
            providers = await self._wraps.stored()
            members = sorted(peer.member.node_id for peer in self._consensus.status().peers)
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._ask_health(node_id)) for node_id in members]
        return pb.ListSealProvidersResponse(
            providers=[provider_message(record) for record in providers.providers],
            members=[task.result() for task in asked],
        )

    @rpc
    async def TestSealProvider(self, message: pb.TestSealProviderRequest, call: Call) -> pb.TestSealProviderResponse:
        name = _name(message.name)
        async with authorized(self._authorize, Credentials.of(call).request(Operation.READ, f"{PATH}/{name}/test")):
            status = await self._keeper.test(name)
        return pb.TestSealProviderResponse(node_id=self._node_id, provider=health_message(status, message=True))

    async def _add_here(self, order: _AddOrder, forwarded_by: str) -> ProviderRecord:
        credentials, spec = order.credentials, order.spec
        data = {"type": spec.type, "priority": spec.priority, "parameters": dict(spec.parameters)}
        request = credentials.request(Operation.UPDATE, f"{PATH}/{spec.name}", data=data, forwarded_by=forwarded_by)
        async with authorized(self._authorize, request):
            return await self._wraps.add(spec, timeout_s=credentials.timeout_s)

    async def _remove_here(self, order: _RemoveOrder, forwarded_by: str) -> _Removed:
        credentials = order.credentials
        request = credentials.request(Operation.DELETE, f"{PATH}/{order.name}", forwarded_by=forwarded_by)
        async with authorized(self._authorize, request):
            await self._wraps.remove(order.name, timeout_s=credentials.timeout_s)
        return _Removed()

    async def _ask_health(self, node_id: str) -> pb.MemberSealProviders:
        if node_id == self._node_id:
            return _member(node_id, tuple(self._keeper.statuses))
        try:
            reply = await call_member(self._calls, node_id, HEALTH_CALL, b"", timeout_s=MEMBER_TIMEOUT_S)
            return _member(node_id, _Statuses.decode(reply))
        except HoldfastError as error:
            return pb.MemberSealProviders(node_id=node_id, error=error.message)
        except MALFORMED:
            return pb.MemberSealProviders(node_id=node_id, error="its answer has an unknown form")

    async def _answer_health(self, caller: str, payload: bytes) -> bytes:
        del caller, payload
        return msgspec.msgpack.encode(tuple(self._keeper.statuses))


def _member(node_id: str, statuses: tuple[ProviderStatus, ...]) -> pb.MemberSealProviders:
    return pb.MemberSealProviders(
        node_id=node_id, providers=[health_message(status, message=True) for status in statuses]
    )


def _name(text: str) -> str:
    if not 0 < len(text) <= NAME_CHARS_MAX or "/" in text:
        raise InvalidArgument("name must be the name of a provider", field="name")
    return text
