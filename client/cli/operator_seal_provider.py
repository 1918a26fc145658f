"""`holdfast operator seal-provider`: the unseal providers of the cluster."""

from __future__ import annotations

from typing import Any

import click

from holdfast.client.cli.app import SETTINGS, App, Group, pass_app, yes_option
from holdfast.client.cli.errors import EXIT_REMOTE
from holdfast.client.cli.output import pairs, table, timestamp
from holdfast.client.failures import LocalError
from holdfast.client.seal_provider_results import HEALTHY, SealProvider, SealProviderHealth, SealProviderList

_FOR_DEVELOPMENT = "The key of a provider of type age lies beside the node: it is for development only."


@click.group("seal-provider", cls=Group, context_settings=SETTINGS)
def seal_provider() -> None:
    """Show and change the unseal providers.

    A provider holds a key under which the root key is wrapped once more, so that a node with
    `seal.on_quorum_return: auto` is unsealed without people. The key shares unseal always, with or without providers.

    \b
    Example:
      holdfast operator seal-provider list
    """


@seal_provider.command(context_settings=SETTINGS)
@click.option("--type", "kind", required=True, metavar="TYPE", help="transit, awskms, pkcs11, or age (development).")
@click.option("--name", required=True, metavar="NAME", help="As in seal.providers of every node.yaml.")
@click.option("--priority", type=click.IntRange(1, 1000), default=100, show_default=True, help="The lowest is first.")
@click.argument("parameters", nargs=-1, metavar="[KEY=VALUE]...")
@pass_app
def add(app: App, kind: str, name: str, priority: int, parameters: tuple[str, ...]) -> None:
    """Add a provider. The leader has it wrap the root key and unwrap it again first.

    Credentials are no parameters: each node has its own, in seal.providers of its node.yaml.

    \b
    transit  address=https://HOST:8200 key=NAME [mount=transit] [namespace=NS]
    awskms   key_id=ID [region=REGION] [endpoint=URL]
    pkcs11   token=LABEL key=LABEL
    age      [recipient=age1...]           for development only

    \b
    Examples:
      holdfast operator seal-provider add -type=awskms -name=kms -priority=1 key_id=alias/holdfast region=eu-central-1
      holdfast operator seal-provider add -type=pkcs11 -name=hsm -priority=2 token=holdfast key=seal
    """
    given = _parameters(parameters)
    with app.client() as client:
        provider = client.seal_providers.add(name, type=kind, priority=priority, parameters=given)
    if provider.development:
        app.warn(_FOR_DEVELOPMENT)
    app.show(_facts(provider), lambda: f"{provider.name} was added; every node checks it from now on.")


@seal_provider.command(context_settings=SETTINGS)
@click.argument("name")
@yes_option
@pass_app
def remove(app: App, name: str, yes: bool) -> None:  # noqa: FBT001
    """Remove a provider. Its key will unseal no node any more; the key shares always do.

    \b
    Example:
      holdfast operator seal-provider remove kms
    """
    app.confirm(f"Nodes will not be unsealed by {name} any more.", yes=yes)
    with app.client() as client:
        client.seal_providers.remove(name)
    app.say(f"{name} was removed.")


@seal_provider.command("list", context_settings=SETTINGS)
@pass_app
def list_(app: App) -> None:
    """Show the providers, and how each node found them when it last asked.

    \b
    Examples:
      holdfast operator seal-provider list
      holdfast operator seal-provider list -format=json
    """
    with app.client() as client:
        known = client.seal_providers.list()
    app.show(_list_facts(known), lambda: _list_text(known))


@seal_provider.command(context_settings=SETTINGS)
@click.argument("name")
@pass_app
def test(app: App, name: str) -> None:
    """Have the node (-address) check a provider now. The exit code is 2 when it is not healthy.

    \b
    Example:
      holdfast operator seal-provider test kms -address=10.0.0.2:8200
    """
    with app.client() as client:
        tested = client.seal_providers.test(name)
    facts = {"node_id": tested.node_id, **health_facts(tested.provider)}
    app.show(facts, lambda: pairs({"Node": tested.node_id, **_health_row(tested.provider)}))
    if tested.provider.health != HEALTHY:
        click.get_current_context().exit(EXIT_REMOTE)


def health_facts(provider: SealProviderHealth) -> dict[str, Any]:
    """A provider's health as programs get it."""
    return {
        "name": provider.name,
        "type": provider.type,
        "priority": provider.priority,
        "health": provider.health,
        "last_check": timestamp(provider.last_check),
        "last_success": timestamp(provider.last_success),
        "duration_seconds": provider.duration.total_seconds(),
        "development": provider.development,
        "message": provider.message or None,
    }


def health_text(provider: SealProviderHealth) -> str:
    """A provider's health in a few words."""
    shown = f"{provider.name} ({provider.type}): {provider.health}"
    return f"{shown}, for development only" if provider.development else shown


def _health_row(provider: SealProviderHealth) -> dict[str, object]:
    return {
        "Provider": provider.name,
        "Type": provider.type,
        "Health": provider.health,
        "Last Check": provider.last_check,
        "Last Success": provider.last_success,
        "Reason": provider.message or "none",
    }


def _facts(provider: SealProvider) -> dict[str, Any]:
    return {
        "name": provider.name,
        "type": provider.type,
        "priority": provider.priority,
        "parameters": dict(provider.parameters),
        "enrolled_time": timestamp(provider.enrolled_time),
        "enrolled_by": provider.enrolled_by,
        "development": provider.development,
    }


def _list_facts(known: SealProviderList) -> dict[str, Any]:
    members = [
        {
            "node_id": member.node_id,
            "error": member.error or None,
            "providers": [health_facts(provider) for provider in member.providers],
        }
        for member in known.members
    ]
    return {"data": {"providers": [_facts(provider) for provider in known.providers], "members": members}}


def _list_text(known: SealProviderList) -> str:
    if not known.providers:
        return "There are no unseal providers; the key shares unseal the nodes."
    headings = ("Name", "Type", "Priority", "Node", "Health", "Last Check", "Last Success", "Reason")
    rows: list[tuple[object, ...]] = []
    for provider in known.providers:
        shown: tuple[object, ...] = (provider.name, provider.type, provider.priority)
        for member in known.members:
            found = next((each for each in member.providers if each.name == provider.name), None)
            if found is None:
                rows.append((*shown, member.node_id, "unknown", None, None, member.error or "not yet seen by it"))
            else:
                rows.append((*shown, member.node_id, found.health, found.last_check, found.last_success, found.message))
    text = table(headings, rows)
    return f"{text}\n\n{_FOR_DEVELOPMENT}" if any(provider.development for provider in known.providers) else text


def _parameters(arguments: tuple[str, ...]) -> dict[str, str]:
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise LocalError("a parameter is written key=value.", field="parameters")
        if key in given:
            raise LocalError(f"{key} is given twice.", field="parameters")
        given[key] = value
    return given
