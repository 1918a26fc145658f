"""`holdfast operator`: the keys of a cluster, the seal of a node, and the members."""

from __future__ import annotations

import sys
from typing import Any

import click

from holdfast.client.cli.app import SETTINGS, App, Group, hidden, pass_app, yes_option
from holdfast.client.cli.errors import EXIT_REMOTE
from holdfast.client.cli.operator_diagnose import diagnose
from holdfast.client.cli.operator_keys import COMMANDS as KEY_COMMANDS
from holdfast.client.cli.operator_pki import pki
from holdfast.client.cli.operator_raft import raft
from holdfast.client.cli.operator_seal_provider import seal_provider
from holdfast.client.cli.output import table
from holdfast.client.cli.status import status_facts, status_text
from holdfast.client.failures import LocalError
from holdfast.client.results import ClusterUnseal


@click.group("operator", cls=Group, context_settings=SETTINGS)
def operator() -> None:
    """Initialise, unseal and seal nodes, and manage the cluster.

    \b
    Examples:
      holdfast operator init
      holdfast operator unseal
      holdfast operator raft list-peers
    """


operator.add_command(raft)
operator.add_command(diagnose)
operator.add_command(seal_provider)
for _command in KEY_COMMANDS:
    operator.add_command(_command)
operator.add_command(pki)


@operator.command(context_settings=SETTINGS)
@click.option("-n", "--key-shares", type=click.IntRange(1, 255), default=5, show_default=True, help="Shares to make.")
@click.option("-t", "--key-threshold", type=click.IntRange(1, 255), help="Shares that unseal a node.  [default: 3]")
@pass_app
def init(app: App, key_shares: int, key_threshold: int | None) -> None:
    """Make the cluster's keys, once in its life. Prints the only copy of the shares and of the root token.

    \b
    Examples:
      holdfast operator init
      holdfast operator init -key-shares=1 -key-threshold=1
    """
    threshold = min(3, key_shares) if key_threshold is None else key_threshold
    if threshold > key_shares or (threshold == 1 and key_shares > 1):
        raise LocalError("the threshold must be from 2 to the number of shares, or 1 with one share.", field="-t")
    with app.client() as client:
        made = client.sys.init(shares=key_shares, threshold=threshold)
    value = {
        "unseal_keys": list(made.shares),
        "unseal_shares": len(made.shares),
        "unseal_threshold": threshold,
        "root_token": made.root_token,
    }
    lines = [f"Unseal Key {number}: {share}" for number, share in enumerate(made.shares, 1)]
    lines += ["", f"Initial Root Token: {made.root_token}", ""]
    lines.append(
        f"Nobody has another copy. Give each of the {len(made.shares)} keys to a different keeper and keep the token "
        f"safe.\nAny {threshold} of the keys unseal a node (holdfast operator unseal), each time it was sealed or "
        "restarted;\nwithout them the data cannot be read again."
    )
    app.show(value, lambda: "\n".join(lines))


@operator.command(context_settings=SETTINGS)
@click.argument("share", required=False)
@click.option("--reset", is_flag=True, help="Forget the keys given so far.")
@click.option("--cluster", is_flag=True, help="Unseal every node with this one ceremony.")
@pass_app
def unseal(app: App, share: str | None, reset: bool, cluster: bool) -> None:  # noqa: FBT001
    """Give the node one unseal key: asked for unseen, or - for standard input.

    With -cluster the key is given for all nodes: once enough keys are, this node is unsealed and unseals every other
    one that it reaches. Give every key of the ceremony that way, to one node; it may be one that is unsealed already.
    The exit code is 2 when a node stayed sealed.

    \b
    Examples:
      holdfast operator unseal
      holdfast operator unseal - < key-1
      holdfast operator unseal -cluster
      holdfast operator unseal -reset
    """
    if reset and share is not None:
        raise LocalError("give a key or -reset, not both.", field="-reset")
    if reset and cluster:
        raise LocalError("give -cluster or -reset, not both.", field="-reset")
    if not reset:
        share = _share(app, share)
    if cluster:
        _unseal_cluster(app, share or "")
        return
    with app.client() as client:
        status = client.sys.unseal(share or "", reset=reset)
    app.show(status_facts(status), lambda: status_text(status))


def _unseal_cluster(app: App, share: str) -> None:
    with app.client() as client:
        ceremony = client.sys.unseal_cluster(share)
    app.show(_ceremony_facts(ceremony), lambda: _ceremony_text(ceremony))
    if not all(member.unsealed for member in ceremony.members):
        click.get_current_context().exit(EXIT_REMOTE)


def _ceremony_facts(ceremony: ClusterUnseal) -> dict[str, Any]:
    members = [
        {"node_id": m.node_id, "unsealed": m.unsealed, "already": m.already, "reason": m.reason or None}
        for m in ceremony.members
    ]
    return {**status_facts(ceremony.status), "cluster_done": ceremony.done, "members": members}


def _ceremony_text(ceremony: ClusterUnseal) -> str:
    status = status_text(ceremony.status)
    if not ceremony.done:
        if ceremony.status.nonce:
            return f"{status}\n\nMore keys are needed to unseal the cluster."
        return f"{status}\n\nOnly this node was unsealed: a key of this ceremony was given without -cluster."
    outcomes = {True: "unsealed", False: "still sealed"}
    rows = [
        (m.node_id, "was unsealed already" if m.already else outcomes[m.unsealed], m.reason) for m in ceremony.members
    ]
    return f"{status}\n\n{table(('Node', 'Outcome', 'Reason'), rows)}"


def _share(app: App, given: str | None) -> str:
    if given is None:
        return hidden("Unseal Key (will be hidden): ")
    if given == "-":
        return sys.stdin.readline().strip()
    app.warn("an unseal key is on the command line, where others can see it. Leave it out to be asked for it.")
    return given


@operator.command(context_settings=SETTINGS)
@yes_option
@pass_app
def seal(app: App, yes: bool) -> None:  # noqa: FBT001
    """Make the node drop its keys. It serves nothing until it is unsealed, and goes on replicating.

    \b
    Example:
      holdfast operator seal
    """
    app.confirm("The node will serve nothing until enough key keepers unseal it.", yes=yes)
    with app.client() as client:
        client.sys.seal()
    app.say("The node is sealed.")


@operator.command("step-down", context_settings=SETTINGS)
@pass_app
def step_down(app: App) -> None:
    """Make the leader hand over to another node.

    \b
    Example:
      holdfast operator step-down
    """
    with app.client() as client:
        successor = client.sys.step_down()
    value: dict[str, Any] = {"new_leader_id": successor or None}
    text = f"{successor} leads now." if successor else "The leader stepped down; another node is being elected."
    app.show(value, lambda: text)
