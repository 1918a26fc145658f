"""`holdfast operator raft join-token`: one-time tokens that let new machines in, and what came in by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from holdfast.client.cli.app import SETTINGS, App, Group, pass_app, yes_option
from holdfast.client.cli.output import table

_TOKENS, _NODES = "sys/join-token", "sys/join-node"


@click.group("join-token", cls=Group, context_settings=SETTINGS)
def join_token() -> None:
    """Make and revoke join tokens. Whoever holds one can make one machine a node, until it is used or has expired.

    \b
    Examples:
      holdfast operator raft join-token create -ttl=30m -node-id=node-4
      holdfast operator raft join-token list
    """


@join_token.command(context_settings=SETTINGS)
@click.option("--ttl", default="1h", show_default=True, metavar="DURATION", help="How long it can be used.")
@click.option("--node-id", default="", metavar="ID", help="The only node id that may use it.")
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="The only hosts that the node may be at.")
@click.option("--non-voter", is_flag=True, help="The node never votes: it replicates and serves.")
@click.option("--share-keys", is_flag=True, help="Let members hand the root key to the node.")
@pass_app
def create(
    app: App,
    ttl: str,
    node_id: str,
    hosts: tuple[str, ...],
    non_voter: bool,  # noqa: FBT001
    share_keys: bool,  # noqa: FBT001
) -> None:
    """Make a join token, and print it: it is shown this once. Hand it on like a password.

    Name the node's id and hosts where you know them: then a token that was stolen is of no use for any other.
    The cluster must be able to sign certificates: see `holdfast operator pki import-ca`.

    \b
    Examples:
      holdfast operator raft join-token create
      holdfast operator raft join-token create -ttl=30m -node-id=node-4 -host=10.0.0.4
    """
    data = {
        "ttl": ttl,
        "node_id": node_id,
        "hosts": list(hosts),
        "voter": not non_voter,
        "share_keys": share_keys,
    }
    with app.client() as client:
        made: Mapping[str, Any] = client.logical.write(_TOKENS, data).data or {}
    app.show({"data": dict(made)}, lambda: str(made["join_token"]))


@join_token.command("list", context_settings=SETTINGS)
@pass_app
def list_(app: App) -> None:
    """List join tokens: their ids, never the tokens themselves.

    \b
    Example:
      holdfast operator raft join-token list
    """
    with app.client() as client:
        names = (client.logical.list(_TOKENS).data or {}).get("keys", [])
        tokens = [client.logical.read(f"{_TOKENS}/{name}").data or {} for name in names]
    rows = [[t["id"][:16], t["node_id"] or "any", t["expire_time"], t["used_by"] or "nobody yet"] for t in tokens]
    app.show({"data": {"tokens": tokens}}, lambda: table(["Id", "Node", "Expires", "Used By"], rows))


@join_token.command(context_settings=SETTINGS)
@click.argument("token_id", metavar="ID")
@pass_app
def revoke(app: App, token_id: str) -> None:
    """Revoke a join token by its id, as `list` shows it.

    \b
    Example:
      holdfast operator raft join-token revoke 9f86d081884c7d65
    """
    with app.client() as client:
        names = (client.logical.list(_TOKENS).data or {}).get("keys", [])
        (name,) = [name for name in names if name.startswith(token_id)][:1] or [token_id]
        client.logical.delete(f"{_TOKENS}/{name}")
    app.say("The join token is of no use any more.")


@join_token.command(context_settings=SETTINGS)
@click.argument("node_id")
@click.option("--revoke", "withdraw", is_flag=True, help="Trust it no more.")
@pass_app
def trust(app: App, node_id: str, withdraw: bool) -> None:  # noqa: FBT001
    """Let members hand the root key to a node that came in by a join token.

    \b
    Example:
      holdfast operator raft join-token trust node-4
    """
    with app.client() as client:
        client.logical.write(f"{_NODES}/{node_id}", {"share_keys": not withdraw})
    app.say(f"Members {'no longer ' if withdraw else ''}hand the root key to {node_id}.")


@join_token.command(context_settings=SETTINGS)
@click.argument("node_id")
@yes_option
@pass_app
def forget(app: App, node_id: str, yes: bool) -> None:  # noqa: FBT001
    """Let a node id that a token was used for be used once more. Remove the node that has it first.

    \b
    Example:
      holdfast operator raft join-token forget node-4
    """
    app.confirm(
        f"Whoever still has the certificate and key of {node_id} can pose as the next node of this id.", yes=yes
    )
    with app.client() as client:
        client.logical.delete(f"{_NODES}/{node_id}")
    app.say(f"A join token may be used for {node_id} again.")
