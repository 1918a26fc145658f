"""What every command has: the flags accepted anywhere, the client they describe, the terminal, and ways to answer.

Commands get an `App` and use nothing else of the outside world, so that tests can give them another one.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from holdfast.client.cli.data import FILE_BYTES_MAX, GivenData, decode_text, parse_data
from holdfast.client.cli.errors import Declined
from holdfast.client.cli.output import Format, raw, to_json, to_yaml
from holdfast.client.config import TOKEN_FILE_NAME, ClientConfig, lookup
from holdfast.client.durations import parse_duration
from holdfast.client.failures import LocalError
from holdfast.client.sync import Client
from holdfast.proto.errors import NotFound

F = TypeVar("F", bound=Callable[..., Any])

CLI_RETRIES = 4
"""How often a command is repeated after a wait, where nothing else is said: a person waits at the other end."""


@dataclass
class App:
    """One run of the command. settings: what the flags said."""

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    home: Path = field(default_factory=Path.home)
    settings: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def format(self) -> Format:
        """How to answer: `-format`, else HOLDFAST_FORMAT, else a table."""
        chosen = self.settings.get("format") or lookup(self.environment, "FORMAT").lower() or "table"
        if chosen not in set(Format):
            raise LocalError(f"HOLDFAST_FORMAT must be table, json or yaml, not {chosen!r}.", field="format")
        return Format(chosen)

    @property
    def token_file(self) -> Path:
        return self.home / TOKEN_FILE_NAME

    def client(self, **overrides: Any) -> Client:
        """A client as the flags and the environment describe it. Close it, or use it in a `with` block."""
        return Client(self.config(**overrides))

    def config(self, **overrides: Any) -> ClientConfig:
        """The client's settings. The address flags win over the environment; `overrides` win over both."""
        flags = {key: value for key, value in self.settings.items() if key != "format"}
        for name in ("ca_file", "client_cert_file", "client_key_file"):
            if flags.get(name):
                flags[name] = Path(flags[name])
        if flags.get("timeout_s"):
            flags["timeout_s"] = parse_duration(flags["timeout_s"], field="-timeout").total_seconds()
        if not lookup(self.environment, "MAX_RETRIES"):
            flags["max_retries"] = CLI_RETRIES
        return ClientConfig.from_environment(self.environment, home=self.home, **(flags | overrides))

    def show(self, value: object, text: Callable[[], str]) -> None:
        """Answer with `value` in the chosen format; `text` makes the table."""
        match self.format:
            case Format.JSON:
                click.echo(to_json(value))
            case Format.YAML:
                click.echo(to_yaml(value))
            case Format.TABLE:
                click.echo(text())

    def show_field(self, members: Mapping[str, object], name: str) -> None:
        """Answer with one member's bare value; with a newline after it only on a terminal."""
        if name not in members:
            raise NotFound(f"the answer has no field {name!r}.")
        if self.format is Format.TABLE:
            click.echo(raw(members[name]), nl=sys.stdout.isatty())
        else:
            self.show(members[name], str)

    def say(self, text: str) -> None:
        """Tell a person something on success; programs that asked for JSON or YAML hear nothing."""
        if self.format is Format.TABLE:
            click.echo(text)

    def warn(self, text: str) -> None:
        """A line on standard error, when a person is there to read it."""
        if sys.stderr.isatty():
            click.echo(f"Warning: {text}", err=True)

    def data(self, arguments: tuple[str, ...]) -> GivenData:
        """The data that arguments describe; warns when it holds a secret that others on this machine could see."""
        given = parse_data(arguments, read_input=InputReader().read)
        if given.exposed:
            keys = ", ".join(given.exposed)
            self.warn(
                f"the value of {keys} is on the command line, where the shell's history and other users can see it. "
                f"Write {given.exposed[0]}=- to be asked for it, or {given.exposed[0]}=@file."
            )
        return given

    def confirm(self, question: str, *, yes: bool) -> None:
        """Go on only when a person agrees or `-yes` was given. Raises Declined."""
        if yes:
            return
        if not sys.stdin.isatty():
            raise Declined(f"{question} Nothing was done, because nobody can be asked here. Add -yes to go ahead.")
        click.echo(f"{question} Type yes to go ahead: ", nl=False, err=True)
        if sys.stdin.readline().strip().lower() != "yes":
            raise Declined("Nothing was done.")


class InputReader:
    """Values from the person (hidden) or, when standard input is a pipe, from the pipe, which can be read once."""

    def __init__(self) -> None:
        self._used = False

    def read(self, key: str) -> str:
        """The value of `key`; an empty key asks for the whole data."""
        if key and sys.stdin.isatty():
            return hidden(f"Value of {key} (not shown): ")
        if self._used:
            raise LocalError("standard input can be used for one value only.", field="data")
        self._used = True
        return decode_text(sys.stdin.buffer.read(FILE_BYTES_MAX + 1), "standard input")


def hidden(prompt: str) -> str:
    """A line that the person types unseen. Raises LocalError when there is no terminal to ask at."""
    if not sys.stdin.isatty():
        raise LocalError("there is no terminal to ask at. Give the value on standard input, with `-`.")
    try:
        return getpass.getpass(prompt)
    except EOFError:
        raise LocalError("nothing was entered.") from None


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value is None or context.resilient_parsing:
        return
    app = context.ensure_object(App)
    assert parameter.name is not None
    if parameter.name == "token":
        app.warn("the token is on the command line, where others can see it. Use `holdfast login` or HOLDFAST_TOKEN.")
    app.settings[parameter.name] = value


def _global(flag: str, name: str, text: str, **kwargs: Any) -> click.Option:
    return click.Option([flag, name], callback=_remember, expose_value=False, help=text, **kwargs)


GLOBAL_OPTIONS: tuple[click.Option, ...] = (
    _global("--address", "addresses", "Node to talk to, host:port; several separated by commas.", metavar="ADDRESS"),
    _global("--ca-cert", "ca_file", "The cluster's CA certificate (PEM).", type=click.Path(), metavar="FILE"),
    _global("--client-cert", "client_cert_file", "Client certificate (PEM).", type=click.Path(), metavar="FILE"),
    _global(
        "--client-key", "client_key_file", "Key of the client certificate (PEM).", type=click.Path(), metavar="FILE"
    ),
    _global("--tls-server-name", "tls_server_name", "Name to expect in the node's certificate.", metavar="NAME"),
    _global("--token", "token", "Token to use; better in HOLDFAST_TOKEN or by `holdfast login`.", metavar="TOKEN"),
    _global("--timeout", "timeout_s", "Longest time a call may take, e.g. 10s.", metavar="DURATION"),
    _global("--format", "format", "How to answer.", type=click.Choice([str(choice) for choice in Format])),
)


class _Common(click.Command):
    """A command that accepts the global flags wherever they stand and shows its example as it is written."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        return [*own[:-1], *GLOBAL_OPTIONS, *own[-1:]] if own else list(GLOBAL_OPTIONS)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                (common if parameter in GLOBAL_OPTIONS else own).append(record)
        for title, records in (("Options", own), ("Options of every command", common)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


class Command(_Common):
    """A command."""


class Group(_Common, click.Group):
    """A group of commands."""

    command_class = Command
    group_class = type


SETTINGS = {"help_option_names": ["-h", "--help"]}
pass_app = click.make_pass_decorator(App, ensure=True)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
field_option = click.option("--field", default="", metavar="NAME", help="Print only this field's bare value.")
mount_option = click.option(
    "--mount", default="", metavar="MOUNT", help="The engine's mount; else the path begins with it."
)
