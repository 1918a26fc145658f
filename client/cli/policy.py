"""`holdfast policy`: who may do what, and why somebody may not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from holdfast.client.cli.app import SETTINGS, App, Command, Group, pass_app, yes_option
from holdfast.client.cli.data import FILE_BYTES_MAX, decode_text
from holdfast.client.cli.output import table
from holdfast.client.failures import LocalError


@click.group("policy", cls=Group, context_settings=SETTINGS)
def policy() -> None:
    """Read and write policies, and ask why a request was refused.

    \b
    Examples:
      holdfast policy write web-app web-app.hcl
      holdfast policy list
      holdfast policy why-denied -accessor=ACCESSOR -operation=update secret/data/myapp/db
    """


@policy.command("list", cls=Command, context_settings=SETTINGS)
@pass_app
def list_(app: App) -> None:
    """List the policies.

    \b
    Example:
      holdfast policy list
    """
    with app.client() as client:
        names = (client.logical.list("sys/policies/acl").data or {})["keys"]
    app.show(names, lambda: "\n".join(names))


@policy.command(cls=Command, context_settings=SETTINGS)
@click.argument("name")
@pass_app
def read(app: App, name: str) -> None:
    """Show the text of a policy.

    \b
    Example:
      holdfast policy read default
    """
    with app.client() as client:
        found = client.logical.read(f"sys/policies/acl/{name.lower()}").data or {}
    app.show(found, lambda: str(found["policy"]).rstrip("\n"))


@policy.command(cls=Command, context_settings=SETTINGS)
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@pass_app
def write(app: App, name: str, file: str) -> None:
    """Write a policy from a file, HCL or JSON; `-` reads it from standard input.

    \b
    Examples:
      holdfast policy write web-app web-app.hcl
      echo 'path "secret/data/web/*" { capabilities = ["read"] }' | holdfast policy write web -
    """
    try:
        with click.open_file(file, "rb") as opened:
            content = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise LocalError(f"{file} cannot be read: {error.strerror}.", field="file") from None
    text = decode_text(content, "standard input" if file == "-" else str(Path(file)))
    with app.client() as client:
        client.logical.write(f"sys/policies/acl/{name.lower()}", {"policy": text})
    app.say(f"The policy {name.lower()} is written, and counts from now on.")


@policy.command(cls=Command, context_settings=SETTINGS)
@click.argument("name")
@yes_option
@pass_app
def delete(app: App, name: str, yes: bool) -> None:  # noqa: FBT001
    """Delete a policy. Tokens that have it lose what it gave, at once.

    \b
    Example:
      holdfast policy delete web-app
    """
    app.confirm(f"Tokens with the policy {name} lose at once what it gives.", yes=yes)
    with app.client() as client:
        client.logical.delete(f"sys/policies/acl/{name.lower()}")
    app.say("Deleted.")


@policy.command("why-denied", cls=Command, context_settings=SETTINGS)
@click.argument("path")
@click.option("--operation", default="read", help="create, read, update, patch, delete or list.  [default: read]")
@click.option("--accessor", default="", metavar="ACCESSOR", help="Names the token that was refused.")
@click.option("--policies", default="", metavar="NAME,...", help="Ask about these policies instead of a token's.")
@click.option("--parameters", default="", metavar="NAME=VALUE,...", help="Parameters that the request has.")
@click.option("--wrap-ttl", default="", metavar="DURATION", help="The wrapping TTL that the request asks for.")
@pass_app
def why_denied(
    app: App, path: str, operation: str, accessor: str, policies: str, parameters: str, wrap_ttl: str
) -> None:
    """Show which rules decide on a request, and what is missing. Needs "sudo" on sys/why-denied.

    The holder of a token finds its accessor by `holdfast read -field=accessor auth/token/lookup-self`.

    \b
    Examples:
      holdfast policy why-denied -accessor=ACCESSOR -operation=update secret/data/myapp/db
      holdfast policy why-denied -policies=web-app,default secret/data/myapp/db
    """
    if not accessor and not policies:
        raise LocalError("say who was refused: -accessor=ACCESSOR, or -policies=NAME,...", field="-accessor")
    asked: dict[str, Any] = {"path": path, "operation": operation, "accessor": accessor, "policies": policies}
    if parameters:
        asked["parameters"] = dict(part.partition("=")[::2] for part in parameters.split(","))
    if wrap_ttl:
        asked["wrap_ttl"] = wrap_ttl
    with app.client() as client:
        told = client.logical.write("sys/why-denied", asked).data or {}
    app.show(told, lambda: _told(told))


def _told(told: Mapping[str, Any]) -> str:
    lines = [
        f"{told['operation']} {told['path']}: {'allowed' if told['allowed'] else 'DENIED'}",
        f"Policies:  {', '.join(told['policies'])}",
        f"Because:   {told['detail']}",
    ]
    rules = [rule for rule in (told.get("deciding_rule"), *(told.get("other_rules") or [])) if rule]
    if rules:
        rows = [
            [
                "decides" if number == 0 else "less specific",
                rule["path"],
                ",".join(rule["capabilities"]),
                " ".join(f"{source['policy']}:{source['line']}" for source in rule["from"]),
            ]
            for number, rule in enumerate(rules)
        ]
        lines += ["", table(["Rule", "Path", "Capabilities", "Policy:Line"], rows)]
    return "\n".join(lines)
