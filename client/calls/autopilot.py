"""The calls of AutopilotService: the members' health, and what the leader may do about it."""

from __future__ import annotations

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from holdfast.client.calls.call import Call
from holdfast.client.failures import LocalError
from holdfast.client.results import AutopilotConfiguration, AutopilotServer, AutopilotState
from holdfast.client.retry import Effect
from holdfast.proto.v1 import autopilot_pb2 as pb

_SERVICE = "/holdfast.v1.AutopilotService/"


def state() -> Call[AutopilotState]:
    """The cluster as its leader sees it."""
    return Call(
        _SERVICE + "GetAutopilotState", pb.GetAutopilotStateRequest(), pb.GetAutopilotStateResponse, _state, Effect.READ
    )


def get_configuration() -> Call[AutopilotConfiguration]:
    """What autopilot may do."""
    request = pb.GetAutopilotConfigurationRequest()
    return Call(
        _SERVICE + "GetAutopilotConfiguration",
        request,
        pb.GetAutopilotConfigurationResponse,
        _configuration,
        Effect.READ,
    )


def set_configuration(
    *,
    cleanup_dead_servers: bool | None,
    dead_server_last_contact_threshold: timedelta | None,
    min_quorum: int | None,
    server_stabilization_time: timedelta | None,
    last_contact_threshold: timedelta | None,
    max_trailing_logs: int | None,
) -> Call[AutopilotConfiguration]:
    """Changes what is given. Saying it twice says the same."""
    for name, number in (("min_quorum", min_quorum), ("max_trailing_logs", max_trailing_logs)):
        if number is not None and not 0 <= number < 2**53:
            raise LocalError(f"{name} must be a number from 0 up.", field=name)
    message = pb.AutopilotConfiguration(
        cleanup_dead_servers=cleanup_dead_servers,
        dead_server_last_contact_threshold=_duration(dead_server_last_contact_threshold),
        min_quorum=min_quorum,
        server_stabilization_time=_duration(server_stabilization_time),
        last_contact_threshold=_duration(last_contact_threshold),
        max_trailing_logs=max_trailing_logs,
    )
    request = pb.SetAutopilotConfigurationRequest(configuration=message)
    return Call(
        _SERVICE + "SetAutopilotConfiguration",
        request,
        pb.SetAutopilotConfigurationResponse,
        _configuration,
        Effect.ONCE,
    )


def _duration(value: timedelta | None) -> Duration | None:
    if value is None:
        return None
    duration = Duration()
    duration.FromTimedelta(value)
    return duration


def _state(response: pb.GetAutopilotStateResponse) -> AutopilotState:
    servers = tuple(
        AutopilotServer(
            node_id=server.node_id,
            address=server.address,
            leader=server.leader,
            voter=server.voter,
            healthy=server.healthy,
            stable=server.stable.ToTimedelta(),
            last_contact=server.last_contact.ToTimedelta(),
            last_index=server.last_index,
            last_term=server.last_term,
        )
        for server in response.servers
    )
    return AutopilotState(
        response.healthy, response.failure_tolerance, response.leader, tuple(response.voters), servers
    )


def _configuration(
    response: pb.GetAutopilotConfigurationResponse | pb.SetAutopilotConfigurationResponse,
) -> AutopilotConfiguration:
    config = response.configuration
    return AutopilotConfiguration(
        cleanup_dead_servers=config.cleanup_dead_servers,
        dead_server_last_contact_threshold=config.dead_server_last_contact_threshold.ToTimedelta(),
        min_quorum=config.min_quorum,
        server_stabilization_time=config.server_stabilization_time.ToTimedelta(),
        last_contact_threshold=config.last_contact_threshold.ToTimedelta(),
        max_trailing_logs=config.max_trailing_logs,
    )
