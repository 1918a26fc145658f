"""`holdfast operator diagnose`: handed over to the node's own command, which knows what a node needs."""

from __future__ import annotations

import os

import click

from holdfast.client.cli.app import SETTINGS, App, Command, pass_app
from holdfast.client.cli.server import installed, run_node


@click.command(cls=Command, context_settings=SETTINGS)
@click.option("--config", type=click.Path(), metavar="FILE", required=True, help="The node's configuration, node.yaml.")
@pass_app
def diagnose(app: App, config: str) -> None:
    """Look for what stands in the way of the node on this host: before its first start, or while it runs.

    Configuration, certificates, data folder, names, ports, peers, seals, clocks and limits, each with what to do about
    it. Run it as the node's user. The exit code is 1 when something failed, else 0.

    \b
    Examples:
      holdfast operator diagnose -config=/etc/holdfast/node.yaml
      holdfast operator diagnose -config=/etc/holdfast/node.yaml -format=json
    """
    run_node(["diagnose", "--config", config, "--format", app.format.value], installed=installed, execute=os.execv)
