"""`holdfastd diagnose`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--config", "-config", type=click.Path(dir_okay=False, path_type=Path), required=True, metavar="FILE",
    help="The node's configuration, node.yaml.",
)  # fmt: skip
@click.option("--format", "-format", "form", type=click.Choice(["table", "json", "yaml"]), default="table",
              show_default=True, help="How to answer.")  # fmt: skip
@click.pass_context
def diagnose(context: click.Context, config: Path, form: str) -> None:
    """Look for what stands in the way of a node: before its first start, or while it runs.

    Run it on the node's host as the node's user. It changes nothing. The exit code is 1 when something failed, else 0.

    \b
    Example:
      holdfastd diagnose --config /etc/holdfast/node.yaml
    """
    import os
    import time

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read by gRPC's C core when it is imported
    from holdfast.server.diagnose.registry import diagnose as look
    from holdfast.server.diagnose.report import exit_code, render

    findings = look(config, now_s=time.time)  # noqa: TID251 - the command is where time comes in
    click.echo(render(findings, form))
    context.exit(exit_code(findings))
