"""`holdfastd`, the node's command: run a node, check its configuration, make certificates, try Holdfast out.

Everything heavy is imported by the command that needs it, so that `--help`, `--version` and errors come at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

import holdfast
from holdfast.proto.errors import Fatal, HoldfastError
from holdfast.server.diagnose.command import diagnose
from holdfast.server.exits import EXIT_ERROR, EXIT_FATAL
from holdfast.server.join_command import join
from holdfast.server.recover_command import recover

if TYPE_CHECKING:
    from holdfast.server.config import NodeConfig

_FOLDER = click.Path(file_okay=False, path_type=Path)
_CONFIG = click.Path(dir_okay=False, path_type=Path)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=_CONFIG, metavar="FILE", help="The node's configuration, node.yaml.")
@click.option("--check-config", is_flag=True, help="Check the configuration and what it names, then exit.")
@click.version_option(holdfast.__version__, prog_name="holdfastd", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, config: Path | None, *, check_config: bool) -> None:
    """Run a node of a Holdfast cluster.

    \b
    Examples:
      holdfastd --config /etc/holdfast/node.yaml
      holdfastd --config /etc/holdfast/node.yaml --check-config
      holdfastd diagnose --config /etc/holdfast/node.yaml
      holdfastd dev
    """
    if context.invoked_subcommand is not None:
        if config is not None or check_config:
            raise click.UsageError(f"--config and --check-config do not go with '{context.invoked_subcommand}'.")
        return
    if config is None:
        raise click.UsageError("Name the configuration: holdfastd --config node.yaml. See holdfastd --help.")
    loaded = _load(config)
    if check_config:
        click.echo(f"{config}: good")
        return
    context.exit(_run(loaded, config))


@cli.group()
def certs() -> None:
    """Make the certificates that nodes and clients trust each other by.

    \b
    Example:
      holdfastd certs create-ca ./certs
      holdfastd certs issue ./certs node-1 --dns node-1.example.net --ip 10.0.0.1
    """


@certs.command("create-ca")
@click.argument("directory", type=_FOLDER)
@click.option("--name", default="holdfast", show_default=True, help="The cluster's name, shown in the certificate.")
def create_ca_command(directory: Path, name: str) -> None:
    """Make a cluster's certificate authority: DIRECTORY/ca.crt and DIRECTORY/ca.key.

    Keep ca.key away from the nodes: whoever has it can make itself a member.

    \b
    Example:
      holdfastd certs create-ca ./certs
    """
    from holdfast.server.certs import create_ca

    files = create_ca(directory, name)
    click.echo(f"CA certificate  {files.cert_file}\nCA key          {files.key_file}")


@certs.command("issue")
@click.argument("directory", type=_FOLDER)
@click.argument("node_id")
@click.option("--dns", multiple=True, metavar="NAME", help="A host name that clients dial. May be repeated.")
@click.option("--ip", multiple=True, metavar="ADDRESS", help="An IP address that clients dial. May be repeated.")
@click.option("--days", type=click.IntRange(1, 3650), default=None, help="Validity; 397 days unless given.")
def issue_command(directory: Path, node_id: str, dns: tuple[str, ...], ip: tuple[str, ...], days: int | None) -> None:
    """Issue a node's certificate with the CA in DIRECTORY.

    \b
    Example:
      holdfastd certs issue ./certs node-1 --dns node-1.example.net --ip 10.0.0.1
    """
    from holdfast.server.certs import NODE_DAYS, issue_node

    files = issue_node(directory, node_id, dns, ip, days or NODE_DAYS)
    names = ", ".join(dict.fromkeys([node_id, *dns, *ip]))
    click.echo(f"certificate  {files.cert_file}\nkey          {files.key_file}\nvalid for    {names}")


@certs.command("renew")
@click.argument("directory", type=_FOLDER)
@click.argument("node_id")
@click.option("--days", type=click.IntRange(1, 3650), default=None, help="Validity; 397 days unless given.")
def renew_command(directory: Path, node_id: str, days: int | None) -> None:
    """Issue NODE_ID.crt in DIRECTORY anew, for the same key and names.

    Needs ca.crt and ca.key there, not the node's key.

    Put the new file in the place of the node's, and send the node SIGHUP: it needs no restart.

    \b
    Example:
      holdfastd certs renew ./certs node-1
    """
    from holdfast.server.certs import NODE_DAYS, renew_node

    files = renew_node(directory, node_id, days or NODE_DAYS)
    click.echo(f"certificate  {files.cert_file}")


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), default=None, help="The client port; a free one unless given.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="warning", show_default=True,
    help="What is logged to stderr.",
)  # fmt: skip
def dev(port: int | None, log_level: str) -> None:
    """Run a one-node cluster to try things out: initialised, unsealed, and gone at Ctrl-C.

    Its data is in memory where the system has /dev/shm, its root token on your screen. Never keep a secret in it.

    \b
    Example:
      holdfastd dev --port 8200
    """
    _prepare_process()
    from holdfast.server.dev import run_dev
    from holdfast.server.runner import run_loop

    click.get_current_context().exit(run_loop(run_dev(port=port, log_level=log_level, echo=click.echo)))


cli.add_command(recover)
cli.add_command(join)
cli.add_command(diagnose)


def _load(path: Path) -> NodeConfig:
    from datetime import UTC, datetime

    from holdfast.server.config import load
    from holdfast.server.preflight import check

    config = load(path)
    check(config, file=path, now=datetime.now(UTC))
    return config


def _run(config: NodeConfig, file: Path) -> int:
    _prepare_process()
    from holdfast.server.logging import configure
    from holdfast.server.memory import lock_memory
    from holdfast.server.node import run
    from holdfast.server.runner import run_loop

    configure(config.log, node_id=config.node_id)
    lock_memory(config.memory_lock)
    return run_loop(run(config, config_file=file.resolve()))


def _prepare_process() -> None:
    # gRPC's C core would write lines of its own to stderr, and hook every fork; it reads these when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from holdfast.server.process import harden

    harden()


def main() -> NoReturn:
    """The entry point. Exit codes: 0 stopped as told, 1 it could not start or was called wrongly, 70 a fatal error."""
    from holdfast.server.config import ConfigError

    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.Abort:
        sys.exit(EXIT_ERROR)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_ERROR)
    except (ConfigError, HoldfastError) as error:
        click.echo(f"holdfastd: {error}", err=True)
        sys.exit(EXIT_FATAL if isinstance(error, Fatal) else EXIT_ERROR)


if __name__ == "__main__":
    main()
