"""`holdfast read|write|list|delete`: any engine by path."""

from __future__ import annotations

from typing import Any

import click

from holdfast.client.cli.app import SETTINGS, App, Command, field_option, pass_app
from holdfast.client.cli.output import pairs, table
from holdfast.client.failures import LocalError
from holdfast.client.results import LogicalResponse
from holdfast.proto.errors import NotFound

_path = click.argument("path")
_data = click.argument("data", nargs=-1)


@click.command(cls=Command, context_settings=SETTINGS)
@_path
@_data
@field_option
@pass_app
def read(app: App, path: str, data: tuple[str, ...], field: str) -> None:
    """Read any path.

    \b
    Examples:
      holdfast read auth/token/lookup-self
      holdfast read -format=json secret/data/myapp/db
    """
    given = app.data(data).members
    with app.client() as client:
        answer = client.logical.read(path, given)
    if answer.data is None:
        raise NotFound("there is nothing at this path.")
    _show(app, answer, field)


@click.command(cls=Command, context_settings=SETTINGS)
@_path
@_data
@click.option("-f", "--force", is_flag=True, help="Write without data.")
@field_option
@pass_app
def write(app: App, path: str, data: tuple[str, ...], force: bool, field: str) -> None:  # noqa: FBT001
    """Write to any path; data as in `holdfast kv put`.

    \b
    Examples:
      holdfast write secret/data/myapp/db @request.json
      holdfast write -force sys/step-down
    """
    if not data and not force:
        raise LocalError("no data was given. Write key=value, or add -force to write without any.", field="data")
    given = app.data(data).members
    with app.client() as client:
        answer = client.logical.write(path, given)
    _show(app, answer, field, done="Written.")


@click.command("list", cls=Command, context_settings=SETTINGS)
@_path
@pass_app
def list_(app: App, path: str) -> None:
    """List the names below any path.

    \b
    Example:
      holdfast list secret/metadata/myapp
    """
    with app.client() as client:
        answer = client.logical.list(path)
    keys = (answer.data or {}).get("keys")
    if not isinstance(keys, list) or not keys:
        raise NotFound("there are no names below this path.")
    names = sorted(str(key) for key in keys)
    _warn(app, answer)
    app.show(names, lambda: table(["Keys"], [[name] for name in names]))


@click.command(cls=Command, context_settings=SETTINGS)
@_path
@_data
@field_option
@pass_app
def delete(app: App, path: str, data: tuple[str, ...], field: str) -> None:
    """Delete any path.

    \b
    Example:
      holdfast delete secret/data/myapp/db
    """
    given = app.data(data).members
    with app.client() as client:
        answer = client.logical.delete(path, given)
    _show(app, answer, field, done="Deleted.")


def _show(app: App, answer: LogicalResponse, field: str, *, done: str = "") -> None:
    _warn(app, answer)
    if field:
        app.show_field(answer.data or {}, field)
        return
    value: dict[str, Any] = {
        "request_id": answer.request_id,
        "data": answer.data,
        "warnings": list(answer.warnings) or None,
    }
    app.show(value, lambda: pairs(answer.data) if answer.data else done or "No data.")


def _warn(app: App, answer: LogicalResponse) -> None:
    for warning in answer.warnings:
        app.warn(warning)
