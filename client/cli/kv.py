"""`holdfast kv`: versioned secrets."""

from __future__ import annotations

import re
from typing import Any

import click

from holdfast.client.cli.app import SETTINGS, App, Group, field_option, mount_option, pass_app, yes_option
from holdfast.client.cli.kv_metadata import metadata
from holdfast.client.cli.kv_paths import mount_and_path
from holdfast.client.cli.output import pairs, section, table, timestamp
from holdfast.client.failures import LocalError
from holdfast.client.results import KvSecret, KvVersion
from holdfast.proto.errors import FailedPrecondition, NotFound


@click.group(cls=Group, context_settings=SETTINGS)
def kv() -> None:
    """Put, get and manage versioned secrets.

    \b
    Examples:
      holdfast kv put secret/myapp/db username=admin password=-
      holdfast kv get -field=password secret/myapp/db
    """


kv.add_command(metadata)


class Versions(click.ParamType[list[int]]):
    """Version numbers separated by commas."""

    name = "versions"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """The numbers that `value` lists; a usage error for anything else."""
        if isinstance(value, list):
            return value
        if not re.fullmatch(r"[1-9]\d{0,18}(,[1-9]\d{0,18})*", value):
            self.fail("write version numbers separated by commas, as 1,2", param, ctx)
        return [int(number) for number in value.split(",")]


_cas = click.option("--cas", type=click.IntRange(0), metavar="N", help="Only if N is the current version; 0: if new.")
_versions = click.option("--versions", type=Versions(), metavar="N,N", help="The versions meant.")
_path = click.argument("path")


@kv.command(context_settings=SETTINGS)
@_path
@click.argument("data", nargs=-1)
@_cas
@mount_option
@field_option
@pass_app
def put(app: App, path: str, data: tuple[str, ...], cas: int | None, mount: str, field: str) -> None:
    """Write a new version of a secret.

    A value is taken literally, from a file (key=@file), or from standard input (key=-, asked for unseen on a
    terminal). @file.json or - alone is the whole secret as a JSON object. \\@ and \\- begin literal values.

    \b
    Examples:
      holdfast kv put secret/myapp/db username=admin password=-
      holdfast kv put secret/myapp/tls key=@server.key cert=@server.crt
      holdfast kv put -cas=0 secret/myapp/db @db.json
    """
    where, name = mount_and_path(mount, path)
    if not data:
        raise LocalError("no data was given. Write key=value, key=@file, key=- or @file.json.", field="data")
    members = app.data(data).members
    with app.client() as client:
        written = client.kv.put(name, members, cas=cas, mount=where)
    _show_version(app, written, field)


@kv.command(context_settings=SETTINGS)
@_path
@click.argument("data", nargs=-1)
@click.option("--remove-data", multiple=True, metavar="KEY", help="Remove this key; may be repeated.")
@_cas
@mount_option
@field_option
@pass_app
def patch(
    app: App, path: str, data: tuple[str, ...], remove_data: tuple[str, ...], cas: int | None, mount: str, field: str
) -> None:
    """Change some keys of a secret's current version and leave the others as they are.

    \b
    Examples:
      holdfast kv patch secret/myapp/db password=@new-password
      holdfast kv patch -remove-data=old_password secret/myapp/db
    """
    where, name = mount_and_path(mount, path)
    members = app.data(data).members
    if both := sorted(set(members) & set(remove_data)):
        raise LocalError(f"the key {both[0]!r} is both set and removed.", field="data")
    members.update(dict.fromkeys(remove_data))
    if not members:
        raise LocalError("no data was given. Write key=value, key=@file, key=- or @file.json.", field="data")
    with app.client() as client:
        written = client.kv.patch(name, members, cas=cas, mount=where)
    _show_version(app, written, field)


@kv.command(context_settings=SETTINGS)
@_path
@click.option("--version", type=click.IntRange(1), metavar="N", help="This version, not the current one.")
@mount_option
@field_option
@pass_app
def get(app: App, path: str, version: int | None, mount: str, field: str) -> None:
    """Read a secret.

    \b
    Examples:
      holdfast kv get secret/myapp/db
      holdfast kv get -version=2 -format=json secret/myapp/db
      PGPASSWORD=$(holdfast kv get -field=password secret/myapp/db) psql
    """
    where, name = mount_and_path(mount, path)
    with app.client() as client:
        secret = client.kv.get(name, version=version or 0, mount=where)
    if field:
        if secret.data is None:
            raise NotFound(_without_data(secret))
        app.show_field(secret.data, field)
        return
    if secret.data is None:
        app.warn(_without_data(secret))
    app.show({"data": {"data": secret.data, "metadata": secret_metadata(secret)}}, lambda: _secret_text(secret))


