"""`holdfast secrets`: the secret engines and where they are mounted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from holdfast.client.cli.app import SETTINGS, App, Command, Group, pass_app, yes_option
from holdfast.client.cli.output import table
from holdfast.client.failures import LocalError


@click.group("secrets", cls=Group, context_settings=SETTINGS)
def secrets() -> None:
    """Enable, list, move and disable secret engines.

    \b
    Examples:
      holdfast secrets list
      holdfast secrets enable -path=team kv
      holdfast secrets disable team
    """


@secrets.command("list", cls=Command, context_settings=SETTINGS)
@pass_app
def list_(app: App) -> None:
    """List the secret engines.

    \b
    Examples:
      holdfast secrets list
      holdfast secrets list -format=json
    """
    with app.client() as client:
        mounts: Mapping[str, Any] = client.logical.read("sys/mounts").data or {}
    rows = [[path, mount["type"], mount["uuid"], mount["description"]] for path, mount in sorted(mounts.items())]
    app.show(mounts, lambda: table(["Path", "Type", "UUID", "Description"], rows))


@secrets.command(cls=Command, context_settings=SETTINGS)
@click.argument("type_", metavar="TYPE")
@click.option("--path", default="", metavar="PATH", help="Where to mount it.  [default: the type]")
@click.option("--description", default="", metavar="TEXT", help="For people.")
@click.option("--options", multiple=True, metavar="NAME=VALUE", help="An option of the engine; may be repeated.")
@click.option("--version", default="", metavar="NUMBER", help="Vault's short form of -options=version=NUMBER.")
@pass_app
def enable(app: App, type_: str, path: str, description: str, options: tuple[str, ...], version: str) -> None:
    """Enable a secret engine.

    \b
    Examples:
      holdfast secrets enable kv
      holdfast secrets enable -path=team/web -description="the web team" kv
    """
    given = _options(options) | ({"version": version} if version else {})
    if type_ == "kv-v2":  # Vault's name
        type_, given = "kv", given | {"version": "2"}
    path = path.strip("/") or type_
    with app.client() as client:
        client.logical.write(
            f"sys/mounts/{path}", {"type": type_, "description": description} | ({"options": given} if given else {})
        )
    app.say(f"The engine {type_} is enabled at {path}/.")


@secrets.command(cls=Command, context_settings=SETTINGS)
@click.argument("path")
@click.option("--description", default=None, metavar="TEXT", help="For people.")
@click.option("--options", multiple=True, metavar="NAME=VALUE", help="An option of the engine; may be repeated.")
@pass_app
def tune(app: App, path: str, description: str | None, options: tuple[str, ...]) -> None:
    """Change the description or the options of a mount.

    \b
    Example:
      holdfast secrets tune -description="the web team" team/web
    """
    asked: dict[str, Any] = {} if description is None else {"description": description}
    if options:
        asked["options"] = _options(options)
    if not asked:
        raise LocalError("say what to change: -description or -options.", field="-description")
    with app.client() as client:
        client.logical.write(f"sys/mounts/{path.strip('/')}/tune", asked)
    app.say("Changed.")


@secrets.command(cls=Command, context_settings=SETTINGS)
@click.argument("source")
@click.argument("destination")
@pass_app
def move(app: App, source: str, destination: str) -> None:
    """Move a mount to another path. What it keeps stays; policies that name the old path do not follow.

    \b
    Example:
      holdfast secrets move team/web team/shop
    """
    with app.client() as client:
        client.logical.write("sys/remount", {"from": source, "to": destination})
    app.say(f"Moved to {destination.strip('/')}/.")


@secrets.command(cls=Command, context_settings=SETTINGS)
@click.argument("path")
@yes_option
@pass_app
def disable(app: App, path: str, yes: bool) -> None:  # noqa: FBT001
    """Disable a secret engine and destroy everything that it keeps.

    \b
    Example:
      holdfast secrets disable team/web
    """
    app.confirm(f"Everything below {path.strip('/')}/ will be destroyed for good.", yes=yes)
    with app.client() as client:
        client.logical.delete(f"sys/mounts/{path.strip('/')}")
    app.say("Disabled.")


def _options(pairs: tuple[str, ...]) -> dict[str, str]:
    options = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark:
            raise LocalError("write options as name=value.", field="-options")
        options[name] = value
    return options
