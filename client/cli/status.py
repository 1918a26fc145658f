"""`holdfast status`: whether a node has its keys, and its part in the cluster."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from holdfast.client.cli.app import SETTINGS, App, Command, pass_app
from holdfast.client.cli.errors import EXIT_LOCAL, tell
from holdfast.client.cli.operator_seal_provider import health_facts, health_text
from holdfast.client.cli.output import pairs, timestamp
from holdfast.client.durations import format_duration
from holdfast.client.results import SealStatus
from holdfast.proto.errors import HoldfastError

EXIT_SEALED = 2

_CONTACT_LOST = timedelta(seconds=1)
"""A node in contact with a quorum hears of it many times a second."""


@click.command(cls=Command, context_settings=SETTINGS)
@pass_app
def status(app: App) -> None:
    """Show a node's state. Exit code: 0 unsealed, 1 error, 2 sealed.

    \b
    Examples:
      holdfast status
      holdfast status -address=10.0.0.2:8200 -format=json
    """
    context = click.get_current_context()
    try:
        with app.client(max_retries=0) as client:
            seal_status = client.sys.seal_status()
    except HoldfastError as error:
        click.echo(tell(error, app.format), err=True)
        context.exit(EXIT_LOCAL)
    app.show(status_facts(seal_status), lambda: status_text(seal_status))
    if seal_status.sealed:
        context.exit(EXIT_SEALED)


def status_facts(status: SealStatus) -> dict[str, Any]:
    """A seal status as programs get it; `t`, `n` and the other names are Vault's."""
    return {
        "type": status.type,
        "initialized": status.initialized,
        "sealed": status.sealed,
        "t": status.threshold,
        "n": status.shares,
        "progress": status.progress,
        "nonce": status.nonce,
        "version": status.version,
        "cluster_name": status.cluster_name,
        "cluster_id": status.cluster_id,
        "node_id": status.node_id,
        "role": status.role,
        "leader_id": status.leader_id or None,
        "quorum_contact_age_seconds": status.quorum_contact_age.total_seconds(),
        "last_seal_reason": status.last_seal_reason or None,
        "last_seal_time": timestamp(status.last_seal_time),
        "seal_providers": [health_facts(provider) for provider in status.seal_providers],
        "next_step": status.next_step or None,
    }


def status_text(status: SealStatus) -> str:
    """A seal status as people get it: only what says something in the node's state."""
    rows: dict[str, object] = {
        "Node": status.node_id,
        "Seal Type": status.type,
        "Initialized": status.initialized,
        "Sealed": status.sealed,
    }
    if status.initialized:
        rows["Total Shares"] = status.shares
        rows["Threshold"] = status.threshold
    if (status.sealed and status.initialized) or status.nonce:
        rows["Unseal Progress"] = f"{status.progress}/{status.threshold}"
    if status.nonce:
        rows["Unseal Nonce"] = status.nonce
    if status.last_seal_reason:
        rows["Last Seal Reason"] = status.last_seal_reason
        rows["Last Seal Time"] = status.last_seal_time
    if status.seal_providers:
        rows["Seal Providers"] = "; ".join(health_text(provider) for provider in status.seal_providers)
    rows["Role"] = status.role
    rows["Leader"] = status.leader_id or "unknown"
    if status.quorum_contact_age > _CONTACT_LOST:
        rows["Quorum Contact"] = f"lost {format_duration(_whole_seconds(status.quorum_contact_age))} ago"
    rows["Cluster Name"] = status.cluster_name
    if status.cluster_id:
        rows["Cluster ID"] = status.cluster_id
    rows["Version"] = status.version
    text = pairs(rows)
    return f"{text}\n\n{status.next_step}" if status.next_step else text


def _whole_seconds(duration: timedelta) -> timedelta:
    return timedelta(seconds=int(duration.total_seconds()))
