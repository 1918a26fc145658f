"""`holdfast audit`: the devices that record every request, and what they recorded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from holdfast.client.cli.app import SETTINGS, App, Command, Group, pass_app, yes_option
from holdfast.client.cli.errors import EXIT_REMOTE
from holdfast.client.cli.output import table
from holdfast.client.failures import LocalError

LINE_BYTES_MAX = 32 * 1024 * 1024

_FIRST = "0" * 64
_MAC = b',"mac":"'


@click.group("audit", cls=Group, context_settings=SETTINGS)
def audit() -> None:
    """Enable and list audit devices; find values in an audit log and check that none of its lines is missing.

    \b
    Examples:
      holdfast audit enable file file_path=/var/log/holdfast/audit.log
      holdfast audit list
      holdfast audit verify /var/log/holdfast/audit.log
    """


@audit.command(cls=Command, context_settings=SETTINGS)
@click.argument("type_", metavar="TYPE")
@click.argument("options", nargs=-1)
@click.option("--path", default="", metavar="PATH", help="Where to enable it.  [default: the type]")
@click.option("--description", default="", metavar="TEXT", help="For people.")
@pass_app
def enable(app: App, type_: str, options: tuple[str, ...], path: str, description: str) -> None:
    """Enable an audit device, on every node. From then on no request is served that no device records.

    \b
    Examples:
      holdfast audit enable file file_path=/var/log/holdfast/audit.log rotate_bytes=100MiB rotate_max_files=20
      holdfast audit enable -path=second file file_path=/mnt/audit/{node_id}.log sync=true
    """
    given = {}
    for option in options:
        name, mark, value = option.partition("=")
        if not mark:
            raise LocalError(f"write options as name=value, not {name!r}.", field="options")
        given[name] = value
    path = path.strip("/") or type_
    with app.client() as client:
        client.logical.write(f"sys/audit/{path}", {"type": type_, "description": description, "options": given})
    app.say(f"The audit device {path}/ of type {type_} records every request from now on.")


@audit.command(cls=Command, context_settings=SETTINGS)
@click.argument("path")
@yes_option
@pass_app
def disable(app: App, path: str, yes: bool) -> None:  # noqa: FBT001
    """Disable an audit device, on every node.

    \b
    Example:
      holdfast audit disable file
    """
    app.confirm(f"The audit device {path} will record nothing any more.", yes=yes)
    with app.client() as client:
        client.logical.delete(f"sys/audit/{path.strip('/')}")
    app.say("Disabled.")


@audit.command("list", cls=Command, context_settings=SETTINGS)
@pass_app
def list_(app: App) -> None:
    """List the audit devices.

    \b
    Examples:
      holdfast audit list
      holdfast audit list -format=json
    """
    with app.client() as client:
        devices: Mapping[str, Any] = client.logical.read("sys/audit").data or {}
    rows = [
        [path, device["type"], " ".join(f"{k}={v}" for k, v in device["options"].items()), device["description"]]
        for path, device in devices.items()
    ]
    none = "No audit device is enabled: nobody will know who did what. Enable one with `holdfast audit enable`."
    app.show(devices, lambda: table(["Path", "Type", "Options", "Description"], rows) if rows else none)


@audit.command("hash", cls=Command, context_settings=SETTINGS)
@click.argument("path")
@click.argument("value")
@pass_app
def hash_(app: App, path: str, value: str) -> None:
    """Show the hash that stands for a value in the log of a device, to search for it. `-` reads it unseen.

    \b
    Example:
      grep "$(holdfast audit hash file -)" /var/log/holdfast/audit.log
    """
    given = app.data((f"input={value}",)).members
    with app.client() as client:
        answer = client.logical.write(f"sys/audit-hash/{path.strip('/')}", given)
    hashed = str((answer.data or {}).get("hash", ""))
    app.show({"hash": hashed}, lambda: hashed)


@audit.command(cls=Command, context_settings=SETTINGS)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--offline", is_flag=True, help="Check the chain only; ask no cluster whether it made the lines.")
@pass_app
def verify(app: App, files: tuple[Path, ...], offline: bool) -> int:  # noqa: FBT001
    """Check that no line of an audit log was removed or changed. Give rotated files together, the oldest first.

    Every line holds the hash of the one before, and the cluster vouches for the last one, and so for all. What cannot
    be seen in the files: lines cut off at the very end, and files left out before the first one given.

    \b
    Examples:
      holdfast audit verify /var/log/holdfast/audit.log.00000001 /var/log/holdfast/audit.log
      holdfast audit verify -offline audit.log
    """
    chain = _Chain()
    for file in files:
        chain.read(file)
    if not offline and chain.vouched:
        _ask(app, chain)
    first, last = chain.first_seq, chain.seq
    value = {
        "valid": not chain.problems,
        "lines": chain.lines,
        "first": first,
        "last": last,
        "complete_from_start": first == 1,
        "checked_by_cluster": not offline,
        "problems": chain.problems,
    }
    app.show(value, lambda: _verdict(chain, offline=offline))
    return EXIT_REMOTE if chain.problems else 0


class _Chain:
    """What was read so far. problems: each with file and line. vouched: (digest, mac, where) of the last line of every
    unbroken run, for the cluster to check."""

    def __init__(self) -> None:
        self.lines = 0
        self.first_seq = 0
        self.seq = 0
        self.problems: list[str] = []
        self.vouched: list[tuple[str, str, str]] = []
        self._prev = ""
        self._last: tuple[str, str, str] | None = None

    def read(self, file: Path) -> None:
        for number, line in enumerate(_lines(file), 1):
            self._line(line, f"{file}:{number}")
        if self._last is not None:
            self.vouched.append(self._last)

    def _line(self, line: bytes, where: str) -> None:
        self.lines += 1
        if not line.endswith(b"\n"):
            self.problems.append(f"{where}: the line does not end: it was cut off, or is being written")
        line = line.rstrip(b"\n")
        try:
            chain = json.loads(line)["chain"]
            seq, prev, mac = int(chain["seq"]), str(chain["prev"]), str(chain["mac"])
        except (ValueError, KeyError, TypeError):
            self.problems.append(f"{where}: this is not a line of an audit log")
            self._prev, self._last = "", None
            return
        if not line.endswith(_MAC + mac.encode(errors="replace") + b'"}}'):
            self.problems.append(f"{where}: something stands behind the mac, which vouches for what is before it alone")
        if self.first_seq and (prev != self._prev or seq != self.seq + 1):
            self.problems.append(
                f"{where}: line {seq} of the chain does not follow line {self.seq}: "
                "lines were removed, changed or put in between"
            )
            if self._last is not None:
                self.vouched.append(self._last)
        if not self.first_seq:
            self.first_seq = seq
            if (seq == 1) != (prev == _FIRST):
                self.problems.append(f"{where}: the first line of the chain is not one that a device writes")
        self.seq = seq
        self._prev = hashlib.sha256(line).hexdigest()
        self._last = (hashlib.sha256(line[: line.rfind(_MAC) + 1]).hexdigest(), mac, where)


def _lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while line := opened.readline(LINE_BYTES_MAX + 1):
            if len(line) > LINE_BYTES_MAX:
                raise LocalError(
                    f"{file} has a line of over {LINE_BYTES_MAX} bytes: it is no audit log.", field="files"
                )
            yield line


def _ask(app: App, chain: _Chain) -> None:
    """Have the cluster check what it alone can: the macs."""
    with app.client() as client:
        for begin in range(0, len(chain.vouched), 500):
            part = chain.vouched[begin : begin + 500]
            lines = [{"digest": digest, "mac": mac} for digest, mac, _ in part]
            answer = client.logical.write("sys/audit-verify", {"lines": lines}).data or {}
            for (_, _, where), valid in zip(part, answer.get("valid", []), strict=True):
                if not valid:
                    chain.problems.append(
                        f"{where}: this cluster did not write this line, or a line before it was changed"
                    )


def _verdict(chain: _Chain, *, offline: bool) -> str:
    if chain.problems:
        return "\n".join([*chain.problems, f"NOT VALID: {len(chain.problems)} problems in {chain.lines} lines."])
    if not chain.lines:
        return "There are no lines."
    text = f"Valid: {chain.lines} lines, {chain.first_seq} to {chain.seq} of the chain, none missing or changed."
    if chain.first_seq != 1:
        text += f" Lines 1 to {chain.first_seq - 1} are not in these files."
    if offline:
        text += " The cluster was not asked: who can write the files could have made a chain of their own."
    return text
