"""`holdfast operator raft replica`: what one node's copy of the state amounts to."""

from __future__ import annotations

from dataclasses import asdict

import click

from holdfast.client.cli.app import SETTINGS, App, Command, pass_app
from holdfast.client.cli.output import pairs
from holdfast.client.results import ReplicaState


@click.command(cls=Command, context_settings=SETTINGS)
@pass_app
def replica(app: App) -> None:
    """Show the digest of a node's state, to compare nodes with.

    Concerns the node of the first address, sealed or not, and needs no token. Two nodes that have applied up to the
    same index must show the same digests.

    \b
    Example:
      holdfast operator raft replica -address=node-1.example.org:8200
    """
    with app.client() as client:
        state = client.raft.replica_state()
    app.show({"data": {**asdict(state), "differing": list(state.differing)}}, lambda: _text(state))


def _text(state: ReplicaState) -> str:
    rows: dict[str, object] = {
        "Node": state.node_id,
        "Applied Index": state.applied_index,
        "State Digest": state.state_digest,
        "Log Digest": state.log_digest,
        "Compared Up To": state.compared_index or "not yet",
        "Read Again Up To": state.scrubbed_index or "not yet",
    }
    if state.differing:
        rows["Differs From"] = ", ".join(state.differing)
    return pairs(rows)
