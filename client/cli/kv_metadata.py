"""`holdfast kv metadata`: what is known about a secret except its data, and how it is kept."""

from __future__ import annotations

from typing import Any

import click

from holdfast.client.cli.app import SETTINGS, App, Group, field_option, mount_option, pass_app, yes_option
from holdfast.client.cli.kv_paths import mount_and_path
from holdfast.client.cli.output import pairs, section, table, timestamp
from holdfast.client.durations import format_duration, parse_duration
from holdfast.client.failures import LocalError
from holdfast.client.results import KvMetadata


@click.group(cls=Group, context_settings=SETTINGS)
def metadata() -> None:
    """Read and change a secret's metadata, or remove the secret whole.

    \b
    Example:
      holdfast kv metadata get secret/myapp/db
    """


@metadata.command(context_settings=SETTINGS)
@click.argument("path")
@mount_option
@field_option
@pass_app
def get(app: App, path: str, mount: str, field: str) -> None:
    """Show a secret's metadata and its versions.

    \b
    Example:
      holdfast kv metadata get secret/myapp/db
    """
    where, name = mount_and_path(mount, path)
    with app.client() as client:
        known = client.kv.get_metadata(name, mount=where)
    facts = _facts(known)
    if field:
        app.show_field(facts, field)
    else:
        app.show({"data": facts}, lambda: _text(facts))


@metadata.command(context_settings=SETTINGS)
@click.argument("path")
@click.option(
    "--max-versions", type=click.IntRange(0), metavar="N", help="How many versions are kept; 0: the default, 10."
)
@click.option("--cas-required/--no-cas-required", default=None, help="Refuse puts without -cas.")
@click.option(
    "--delete-version-after", metavar="DURATION", help="Delete new versions at this age, e.g. 720h; 0: never."
)
@click.option(
    "--custom-metadata", multiple=True, metavar="KEY=VALUE", help="Replaces the custom metadata; may be repeated."
)
@mount_option
@pass_app
def put(
    app: App,
    path: str,
    max_versions: int | None,
    cas_required: bool | None,  # noqa: FBT001
    delete_version_after: str | None,
    custom_metadata: tuple[str, ...],
    mount: str,
) -> None:
    """Change how a secret is kept; what is not mentioned stays as it is.

    \b
    Example:
      holdfast kv metadata put -max-versions=20 -custom-metadata=owner=payments secret/myapp/db
    """
    where, name = mount_and_path(mount, path)
    custom: dict[str, str] = {}
    for item in custom_metadata:
        key, equals, value = item.partition("=")
        if not key or not equals:
            raise LocalError("write -custom-metadata=key=value.", field="custom_metadata")
        custom[key] = value
    after = None
    if delete_version_after is not None:
        after = parse_duration(delete_version_after, field="-delete-version-after")
    with app.client() as client:
        client.kv.put_metadata(
            name,
            max_versions=max_versions,
            cas_required=cas_required,
            delete_version_after=after,
            custom_metadata=custom or None,
            mount=where,
        )
    app.say("Metadata written.")


@metadata.command(context_settings=SETTINGS)
@click.argument("path")
@mount_option
@yes_option
@pass_app
def delete(app: App, path: str, mount: str, yes: bool) -> None:  # noqa: FBT001
    """Remove a secret whole: all versions and their metadata, for good.

    \b
    Example:
      holdfast kv metadata delete secret/myapp/db
    """
    where, name = mount_and_path(mount, path)
    app.confirm("This removes the secret with all its versions for good.", yes=yes)
    with app.client() as client:
        client.kv.delete_metadata(name, mount=where)
    app.say("The secret and all its versions are gone.")


def _facts(known: KvMetadata) -> dict[str, Any]:
    return {
        "cas_required": known.cas_required,
        "created_time": timestamp(known.created_time),
        "current_version": known.current_version,
        "custom_metadata": dict(known.custom_metadata) or None,
        "delete_version_after": format_duration(known.delete_version_after),
        "max_versions": known.max_versions,
        "oldest_version": known.oldest_version,
        "updated_time": timestamp(known.updated_time),
        "versions": {
            str(version.version): {
                "created_time": timestamp(version.created_time),
                "deletion_time": timestamp(version.deletion_time),
                "destroyed": version.destroyed,
            }
            for version in known.versions
        },
    }


def _text(facts: dict[str, Any]) -> str:
    general = pairs({key: value for key, value in facts.items() if key != "versions" and value is not None})
    headings = ["Version", "Created", "Deleted", "Destroyed"]
    rows = [
        [number, facts_of["created_time"], facts_of["deletion_time"], facts_of["destroyed"]]
        for number, facts_of in facts["versions"].items()
    ]
    width = max(len(line) for line in general.splitlines())
    parts = [("Metadata", general), ("Versions", table(headings, rows))]
    return "\n\n".join(f"{section(title, width)}\n{text}" for title, text in parts)
