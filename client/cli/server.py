"""`holdfast server`: run a node from the same command, as Vault's users expect. The node itself is `holdfastd`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

from holdfast.client.cli.app import SETTINGS, Command
from holdfast.client.failures import LocalError

NODE_LIBRARIES = ("cryptography", "msgspec", "pysyncobj", "rocksdict", "structlog")
"""Some of what the extra `server` installs; a client alone has none of it."""


@click.command(cls=Command, context_settings=SETTINGS)
@click.option("--dev", is_flag=True, help="In memory, unsealed, on loopback: for trying things out, never for secrets.")
@click.option("--config", type=click.Path(), metavar="FILE", help="The node's configuration, node.yaml.")
@click.option("--port", type=click.IntRange(1, 65535), default=8200, show_default=True, help="Client port, with -dev.")
def server(dev: bool, config: str | None, port: int) -> None:  # noqa: FBT001
    """Run a node in the foreground.

    \b
    Examples:
      holdfast server -dev
      holdfast server -config=/etc/holdfast/node.yaml
    """
    if dev == bool(config):
        raise LocalError("say -dev for a node to try things out with, or -config=FILE for a real one.")
    arguments = ["dev", "--port", str(port)] if dev else ["--config", str(config)]
    run_node(arguments, installed=installed, execute=os.execv)


def run_node(
    arguments: list[str], *, installed: Callable[[str], bool], execute: Callable[[str, list[str]], NoReturn]
) -> NoReturn:
    """Replace this process by `holdfastd`. Raises LocalError when the node's parts are not installed."""
    command = Path(sys.executable).with_name("holdfastd")
    found = str(command) if command.is_file() else shutil.which("holdfastd")
    if found is None or not all(installed(library) for library in NODE_LIBRARIES):
        raise LocalError("only the client is installed here. Install the node with: pip install 'holdfast[server]'")
    execute(found, [found, *arguments])


def installed(library: str) -> bool:
    """Whether a library is there."""
    return importlib.util.find_spec(library) is not None
