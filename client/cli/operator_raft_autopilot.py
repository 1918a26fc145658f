"""`holdfast operator raft autopilot`: the members' health, and what the leader may do about it."""

from __future__ import annotations

from datetime import timedelta

import click

from holdfast.client.cli.app import SETTINGS, App, Group, pass_app
from holdfast.client.cli.output import pairs, table
from holdfast.client.durations import format_duration, parse_duration
from holdfast.client.results import AutopilotConfiguration, AutopilotServer, AutopilotState


@click.group(cls=Group, context_settings=SETTINGS)
def autopilot() -> None:
    """Show the members' health, and say what the leader may do about it.

    \b
    Example:
      holdfast operator raft autopilot state
    """


@autopilot.command(context_settings=SETTINGS)
@pass_app
def state(app: App) -> None:
    """Show the cluster as its leader sees it.

    \b
    Example:
      holdfast operator raft autopilot state
    """
    with app.client() as client:
        seen = client.raft.autopilot_state()
    app.show({"data": _state_value(seen)}, lambda: _state_text(seen))


@autopilot.command("get-config", context_settings=SETTINGS)
@pass_app
def get_config(app: App) -> None:
    """Show what autopilot may do.

    \b
    Example:
      holdfast operator raft autopilot get-config
    """
    with app.client() as client:
        config = client.raft.autopilot_config()
    app.show({"data": _config_value(config)}, lambda: _config_text(config))


@autopilot.command("set-config", context_settings=SETTINGS)
@click.option("--cleanup-dead-servers", type=bool, help="Remove members that are dead (false).")
@click.option("--dead-server-last-contact-threshold", metavar="DURATION", help="Dead after so long (24h; at least 1m).")
@click.option("--min-quorum", type=int, help="Leave at least so many voters; at least 3 to clean up.")
@click.option("--server-stabilization-time", metavar="DURATION", help="A new member votes when healthy so long (10s).")
@click.option("--last-contact-threshold", metavar="DURATION", help="Unhealthy when not heard for so long (10s).")
@click.option("--max-trailing-logs", type=int, help="Unhealthy when so many entries behind (1000).")
@pass_app
def set_config(
    app: App,
    cleanup_dead_servers: bool | None,  # noqa: FBT001
    dead_server_last_contact_threshold: str | None,
    min_quorum: int | None,
    server_stabilization_time: str | None,
    last_contact_threshold: str | None,
    max_trailing_logs: int | None,
) -> None:
    """Say what autopilot may do. What is not named stays as it is.

    \b
    Example:
      holdfast operator raft autopilot set-config -cleanup-dead-servers=true -min-quorum=3
    """

    def given(text: str | None, name: str) -> timedelta | None:
        return None if text is None else parse_duration(text, field=name)

    with app.client() as client:
        config = client.raft.set_autopilot_config(
            cleanup_dead_servers=cleanup_dead_servers,
            dead_server_last_contact_threshold=given(
                dead_server_last_contact_threshold, "-dead-server-last-contact-threshold"
            ),
            min_quorum=min_quorum,
            server_stabilization_time=given(server_stabilization_time, "-server-stabilization-time"),
            last_contact_threshold=given(last_contact_threshold, "-last-contact-threshold"),
            max_trailing_logs=max_trailing_logs,
        )
    app.show({"data": _config_value(config)}, lambda: _config_text(config))


def _state_value(seen: AutopilotState) -> dict[str, object]:
    servers = {
        server.node_id: {
            "id": server.node_id,
            "address": server.address,
            "status": _status(server),
            "healthy": server.healthy,
            "stable_seconds": server.stable.total_seconds(),
            "last_contact_seconds": server.last_contact.total_seconds(),
            "last_index": server.last_index,
            "last_term": server.last_term,
        }
        for server in seen.servers
    }
    return {
        "healthy": seen.healthy,
        "failure_tolerance": seen.failure_tolerance,
        "leader": seen.leader,
        "voters": list(seen.voters),
        "servers": servers,
    }


def _state_text(seen: AutopilotState) -> str:
    whole = {"Healthy": seen.healthy, "Failure Tolerance": seen.failure_tolerance, "Leader": seen.leader}
    headings = ["Node", "Address", "Status", "Healthy", "Stable For", "Last Contact", "Last Term", "Last Index"]
    rows: list[list[object]] = [
        [
            server.node_id,
            server.address,
            _status(server),
            server.healthy,
            f"{server.stable.total_seconds():.0f}s",
            f"{server.last_contact.total_seconds():.1f}s ago",
            server.last_term,
            server.last_index,
        ]
        for server in seen.servers
    ]
    return f"{pairs(whole)}\n\n{table(headings, rows)}"


def _status(server: AutopilotServer) -> str:
    return "leader" if server.leader else "voter" if server.voter else "non-voter"


def _config_value(config: AutopilotConfiguration) -> dict[str, object]:
    return {
        "cleanup_dead_servers": config.cleanup_dead_servers,
        "dead_server_last_contact_threshold": format_duration(config.dead_server_last_contact_threshold),
        "last_contact_threshold": format_duration(config.last_contact_threshold),
        "max_trailing_logs": config.max_trailing_logs,
        "min_quorum": config.min_quorum,
        "server_stabilization_time": format_duration(config.server_stabilization_time),
    }


def _config_text(config: AutopilotConfiguration) -> str:
    return pairs({name.replace("_", " ").title(): value for name, value in _config_value(config).items()})
