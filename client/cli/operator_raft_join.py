"""`holdfast operator raft join -join-token=...`: make this machine a node. The work is that of `holdfastd join`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import click

from holdfast.client.cli.app import App
from holdfast.client.cli.output import Format
from holdfast.client.cli.server import installed, run_node
from holdfast.client.failures import LocalError

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    ("--join-token", "TOKEN", "On the new machine: the join token; @FILE, or - for standard input."),
    ("--config-dir", "DIR", "Where node.yaml and the certificates are written.  [default: /etc/holdfast]"),
    ("--data-dir", "DIR", "Where the node will keep its data.  [default: /var/lib/holdfast]"),
    ("--bind", "HOST", "The host to listen on.  [default: as dialled]"),
    ("--metrics-bind", "ADDRESS", "The port of metrics and health."),
)


def joining_options(command: F) -> F:
    """The options that go with a join token."""
    for name, metavar, text in reversed(_OPTIONS):
        command = click.option(name, default="", metavar=metavar, help=text)(command)
    return command


def become_node(app: App, node_id: str, cluster_address: str, api_address: str, options: Mapping[str, str]) -> NoReturn:
    """Hand over to `holdfastd join`."""
    if app.format is Format.YAML:
        raise LocalError("join answers as a table or as JSON with -join-token.", field="-format")
    if not options["join_token"].startswith(("-", "@")):
        app.warn("the join token is on the command line, where others can see it. Use -join-token=@FILE or =-.")
    arguments = ["join", "--node-id", node_id, "--cluster-address", cluster_address, "--api-address", api_address]
    for name, value in options.items():
        if value:
            arguments += [f"--{name.replace('_', '-')}={value}"]
    run_node([*arguments, "--format", str(app.format)], installed=installed, execute=os.execv)
