"""`holdfast token`: who asks, and how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from holdfast.client.cli.app import SETTINGS, App, Command, Group, field_option, hidden, pass_app, yes_option
from holdfast.client.cli.output import pairs
from holdfast.client.failures import LocalError
from holdfast.client.results import LogicalResponse

_accessor = click.option("--accessor", default="", metavar="ACCESSOR", help="Name the token by its accessor.")


@click.group("token", cls=Group, context_settings=SETTINGS)
def token() -> None:
    """Make, look up, renew and revoke tokens.

    \b
    Examples:
      holdfast token create -policy=web-app -ttl=8h
      holdfast token lookup
      holdfast token revoke -accessor=ACCESSOR
    """


@token.command(cls=Command, context_settings=SETTINGS)
@click.option("--policy", "policies", multiple=True, metavar="NAME", help="A policy of the token; may be repeated.")
@click.option("--ttl", default="", metavar="DURATION", help="How long it lives.")
@click.option("--period", default="", metavar="DURATION", help="A renewal gives this much again, without a maximum.")
@click.option("--explicit-max-ttl", default="", metavar="DURATION", help="It never lives longer than this.")
@click.option("--use-limit", default=0, type=click.IntRange(0), help="How often it may be used; 0 for no limit.")
@click.option("--display-name", default="", metavar="NAME", help="For people.")
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="Shown with the token; may be repeated.")
@click.option("--role", default="", metavar="NAME", help="Make it by a token role.")
@click.option("--orphan", is_flag=True, help="It outlives the token that it is made with.")
@click.option("--no-default-policy", is_flag=True, help="Do without the policy default.")
@click.option("--renewable/--no-renewable", default=True, help="Whether it can be renewed.")
@field_option
@pass_app
def create(
    app: App, /, role: str, field: str, policies: tuple[str, ...], metadata: tuple[str, ...], **given: Any
) -> None:
    """Make a token with the one in use.

    \b
    Examples:
      holdfast token create -policy=web-app -ttl=8h
      holdfast token create -field=token -policy=ci -use-limit=3 -no-default-policy
    """
    meta = {}
    for pair in metadata:
        name, mark, value = pair.partition("=")
        if not mark:
            raise LocalError("write metadata as name=value.", field="-metadata")
        meta[name] = value
    asked: dict[str, Any] = {
        "policies": list(policies),
        "ttl": given["ttl"],
        "period": given["period"],
        "explicit_max_ttl": given["explicit_max_ttl"],
        "num_uses": given["use_limit"],
        "display_name": given["display_name"],
        "meta": meta,
        "no_default_policy": given["no_default_policy"],
        "renewable": None if given["renewable"] else False,
    }
    if role and given["orphan"]:
        asked["no_parent"] = True
    path = f"auth/token/create/{role}" if role else ("auth/token/create-orphan" if given["orphan"] else _CREATE)
    with app.client() as client:
        answer = client.logical.write(path, {name: value for name, value in asked.items() if value})
    _show_auth(app, answer, field)


_CREATE = "auth/token/create"


@token.command(cls=Command, context_settings=SETTINGS)
@_accessor
@click.option("--ask", is_flag=True, help="Ask, unseen, for the token to look up.")
@field_option
@pass_app
def lookup(app: App, accessor: str, ask: bool, field: str) -> None:  # noqa: FBT001
    """Show what is known of a token: the one in use, or another.

    \b
    Examples:
      holdfast token lookup
      holdfast token lookup -accessor=ACCESSOR
    """
    with app.client() as client:
        if accessor:
            answer = client.logical.write("auth/token/lookup-accessor", {"accessor": accessor})
        elif ask:
            answer = client.logical.write("auth/token/lookup", {"token": hidden("Token (not shown): ")})
        else:
            answer = client.logical.read("auth/token/lookup-self")
    data = answer.data or {}
    if field:
        app.show_field(data, field)
    else:
        app.show(data, lambda: pairs(data))


@token.command(cls=Command, context_settings=SETTINGS)
@_accessor
@click.option("--increment", default="", metavar="DURATION", help="How long it is to live from now on.")
@field_option
@pass_app
def renew(app: App, accessor: str, increment: str, field: str) -> None:
    """Renew the token in use, or the one that an accessor names.

    \b
    Examples:
      holdfast token renew
      holdfast token renew -accessor=ACCESSOR -increment=24h
    """
    asked = {"increment": increment} if increment else {}
    with app.client() as client:
        if accessor:
            answer = client.logical.write("auth/token/renew-accessor", asked | {"accessor": accessor})
        else:
            answer = client.logical.write("auth/token/renew-self", asked)
    _show_auth(app, answer, field)


@token.command(cls=Command, context_settings=SETTINGS)
@_accessor
@click.option("--self", "itself", is_flag=True, help="Revoke the token in use.")
@click.option("--ask", is_flag=True, help="Ask, unseen, for the token to revoke.")
@click.option(
    "--mode", type=click.Choice(["tree", "orphan"]), default="tree", help="What becomes of tokens made with it."
)
@yes_option
@pass_app
def revoke(app: App, accessor: str, itself: bool, ask: bool, mode: str, yes: bool) -> None:  # noqa: FBT001
    """Revoke a token, and with it, at once, every token that was made with it.

    \b
    Examples:
      holdfast token revoke -accessor=ACCESSOR
      holdfast token revoke -self
    """
    if (bool(accessor), itself, ask).count(True) != 1:
        raise LocalError("say which token: -accessor=ACCESSOR, -self or -ask.", field="-accessor")
    if mode == "orphan" and not ask:
        raise LocalError("-mode=orphan takes the token itself: add -ask.", field="-mode")
    app.confirm("The token and those made with it end at once.", yes=yes)
    with app.client() as client:
        if itself:
            client.logical.write("auth/token/revoke-self", {})
        elif accessor:
            client.logical.write("auth/token/revoke-accessor", {"accessor": accessor})
        else:
            path = "auth/token/revoke-orphan" if mode == "orphan" else "auth/token/revoke"
            client.logical.write(path, {"token": hidden("Token (not shown): ")})
    app.say("Revoked.")


@token.command(cls=Command, context_settings=SETTINGS)
@click.argument("path")
@_accessor
@pass_app
def capabilities(app: App, path: str, accessor: str) -> None:
    """Show what a token may do on a path.

    \b
    Example:
      holdfast token capabilities secret/data/myapp/db
    """
    with app.client() as client:
        if accessor:
            asked = {"paths": [path], "accessor": accessor}
            answer = client.logical.write("sys/capabilities-accessor", asked)
        else:
            answer = client.logical.write("sys/capabilities-self", {"paths": [path]})
    found = (answer.data or {})["capabilities"]
    app.show(found, lambda: ", ".join(found))


def _show_auth(app: App, answer: LogicalResponse, field: str) -> None:
    for warning in answer.warnings:
        app.warn(warning)
    auth: Mapping[str, Any] = answer.auth or {}
    if field:
        app.show_field(_named(auth), field)
        return
    value = {"request_id": answer.request_id, "auth": auth, "warnings": list(answer.warnings) or None}
    app.show(value, lambda: pairs(_named(auth)))


def _named(auth: Mapping[str, Any]) -> dict[str, Any]:
    """Vault's names in tables and for -field."""
    names = {
        "token": "client_token",
        "token_accessor": "accessor",
        "token_duration": "lease_duration",
        "token_renewable": "renewable",
        "token_policies": "token_policies",
        "policies": "policies",
    }
    return {name: auth[source] for name, source in names.items() if auth.get(source) not in (None, "")}
