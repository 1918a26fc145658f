"""`holdfast operator raft recover`: after a majority is lost for good. The work is that of `holdfastd recover`."""

from __future__ import annotations

import os

import click

from holdfast.client.cli.app import SETTINGS, App, Group, pass_app
from holdfast.client.cli.output import Format
from holdfast.client.cli.server import installed, run_node
from holdfast.client.failures import LocalError

_FOLDERS = click.option(
    "--data-dir", "data_dirs", multiple=True, metavar="DIR", help="A stopped node's data folder. May be repeated."
)
_REPORTS = click.argument("reports", nargs=-1, metavar="[REPORT]...")


@click.group(cls=Group, context_settings=SETTINGS)
def recover() -> None:
    """Go on after a majority of the nodes is lost for good. Runs on the nodes' machines, while the nodes are stopped.

    Everything acknowledged that the survivors have is kept. What only the lost nodes had is lost. If the lost nodes can
    come back, bring them back instead.

    \b
    Example:
      holdfast operator raft recover inspect -data-dir=/var/lib/holdfast -out=node-4.json
      holdfast operator raft recover plan node-4.json node-5.json
      holdfast operator raft recover apply -data-dir=/var/lib/holdfast node-5.json
    """


@recover.command(context_settings=SETTINGS)
@click.option("--data-dir", required=True, metavar="DIR", help="The stopped node's data folder.")
@click.option("--out", default="", metavar="FILE", help="Write the report here.")
@pass_app
def inspect(app: App, data_dir: str, out: str) -> None:
    """Read a stopped node's folder, and write a report to compare with those of other machines.

    \b
    Example:
      holdfast operator raft recover inspect -data-dir=/var/lib/holdfast -out=node-4.json
    """
    _hand_over(app, ["inspect", "--data-dir", data_dir, *(["--out", out] if out else [])])


@recover.command(context_settings=SETTINGS)
@_FOLDERS
@_REPORTS
@pass_app
def plan(app: App, data_dirs: tuple[str, ...], reports: tuple[str, ...]) -> None:
    """Compare all survivors: who has what, who is the best, what is lost. Changes nothing.

    \b
    Examples:
      holdfast operator raft recover plan node-4.json node-5.json
      holdfast operator raft recover plan -data-dir=./node-4/data -data-dir=./node-5/data
    """
    _hand_over(app, ["plan", *_survivors(data_dirs, reports)])


@recover.command(context_settings=SETTINGS)
@_FOLDERS
@_REPORTS
@click.option("--confirm", default="", metavar="CLUSTER", help="The cluster's name, where nobody can be asked for it.")
@click.option("--cluster-address", default="", metavar="ADDRESS", help="The node's new cluster address, if it moved.")
@click.option("--api-address", default="", metavar="ADDRESS", help="The node's new API address, if it moved.")
@pass_app
def apply(
    app: App,
    data_dirs: tuple[str, ...],
    reports: tuple[str, ...],
    confirm: str,
    cluster_address: str,
    api_address: str,
) -> None:
    """Make the survivor with the best log the only member of the cluster. Asks for the cluster's name first.

    Its data folder must be one of those named; the other survivors can be folders or reports.

    \b
    Examples:
      holdfast operator raft recover apply -data-dir=/var/lib/holdfast node-5.json
      holdfast operator raft recover apply -data-dir=./node-4/data -data-dir=./node-5/data -confirm=production
    """
    given = (("--confirm", confirm), ("--cluster-address", cluster_address), ("--api-address", api_address))
    options = [part for name, value in given if value for part in (name, value)]
    _hand_over(app, ["apply", *options, *_survivors(data_dirs, reports)])


def _survivors(data_dirs: tuple[str, ...], reports: tuple[str, ...]) -> list[str]:
    return [*(part for data_dir in data_dirs for part in ("--data-dir", data_dir)), "--", *reports]


def _hand_over(app: App, arguments: list[str]) -> None:
    if app.format is Format.YAML:
        raise LocalError("recover answers as a table or as JSON.", field="-format")
    command = ["recover", arguments[0], "--format", str(app.format), *arguments[1:]]
    run_node(command, installed=installed, execute=os.execv)
