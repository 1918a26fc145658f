"""`holdfastd join`: make this machine a node of a running cluster, with a join token and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from holdfast.proto.errors import InvalidArgument


@click.command()
@click.option("--join-token", required=True, metavar="TOKEN", help="The token; @FILE, or - for standard input.")
@click.option("--node-id", required=True, metavar="ID", help="The new node's id, one that was never used.")
@click.option("--cluster-address", required=True, metavar="ADDRESS", help="Where other nodes dial it, host:port.")
@click.option("--api-address", required=True, metavar="ADDRESS", help="Where clients dial it, host:port.")
@click.option("--bind", default="", metavar="HOST", help="The host to listen on.  [default: as dialled]")
@click.option("--metrics-bind", default="", metavar="ADDRESS", help="The port of metrics and health, host:port.")
@click.option(
    "--config-dir", type=click.Path(file_okay=False, path_type=Path), default=Path("/etc/holdfast"),
    show_default=True, metavar="DIR", help="Where node.yaml, the key and the certificates are written.",
)  # fmt: skip
@click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), default=Path("/var/lib/holdfast"),
    show_default=True, metavar="DIR", help="Where the node will keep its data.",
)  # fmt: skip
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
def join(
    join_token: str,
    node_id: str,
    cluster_address: str,
    api_address: str,
    bind: str,
    metrics_bind: str,
    config_dir: Path,
    data_dir: Path,
    style: str,
) -> None:
    """Make this machine a node of a running cluster.

    Its private key is made here and stays here. The cluster signs its certificate and takes it in; then start it.

    \b
    Example:
      holdfastd join --join-token @join.txt --node-id node-4 \\
        --cluster-address 10.0.0.4:8201 --api-address 10.0.0.4:8200
    """
    from holdfast.server import join_client
    from holdfast.server.join_token import decode

    wanted = join_client.Wanted(node_id, config_dir, data_dir, cluster_address, api_address, bind, metrics_bind)
    index = join_client.join(decode(_given(join_token)), wanted, say=lambda text: click.echo(text, err=True))
    if style == "json":
        data = {"node_id": node_id, "index": index, "config_file": str(wanted.config_file)}
        click.echo(json.dumps({"data": data}, indent=2))
        return
    click.echo(
        f"{node_id} is a member (index {index}). Start it, and unseal it once it has caught up:\n"
        f"  holdfastd --config {wanted.config_file}"
    )


def _given(text: str) -> str:
    if text == "-":
        return sys.stdin.readline()
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_text()
        except (OSError, UnicodeDecodeError):
            raise InvalidArgument(f"{text[1:]} cannot be read", field="join-token") from None
    return text
