"""holdfast.v1.AutopilotService: the leader's view of its members' health, and what it may do about it."""
# ruff: noqa: N802 - method names are the protocol's

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
from google.protobuf.duration_pb2 import Duration

from holdfast.cluster.peer.calls import PeerCalls
from holdfast.cluster.raft.autopilot import AutopilotConfig, AutopilotState, ServerState
from holdfast.cluster.raft.consensus import Consensus
from holdfast.core.request import Operation
from holdfast.proto.errors import Fatal, InvalidArgument
from holdfast.proto.v1 import autopilot_pb2 as pb
from holdfast.proto.v1.autopilot_pb2_grpc import AutopilotServiceServicer
from holdfast.server.authorization import Authorize, authorized
from holdfast.server.frontend import FrontEnd, rpc
from holdfast.server.leader_operation import Credentials, LeaderOperation
from holdfast.server.metadata import Call

STATE_PATH = "sys/storage/raft/autopilot/state"
CONFIGURATION_PATH = "sys/storage/raft/autopilot/configuration"

Change = dict[str, float | int | bool]
"""The members of AutopilotConfig to change."""

DURATIONS = (
    "dead_server_last_contact_threshold", "server_stabilization_time", "last_contact_threshold",
)  # fmt: skip
PLAIN = ("cleanup_dead_servers", "min_quorum", "max_trailing_logs")
_NAMES = {*PLAIN, *(name + "_s" for name in DURATIONS)}


class AutopilotSeat(Protocol):
    """What the service needs of this node's consensus module."""

    def autopilot_state(self) -> AutopilotState:
        """See RaftNode."""
        ...

    def autopilot_config(self) -> AutopilotConfig:
        """See RaftNode."""
        ...

    async def set_autopilot(
        self, change: Callable[[AutopilotConfig], AutopilotConfig], *, timeout_s: float
    ) -> AutopilotConfig:
        """See RaftNode."""
        ...


class _Order(msgspec.Struct, frozen=True):
    credentials: Credentials


class _SetOrder(msgspec.Struct, frozen=True):
    credentials: Credentials
    change: Change


class AutopilotService(AutopilotServiceServicer):
    """Every method runs on the leader, behind core's authorization."""

    def __init__(
        self,
        front_end: FrontEnd,
        *,
        seat: AutopilotSeat,
        consensus: Consensus,
        calls: PeerCalls,
        authorize: Authorize,
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        self.front_end = front_end
        self._seat = seat
        self._authorize = authorize
        self._state = LeaderOperation(
            "autopilot.state", _Order, AutopilotState, self._state_here, consensus=consensus, calls=calls,
            on_fatal=on_fatal,
        )  # fmt: skip
        self._get = LeaderOperation(
            "autopilot.get-config", _Order, AutopilotConfig, self._get_here, consensus=consensus, calls=calls,
            on_fatal=on_fatal,
        )  # fmt: skip
        self._set = LeaderOperation(
            "autopilot.set-config", _SetOrder, AutopilotConfig, self._set_here, consensus=consensus, calls=calls,
            on_fatal=on_fatal,
        )  # fmt: skip

    @rpc
    async def GetAutopilotState(self, message: pb.GetAutopilotStateRequest, call: Call) -> pb.GetAutopilotStateResponse:
        del message
        state = await self._state(_Order(Credentials.of(call)), timeout_s=call.timeout_s)
        return pb.GetAutopilotStateResponse(
            healthy=state.healthy,
            failure_tolerance=state.failure_tolerance,
            leader=state.leader,
            voters=state.voters,
            servers=[_server(server) for server in state.servers],
        )

    @rpc
    async def GetAutopilotConfiguration(
        self, message: pb.GetAutopilotConfigurationRequest, call: Call
    ) -> pb.GetAutopilotConfigurationResponse:
        del message
        config = await self._get(_Order(Credentials.of(call)), timeout_s=call.timeout_s)
        return pb.GetAutopilotConfigurationResponse(configuration=_message(config))

    @rpc
    async def SetAutopilotConfiguration(
        self, message: pb.SetAutopilotConfigurationRequest, call: Call
    ) -> pb.SetAutopilotConfigurationResponse:
        order = _SetOrder(Credentials.of(call), _change(message.configuration))
        config = await self._set(order, timeout_s=call.timeout_s)
        return pb.SetAutopilotConfigurationResponse(configuration=_message(config))

    async def _state_here(self, order: _Order, forwarded_by: str) -> AutopilotState:
        request = order.credentials.request(Operation.READ, STATE_PATH, forwarded_by=forwarded_by)
        async with authorized(self._authorize, request):
            return self._seat.autopilot_state()

    async def _get_here(self, order: _Order, forwarded_by: str) -> AutopilotConfig:
        request = order.credentials.request(Operation.READ, CONFIGURATION_PATH, forwarded_by=forwarded_by)
        async with authorized(self._authorize, request):
            return self._seat.autopilot_config()

    async def _set_here(self, order: _SetOrder, forwarded_by: str) -> AutopilotConfig:
        credentials = order.credentials
        request = credentials.request(
            Operation.UPDATE, CONFIGURATION_PATH, data=dict(order.change), forwarded_by=forwarded_by
        )
        async with authorized(self._authorize, request):
            if not order.change.keys() <= _NAMES:
                raise InvalidArgument("a forwarded order has an unknown form; do the nodes run one version?")
            return await self._seat.set_autopilot(
                lambda config: msgspec.structs.replace(config, **order.change), timeout_s=credentials.timeout_s
            )


def _change(message: pb.AutopilotConfiguration) -> Change:
    given = {field.name for field, _ in message.ListFields()}
    change: Change = {name: getattr(message, name) for name in PLAIN if name in given}
    for name in DURATIONS:
        if name in given:
            duration: Duration = getattr(message, name)
            seconds = duration.seconds + duration.nanos / 1e9
            if not 0 <= seconds <= 10 * 365 * 86_400:
                raise InvalidArgument(f"{name} is not a duration that can be used", field=name)
            change[name + "_s"] = seconds
    if not change:
        raise InvalidArgument("say what to change in the configuration", field="configuration")
    return change


def _duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


def _message(config: AutopilotConfig) -> pb.AutopilotConfiguration:
    message = pb.AutopilotConfiguration(
        cleanup_dead_servers=config.cleanup_dead_servers,
        min_quorum=config.min_quorum,
        max_trailing_logs=config.max_trailing_logs,
    )
    for name in DURATIONS:
        getattr(message, name).CopyFrom(_duration(getattr(config, name + "_s")))
    return message


def _server(server: ServerState) -> pb.AutopilotServer:
    return pb.AutopilotServer(
        node_id=server.node_id,
        address=server.address,
        leader=server.leader,
        voter=server.voter,
        healthy=server.healthy,
        stable=_duration(server.stable_s),
        last_contact=_duration(server.last_contact_s),
        last_index=server.last_index,
        last_term=server.last_term,
    )
