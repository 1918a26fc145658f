"""Where a client connects and as whom: settings from the environment, from the token file, or given in code.

Every `HOLDFAST_*` variable falls back to its `VAULT_*` twin. An empty variable counts as unset.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from holdfast.client.durations import parse_duration
from holdfast.client.failures import LocalError
from holdfast.proto import errors

DEFAULT_ADDRESS = "127.0.0.1:8200"
DEFAULT_PORT = 8200
TOKEN_FILE_NAME = ".holdfast-token"  # noqa: S105  a file name
TOKEN_BYTES_MAX = 8192
"""The longest token file that is read, in bytes."""

_PREFIXES = ("HOLDFAST", "VAULT")


@dataclass(frozen=True)
class ClientConfig:
    """Everything a client needs to know. Immutable; make a changed copy with `dataclasses.replace`.

    addresses: nodes' API ports, `host:port` or `https://host:port`; one comma-separated string or a sequence. The
        first is used until it fails; calls that concern one node (seal status, unseal, seal, health) always go to it.
    token: sent with every call; never shown by repr.
    ca_file: PEM file of the cluster's CA; None for gRPC's built-in public roots.
    client_cert_file, client_key_file: PEM files, both or neither.
    tls_server_name: the name to expect in the nodes' certificates instead of the address.
    timeout_s: the longest a call may take, all its attempts and waits included.
    attempt_timeout_s: how long one of several nodes may stay silent before the next one is asked. It doubles when all
        of them were silent that long, so that a slow cluster is waited for.
    max_retries: how often a call is repeated after a wait. Going on to a node not yet asked is not a repetition.
    """

    addresses: str | Sequence[str] = (DEFAULT_ADDRESS,)
    token: str = field(default="", repr=False)
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    tls_server_name: str = ""
    namespace: str = ""
    timeout_s: float = 30.0
    attempt_timeout_s: float = 1.0
    max_retries: int = 10

    def __post_init__(self) -> None:
        given = self.addresses.split(",") if isinstance(self.addresses, str) else list(self.addresses)
        parsed = tuple(dict.fromkeys(parse_address(address) for address in given if address.strip()))
        if not parsed:
            raise LocalError("no address of a node was given; set HOLDFAST_ADDR to host:port.", field="addresses")
        object.__setattr__(self, "addresses", parsed)
        object.__setattr__(self, "token", checked_token(self.token) if self.token else "")
        if (self.client_cert_file is None) != (self.client_key_file is None):
            raise LocalError(
                "a client certificate needs its key and the other way round; set both or neither.",
                field="client_key_file" if self.client_key_file is None else "client_cert_file",
            )
        for name in ("timeout_s", "attempt_timeout_s"):
            if not 0 < getattr(self, name) <= 86_400:
                raise LocalError(f"{name} must be more than 0 and at most 86,400 seconds.", field=name)
        if not 0 <= self.max_retries <= 1000:
            raise LocalError("max_retries must be from 0 to 1,000.", field="max_retries")
        if self.namespace.strip("/") not in ("", "root"):
            raise errors.Unimplemented(
                "this version of Holdfast has no namespaces: a call would act on the root namespace instead. "
                "Unset HOLDFAST_NAMESPACE and VAULT_NAMESPACE.",
            )

    @property
    def targets(self) -> tuple[str, ...]:
        """The addresses as `host:port`, without repetitions, in the order given."""
        assert not isinstance(self.addresses, str)
        return tuple(self.addresses)

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, *, home: Path | None = None, **overrides: Any
    ) -> Self:
        """Settings from `environment` (the process's own by default); `overrides` win where they are not None.

        Without a token in either, the token file in `home` is read, if there is one.
        Raises LocalError for a value that cannot be understood or a token file that others can read.
        """
        env = os.environ if environment is None else environment
        settings: dict[str, Any] = {}
        if address := lookup(env, "ADDR"):
            settings["addresses"] = address
        for name, key in (
            ("CACERT", "ca_file"),
            ("CLIENT_CERT", "client_cert_file"),
            ("CLIENT_KEY", "client_key_file"),
        ):
            if value := lookup(env, name):
                settings[key] = Path(value)
        for name, key in (("TLS_SERVER_NAME", "tls_server_name"), ("NAMESPACE", "namespace"), ("TOKEN", "token")):
            if value := lookup(env, name):
                settings[key] = value
        if value := lookup(env, "CLIENT_TIMEOUT"):
            settings["timeout_s"] = parse_duration(value, field="HOLDFAST_CLIENT_TIMEOUT").total_seconds()
        if value := lookup(env, "MAX_RETRIES"):
            if not re.fullmatch(r"\d{1,4}", value):
                raise LocalError(f"HOLDFAST_MAX_RETRIES: {value!r} is not a number.", field="max_retries")
            settings["max_retries"] = int(value)
        if lookup(env, "WRAP_TTL"):
            raise errors.Unimplemented(
                "this version of Holdfast does not wrap answers: they would come in the clear. "
                "Unset HOLDFAST_WRAP_TTL and VAULT_WRAP_TTL.",
            )
        settings.update({key: value for key, value in overrides.items() if value is not None})
        if not settings.get("token"):
            settings["token"] = read_token_file((home or Path.home()) / TOKEN_FILE_NAME)
        return cls(**settings)


def lookup(environment: Mapping[str, str], name: str) -> str:
    """The value of `HOLDFAST_<name>`, else of `VAULT_<name>`, else an empty string."""
    return next((value for prefix in _PREFIXES if (value := environment.get(f"{prefix}_{name}", "").strip())), "")


def parse_address(text: str) -> str:
    """`host:port` for an address as people write it: with or without `https://`, with the port 8200 where none is said.

    Raises LocalError for a plain-text URL, a path, or a port that is none.
    """
    address = text.strip()
    scheme, separator, rest = address.partition("://")
    if separator:
        if scheme.lower() != "https":
            raise LocalError(f"{address}: Holdfast speaks TLS only; write https://host:port.", field="addresses")
        address = rest.rstrip("/")
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+(?:%\w+)?\]|[^\s:/@\[\]]+)(?::(\d{1,5}))?", address)
    if match is None or not 0 < int(match[2] or DEFAULT_PORT) < 65536:
        raise LocalError(
            f"{text.strip()!r} is not an address; write host:port or https://host:port.", field="addresses"
        )
    return f"{match[1]}:{int(match[2] or DEFAULT_PORT)}"


def checked_token(text: str) -> str:
    """The token without white space around it. Raises LocalError when it cannot be one; never shows it."""
    token = text.strip()
    if not token or len(token) > TOKEN_BYTES_MAX or not token.isascii() or not token.isprintable() or " " in token:
        raise LocalError(
            "the token is empty, too long or holds characters that no token has. Copy it again.", field="token"
        )
    return token


def read_token_file(path: Path) -> str:
    """The token stored at `path`, or an empty string when there is no such file.

    Raises LocalError when others than the owner may read the file or it holds no token.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(descriptor).st_mode
            usable = stat.S_ISREG(mode) and not mode & 0o077
            content = os.read(descriptor, TOKEN_BYTES_MAX + 1) if usable else b""
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return ""
    except OSError as problem:
        raise LocalError(f"the token file {path} cannot be read: {problem.strerror}.", field="token") from None
    if not stat.S_ISREG(mode):
        raise LocalError(f"the token file {path} is not a regular file. Remove it and log in again.", field="token")
    if not usable:
        raise LocalError(
            f"the token file {path} can be used by others (mode {stat.S_IMODE(mode):04o}), so it is not used here. "
            f"Run `chmod 600 {path}`, and revoke the token if others may have seen it.",
            field="token",
        )
    if not content.strip():
        return ""
    return checked_token(content.decode("utf-8", "replace"))


def write_token_file(path: Path, token: str) -> None:
    """Store `token` at `path`, readable by the owner only, whole or not at all. Raises LocalError when it cannot be."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(checked_token(token) + "\n")
        partial.replace(path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise LocalError(f"the token file {path} cannot be written: {problem.strerror}.", field="token") from None
