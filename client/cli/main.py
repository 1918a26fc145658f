"""The `holdfast` command: its parts, and what becomes of errors. Exit codes: 0 done, 1 local error, 2 remote error."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

import holdfast
from holdfast.client.cli.app import SETTINGS, App, Command, Group
from holdfast.client.cli.argv import Vocabulary, normalize
from holdfast.client.cli.audit import audit
from holdfast.client.cli.completion import PROGRAM, VARIABLE, completion
from holdfast.client.cli.errors import EXIT_INTERRUPTED, EXIT_LOCAL, exit_code, tell, tell_usage
from holdfast.client.cli.kv import kv
from holdfast.client.cli.logical import delete, list_, read, write
from holdfast.client.cli.login import login
from holdfast.client.cli.operator import operator
from holdfast.client.cli.output import Format
from holdfast.client.cli.policy import policy
from holdfast.client.cli.secrets import secrets
from holdfast.client.cli.server import server
from holdfast.client.cli.status import status
from holdfast.client.cli.token import token
from holdfast.proto.errors import HoldfastError


@click.group(cls=Group, name=PROGRAM, context_settings=SETTINGS)
@click.version_option(holdfast.__version__, message="Holdfast v%(version)s")
def cli() -> None:
    """Holdfast keeps secrets in a cluster.

    Settings come from HOLDFAST_ADDR, HOLDFAST_TOKEN, HOLDFAST_CACERT and others, each falling back to its VAULT_ twin.

    \b
    Examples:
      holdfast status
      holdfast kv put secret/myapp/db username=admin password=-
      holdfast kv get secret/myapp/db
    """


@click.command(cls=Command, context_settings=SETTINGS)
def version() -> None:
    """Show this command's version.

    \b
    Example:
      holdfast version
    """
    click.echo(f"Holdfast v{holdfast.__version__}")


for _command in (
    status,
    login,
    kv,
    read,
    write,
    list_,
    delete,
    operator,
    audit,
    policy,
    secrets,
    token,
    server,
    completion,
    version,
):
    cli.add_command(_command)


def run(arguments: Sequence[str], app: App) -> int:
    """Carry out one command line; its exit code. Errors are told on standard error."""
    try:
        result = cli.main(
            normalize(arguments, Vocabulary.of(cli)),
            prog_name=PROGRAM,
            complete_var=VARIABLE,
            standalone_mode=False,
            obj=app,
        )
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return EXIT_LOCAL
    except click.ClickException as error:
        click.echo(tell_usage(error, _format(app)), err=True)
        return EXIT_LOCAL
    except HoldfastError as error:
        click.echo(tell(error, _format(app)), err=True)
        return exit_code(error)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return EXIT_INTERRUPTED
    return result if isinstance(result, int) else 0


def _format(app: App) -> Format:
    try:
        return app.format
    except HoldfastError:
        return Format.TABLE


def main() -> None:
    """The entry point of the console script."""
    try:
        code = run(sys.argv[1:], App())
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does. Python would complain at exit about the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_LOCAL
    sys.exit(code)


if __name__ == "__main__":
    main()
