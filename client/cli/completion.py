"""`holdfast completion`: the script that makes a shell complete commands and flags."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from holdfast.client.cli.app import SETTINGS, Command

PROGRAM = "holdfast"
VARIABLE = "_HOLDFAST_COMPLETE"


@click.command(cls=Command, context_settings=SETTINGS)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      source <(holdfast completion bash)
      holdfast completion fish > ~/.config/fish/completions/holdfast.fish
    """
    cls = get_completion_class(shell)
    assert cls is not None
    click.echo(cls(click.get_current_context().find_root().command, {}, PROGRAM, VARIABLE).source())
