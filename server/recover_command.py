"""`holdfastd recover`: see what stopped nodes' folders hold, and make a new cluster of the best one."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holdfast.proto.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from holdfast.cluster.raft.recovery import Plan

_FOLDERS = click.option(
    "--data-dir", "data_dirs", multiple=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="A stopped node's data folder. May be repeated.",
)  # fmt: skip
_REPORTS = click.argument("reports", nargs=-1, type=click.Path(dir_okay=False, path_type=Path), metavar="[REPORT]...")
_FORMAT = click.option(
    "--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True, help="How to answer."
)


@click.group()
def recover() -> None:
    """Go on after a majority of the nodes is lost for good. For stopped nodes only.

    Everything acknowledged that the survivors have is kept. What only the lost nodes had is lost. If the lost nodes can
    come back, bring them back instead.

    \b
    Example:
      holdfastd recover inspect --data-dir /var/lib/holdfast --out node-4.json
      holdfastd recover plan node-4.json node-5.json
      holdfastd recover apply --data-dir /var/lib/holdfast node-5.json
    """


@recover.command()
@click.option("--data-dir", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the report here.")
@_FORMAT
def inspect(data_dir: Path, out: Path | None, style: str) -> None:
    """Read a stopped node's folder, and write a report to compare with those of other machines.

    The report holds no secret and no ciphertext: positions, digests and members.

    \b
    Example:
      holdfastd recover inspect --data-dir /var/lib/holdfast --out node-4.json
    """
    from holdfast.server import recovery
    from holdfast.server.process import harden
    from holdfast.server.recovery_text import survivor_data, survivor_text

    harden()
    survivor = recovery.inspect(data_dir)
    if out is not None:
        recovery.write_report(out, survivor)
    _show(style, {**survivor_data(survivor), "report": out and str(out)}, lambda: survivor_text(survivor))


@recover.command()
@_FOLDERS
@_REPORTS
@_FORMAT
def plan(data_dirs: tuple[Path, ...], reports: tuple[Path, ...], style: str) -> None:
    """Compare all survivors: who has what, who is the best, what is lost. Changes nothing.

    \b
    Examples:
      holdfastd recover plan node-4.json node-5.json
      holdfastd recover plan --data-dir ./node-4/data --data-dir ./node-5/data
    """
    from holdfast.cluster.raft.recovery import plan as compare
    from holdfast.server import recovery
    from holdfast.server.process import harden
    from holdfast.server.recovery_text import plan_data, plan_text

    harden()
    made = compare(recovery.gather(data_dirs, reports))
    _show(style, plan_data(made), lambda: plan_text(made))


@recover.command()
@_FOLDERS
@_REPORTS
@click.option("--confirm", metavar="CLUSTER", help="The cluster's name: the confirmation, where nobody can be asked.")
@click.option("--cluster-address", default="", metavar="ADDRESS", help="The node's new cluster address, if it moved.")
@click.option("--api-address", default="", metavar="ADDRESS", help="The node's new API address, if it moved.")
@_FORMAT
def apply(
    data_dirs: tuple[Path, ...],
    reports: tuple[Path, ...],
    confirm: str | None,
    cluster_address: str,
    api_address: str,
    style: str,
) -> None:
    """Make the survivor with the best log the only member of the cluster.

    Its data folder must be one of those named; the other survivors can be folders or reports. It is refused while any
    other member answers at its address.

    \b
    Examples:
      holdfastd recover apply --data-dir /var/lib/holdfast node-5.json
      holdfastd recover apply --data-dir ./node-4/data --data-dir ./node-5/data --confirm production
    """
    from holdfast.server import recovery
    from holdfast.server.process import harden
    from holdfast.server.recovery_text import plan_text, question, recovered_data, recovered_text

    harden()
    if not data_dirs:
        raise InvalidArgument("name the data folder of the node to recover from: --data-dir DIR", field="data-dir")
    for field, address in (("cluster-address", cluster_address), ("api-address", api_address)):
        _check_address(field, address)

    def agree(plan: Plan) -> None:
        if style == "table":
            click.echo(plan_text(plan) + "\n")
        _confirm(question(plan), plan.best.cluster_name, confirm)

    done = recovery.apply(
        data_dirs,
        reports,
        cluster_address=cluster_address,
        api_address=api_address,
        confirm=agree,
        random_bytes=secrets.token_bytes,
    )
    _show(style, recovered_data(done), lambda: recovered_text(done))


def _check_address(field: str, address: str) -> None:
    from holdfast.server.config import parse_address

    if not address:
        return
    try:
        usable = not parse_address(address).unspecified
    except ValueError as error:
        raise InvalidArgument(f"{field}: {error}", field=field) from None
    if not usable:
        raise InvalidArgument(f"{field}: {address} cannot be dialled by other nodes", field=field)


def _confirm(text: str, cluster_name: str, given: str | None) -> None:
    """Raises FailedPrecondition unless the cluster's name is given."""
    if given is None and not sys.stdin.isatty():
        raise FailedPrecondition(
            f"{text} Nothing was done, because nobody can be asked here. Add --confirm {cluster_name} to go ahead"
        )
    if given is None:
        click.echo(f"{text}\nType the cluster's name ({cluster_name}) to go ahead: ", nl=False, err=True)
        given = sys.stdin.readline().strip()
    if given != cluster_name:
        raise FailedPrecondition(f"nothing was done: that is not the cluster's name, {cluster_name}")


def _show(style: str, data: dict[str, Any], text: Callable[[], str]) -> None:
    click.echo(json.dumps({"data": data}, indent=2, ensure_ascii=False) if style == "json" else text())