@kv.command("list", context_settings=SETTINGS)
@_path
@mount_option
@pass_app
def list_(app: App, path: str, mount: str) -> None:
    """List the names directly below a path; a name ending in / has names below it.

    \b
    Examples:
      holdfast kv list secret/
      holdfast kv list -format=json secret/myapp
    """
    where, name = mount_and_path(mount, path, whole_mount=True)
    with app.client() as client:
        keys = sorted(client.kv.list(name, mount=where))
    if not keys:
        raise NotFound("there are no names below this path.")
    app.show(keys, lambda: table(["Keys"], [[key] for key in keys]))


@kv.command(context_settings=SETTINGS)
@_path
@_versions
@mount_option
@pass_app
def delete(app: App, path: str, versions: list[int] | None, mount: str) -> None:
    """Delete versions, by default the current one. `kv undelete -versions=N` brings them back.

    \b
    Examples:
      holdfast kv delete secret/myapp/db
      holdfast kv delete -versions=1,2 secret/myapp/db
    """
    where, name = mount_and_path(mount, path)
    with app.client() as client:
        client.kv.delete(name, versions or [], mount=where)
    app.say(
        f"Deleted {_named(versions)}."
        if versions
        else "Deleted the current version; its number is in `kv metadata get`."
    )
    app.say("To bring back what was deleted: holdfast kv undelete -versions=N PATH.")


@kv.command(context_settings=SETTINGS)
@_path
@_versions
@mount_option
@pass_app
def undelete(app: App, path: str, versions: list[int] | None, mount: str) -> None:
    """Bring deleted versions back.

    \b
    Example:
      holdfast kv undelete -versions=3 secret/myapp/db
    """
    where, name = mount_and_path(mount, path)
    with app.client() as client:
        client.kv.undelete(name, _required(versions), mount=where)
    app.say(f"Undeleted {_named(_required(versions))}.")


@kv.command(context_settings=SETTINGS)
@_path
@_versions
@mount_option
@yes_option
@pass_app
def destroy(app: App, path: str, versions: list[int] | None, mount: str, yes: bool) -> None:  # noqa: FBT001
    """Remove the data of versions for good.

    \b
    Example:
      holdfast kv destroy -versions=1,2 secret/myapp/db
    """
    where, name = mount_and_path(mount, path)
    chosen = _required(versions)
    app.confirm(f"This removes {_named(chosen)} for good.", yes=yes)
    with app.client() as client:
        client.kv.destroy(name, chosen, mount=where)
    app.say(f"Destroyed {_named(chosen)}.")


@kv.command(context_settings=SETTINGS)
@_path
@click.option("--version", type=click.IntRange(1), metavar="N", required=True, help="The version to go back to.")
@mount_option
@field_option
@pass_app
def rollback(app: App, path: str, version: int, mount: str, field: str) -> None:
    """Write an earlier version's data again, as a new version.

    \b
    Example:
      holdfast kv rollback -version=2 secret/myapp/db
    """
    where, name = mount_and_path(mount, path)
    with app.client() as client:
        current = client.kv.get_metadata(name, mount=where).current_version
        earlier = client.kv.get(name, version=version, mount=where)
        if earlier.data is None:
            gone = "destroyed" if earlier.destroyed else "deleted"
            raise FailedPrecondition(f"version {version} is {gone}, so there is nothing to go back to.")
        written = client.kv.put(name, earlier.data, cas=current, mount=where)
    _show_version(app, written, field)


def _required(versions: list[int] | None) -> list[int]:
    if not versions:
        raise LocalError("say which versions are meant, as -versions=1,2.", field="versions")
    return versions


def _named(versions: list[int]) -> str:
    return f"version{'s' if len(versions) > 1 else ''} {', '.join(map(str, versions))}"


def secret_metadata(secret: KvSecret) -> dict[str, Any]:
    """A secret's metadata, as programs get it."""
    return {
        "created_time": timestamp(secret.created_time),
        "custom_metadata": dict(secret.custom_metadata) or None,
        "deletion_time": timestamp(secret.deletion_time),
        "destroyed": secret.destroyed,
        "version": secret.version,
    }


def _show_version(app: App, written: KvVersion, field: str) -> None:
    facts = {
        "created_time": timestamp(written.created_time),
        "deletion_time": timestamp(written.deletion_time),
        "destroyed": written.destroyed,
        "version": written.version,
    }
    if field:
        app.show_field(facts, field)
    else:
        app.show({"data": facts}, lambda: pairs(facts))


def _without_data(secret: KvSecret) -> str:
    """Why there is nothing to show of a version, and whether it can be brought back."""
    if secret.destroyed:
        return f"version {secret.version} is destroyed: its data is gone."
    return f"version {secret.version} is deleted; `holdfast kv undelete -versions={secret.version}` brings it back."


def _secret_text(secret: KvSecret) -> str:
    facts = pairs({key: value for key, value in secret_metadata(secret).items() if value is not None})
    parts = [("Metadata", facts)]
    if secret.data is not None:
        parts.append(("Data", pairs(secret.data)))
    width = max(len(line) for line in facts.splitlines())
    return "\n\n".join(f"{section(title, width)}\n{text}" for title, text in parts)
