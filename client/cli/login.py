"""`holdfast login`: check a token and keep it for the commands that follow."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from holdfast.client.cli.app import SETTINGS, App, Command, hidden, pass_app
from holdfast.client.cli.output import pairs
from holdfast.client.config import checked_token, lookup, write_token_file
from holdfast.client.failures import LocalError

_UNSHOWN = frozenset({"id", "token"})


@click.command(cls=Command, context_settings=SETTINGS)
@click.argument("token_argument", metavar="[TOKEN]", required=False)
@click.option("--method", type=click.Choice(["token"]), default="token", show_default=True, help="How to log in.")
@click.option("--no-store", is_flag=True, help="Check the token and do not keep it.")
@pass_app
def login(app: App, token_argument: str | None, method: str, no_store: bool) -> None:  # noqa: ARG001, FBT001
    """Check a token and keep it for later commands.

    It is asked for unseen, and kept in ~/.holdfast-token, readable by you only.

    \b
    Examples:
      holdfast login
      holdfast login - < token-file
    """
    token = _token(app, token_argument)
    with app.client(token=token) as client:
        known = client.logical.read("auth/token/lookup-self").data or {}
    facts = {key: value for key, value in known.items() if key not in _UNSHOWN}
    if not no_store:
        write_token_file(app.token_file, token)
    kept = "The token is valid and was not stored." if no_store else f"The token is stored in {_short(app)}."
    app.show({"data": facts}, lambda: f"Logged in. {kept}\n\n{pairs(facts)}" if facts else f"Logged in. {kept}")
    if lookup(app.environment, "TOKEN") and not no_store:
        app.warn("HOLDFAST_TOKEN or VAULT_TOKEN is set and wins over the stored token.")


def _token(app: App, given: str | None) -> str:
    if given is None:
        if app.settings.get("token"):
            return checked_token(app.settings["token"])
        return checked_token(hidden("Token (will be hidden): "))
    text = given.removeprefix("token=")
    if text == "-":
        return checked_token(sys.stdin.readline())
    if not text:
        raise LocalError("the token is empty.", field="token")
    app.warn("the token is on the command line, where others can see it. Leave it out to be asked for it.")
    return checked_token(text)


def _short(app: App) -> str:
    home = str(app.home)
    path = str(app.token_file)
    return f"~{os.sep}{Path(path).relative_to(home)}" if path.startswith(home) else path
