"""`holdfast operator pki`: the cluster's own CA, which signs the certificates of nodes that join by a token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from holdfast.client.cli.app import SETTINGS, App, Group, pass_app, yes_option
from holdfast.client.cli.output import pairs
from holdfast.client.failures import LocalError

_PATH = "sys/cluster-ca"


@click.group("pki", cls=Group, context_settings=SETTINGS)
def pki() -> None:
    """The CA by which nodes know each other. With its key in the cluster, new nodes need a join token and nothing else.

    \b
    Example:
      holdfast operator pki import-ca -cert=certs/ca.crt -key=certs/ca.key
    """


@pki.command("import-ca", context_settings=SETTINGS)
@click.option("--cert", required=True, metavar="FILE", help="The CA's certificate (PEM).")
@click.option("--key", required=True, metavar="FILE", help="Its private key (PEM, unencrypted).")
@pass_app
def import_ca(app: App, cert: str, key: str) -> None:
    """Put the CA's private key into the cluster: encrypted under its keyring, and never given out again.

    Any unsealed leader can then sign a new node's certificate. Without it nodes are added by hand.

    \b
    Example:
      holdfast operator pki import-ca -cert=certs/ca.crt -key=certs/ca.key
    """
    data = {"certificate": _text(cert, "-cert"), "private_key": _text(key, "-key")}
    with app.client() as client:
        told: Mapping[str, Any] = client.logical.write(_PATH, data).data or {}
    app.show(
        {"data": dict(told)},
        lambda: f"The cluster can sign certificates. The CA's fingerprint is {told['fingerprint']}.",
    )


@pki.command(context_settings=SETTINGS)
@pass_app
def show(app: App) -> None:
    """Show which CA the cluster can sign with.

    \b
    Example:
      holdfast operator pki show
    """
    with app.client() as client:
        told: Mapping[str, Any] = client.logical.read(_PATH).data or {}
    app.show({"data": dict(told)}, lambda: pairs(told))


@pki.command("forget-ca", context_settings=SETTINGS)
@yes_option
@pass_app
def forget_ca(app: App, yes: bool) -> None:  # noqa: FBT001
    """Remove the CA's private key from the cluster. No token can be redeemed until it is imported again.

    \b
    Example:
      holdfast operator pki forget-ca
    """
    app.confirm("The cluster will not be able to sign certificates of new nodes.", yes=yes)
    with app.client() as client:
        client.logical.delete(_PATH)
    app.say("The CA's private key is not in the cluster any more.")


def _text(name: str, field: str) -> str:
    try:
        return Path(name).read_text()
    except (OSError, UnicodeDecodeError):
        raise LocalError(f"{name} cannot be read as text.", field=field) from None
