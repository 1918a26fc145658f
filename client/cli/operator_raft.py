"""`holdfast operator raft`: the members of the cluster."""

from __future__ import annotations

import click

from holdfast.client.cli.app import SETTINGS, App, Group, pass_app, yes_option
from holdfast.client.cli.operator_raft_autopilot import autopilot
from holdfast.client.cli.operator_raft_join import become_node, joining_options
from holdfast.client.cli.operator_raft_join_token import join_token
from holdfast.client.cli.operator_raft_recover import recover
from holdfast.client.cli.operator_raft_replica import replica
from holdfast.client.cli.operator_snapshot import snapshot
from holdfast.client.cli.output import table
from holdfast.client.results import Peer, PeerList


@click.group(cls=Group, context_settings=SETTINGS)
def raft() -> None:
    """Show and change the members of the cluster.

    \b
    Example:
      holdfast operator raft list-peers
    """


raft.add_command(recover)
raft.add_command(join_token)


@raft.command(context_settings=SETTINGS)
@click.argument("node_id")
@click.argument("cluster_address", required=False, metavar="CLUSTER_ADDRESS")
@click.argument("api_address", required=False, metavar="API_ADDRESS")
@joining_options
@pass_app
def join(app: App, /, node_id: str, cluster_address: str | None, api_address: str | None, **options: str) -> None:
    """Add a node, named as in its node.yaml. It votes as soon as it has caught up.

    It is the cluster that is asked (-address), and the new node that is named; a node does not ask to be let in.

    With -join-token it is the other way round: run on the new machine, this makes it the node, and needs nothing but
    the token. Its key is made there; its certificate, the CA and node.yaml are written to -config-dir.

    \b
    Examples:
      holdfast operator raft join node-4 10.0.0.4:8201 10.0.0.4:8200
      holdfast operator raft join node-4 10.0.0.4:8201 10.0.0.4:8200 -join-token=@join.txt
    """
    if cluster_address is None or api_address is None:
        raise click.UsageError("Name the new node: its id, its cluster address and its API address.")
    if options["join_token"]:
        become_node(app, node_id, cluster_address, api_address, options)
    unused = next((name for name, value in options.items() if value), None)
    if unused is not None:
        raise click.UsageError(f"-{unused.replace('_', '-')} goes with -join-token.")
    with app.client() as client:
        index = client.raft.join(node_id, cluster_address=cluster_address, api_address=api_address)
    app.show(
        {"data": {"node_id": node_id, "index": index}},
        lambda: f"{node_id} joined. It votes once it has caught up; unseal it so that it serves.",
    )


@raft.command("list-peers", context_settings=SETTINGS)
@pass_app
def list_peers(app: App) -> None:
    """Show the members as the leader sees them.

    \b
    Examples:
      holdfast operator raft list-peers
      holdfast operator raft list-peers -format=json
    """
    with app.client() as client:
        known = client.raft.list_peers()
    app.show(_value(known), lambda: _text(known))


@raft.command("remove-peer", context_settings=SETTINGS)
@click.argument("node_id")
@yes_option
@pass_app
def remove_peer(app: App, node_id: str, yes: bool) -> None:  # noqa: FBT001
    """Remove a node from the cluster for good.

    \b
    Example:
      holdfast operator raft remove-peer node-4
    """
    app.confirm(
        f"{node_id} will be no member any more, and a node that was removed does not come back as it is.", yes=yes
    )
    with app.client() as client:
        index = client.raft.remove_peer(node_id)
    app.show({"data": {"node_id": node_id, "index": index}}, lambda: f"{node_id} is no member any more.")


raft.add_command(snapshot)
raft.add_command(replica)
raft.add_command(autopilot)


def _value(known: PeerList) -> dict[str, object]:
    servers = [
        {
            "node_id": peer.node_id,
            "address": peer.cluster_address,
            "api_address": peer.api_address,
            "leader": peer.leader,
            "voter": peer.voter,
            "connected": peer.connected,
            "eligible": peer.eligible,
            "match_index": peer.match_index,
            "last_contact_ms": peer.last_contact_ms,
        }
        for peer in known.peers
    ]
    facts = {"term": known.term, "commit_index": known.commit_index, "applied_index": known.applied_index}
    return {"data": {"config": {"index": known.index, "servers": servers}, **facts}}


def _text(known: PeerList) -> str:
    headings = ["Node", "Cluster Address", "API Address", "State", "Voter", "Unsealed", "Behind", "Last Contact"]
    return table(headings, [_row(peer, known) for peer in known.peers])


def _row(peer: Peer, known: PeerList) -> list[object]:
    state = "leader" if peer.leader else "follower" if peer.connected else "unreachable"
    contact = "-" if peer.leader else f"{peer.last_contact_ms / 1000:.1f}s ago"
    behind = max(0, known.commit_index - peer.match_index)
    eligible = peer.eligible if peer.leader or peer.connected else "unknown"
    return [peer.node_id, peer.cluster_address, peer.api_address, state, peer.voter, eligible, behind, contact]
