"""How a node proves itself to its providers: the entries of `seal.providers` in node.yaml, by kind.

Credentials are each node's own and are never replicated. Files are read again at each use, so that a token or a PIN can
be renewed under a running node.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from holdfast.cluster.seal.providers.urls import check_https

_FILE_BYTES_MAX = 64 * 1024


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """A provider's entry."""


class TransitCredentials(_Entry, frozen=True, kw_only=True, tag="transit"):
    """token_file: holds the token, on its first line. ca_file: PEM; the system's authorities without it.
    address: where the token may be sent, whatever the replicated parameter says."""

    token_file: str
    ca_file: str = ""
    address: str = ""


class AwsKmsCredentials(_Entry, frozen=True, kw_only=True, tag="awskms"):
    """AWS's own chain: environment, shared files, the machine's role. profile: of the shared files."""

    profile: str = ""


class Pkcs11Credentials(_Entry, frozen=True, kw_only=True, tag="pkcs11"):
    """module: the vendor's PKCS#11 library. One of pin_file (first line) and pin_env (a variable's name)."""

    module: str
    pin_file: str = ""
    pin_env: str = ""


class AgeCredentials(_Entry, frozen=True, kw_only=True, tag="age"):
    """identity_file: as age-keygen writes it."""

    identity_file: str


Credentials = TransitCredentials | AwsKmsCredentials | Pkcs11Credentials | AgeCredentials

KINDS = ("transit", "awskms", "pkcs11", "age")
"""What `type` may be."""

_FILES = ("token_file", "ca_file", "module", "pin_file", "identity_file")


def with_paths_from(credentials: Credentials, folder: Path) -> Credentials:
    """The entry with its relative paths starting at `folder`."""
    given = {name: getattr(credentials, name, "") for name in _FILES}
    return msgspec.structs.replace(credentials, **{n: str(folder / value) for n, value in given.items() if value})


def problems(credentials: Credentials) -> list[tuple[str, str]]:
    """(field, problem) of what is wrong in an entry's form."""
    required = ("token_file", "module", "identity_file")
    found = [(name, "must not be empty") for name in required if getattr(credentials, name, None) == ""]
    if isinstance(credentials, Pkcs11Credentials) and bool(credentials.pin_file) == bool(credentials.pin_env):
        found.append(("pin_file", "give either pin_file or pin_env"))
    if isinstance(credentials, TransitCredentials) and credentials.address:
        try:
            check_https(credentials.address)
        except ValueError as error:
            found.append(("address", str(error)))
    return found


def read_private(name: str) -> str:
    """The text of a file that holds a secret. Raises ValueError, without quoting it, when it cannot be used."""
    path = Path(name)
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o007:
            raise ValueError(
                f"{name} can be used by anyone on this machine (mode {stat.S_IMODE(mode):04o}): chmod 0600"
            )
        with path.open(encoding="utf-8") as file:
            text = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror or 'unknown error'}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not text") from None
    if len(text) > _FILE_BYTES_MAX:
        raise ValueError(f"{name} is too large")
    return text


def read_secret(*, file: str = "", variable: str = "") -> str:
    """A secret of one line, from a file or else an environment variable. Raises ValueError."""
    if file:
        secret = read_private(file).partition("\n")[0].strip()
        source = file
    else:
        secret = os.environ.get(variable, "")
        source = f"the environment variable {variable}"
    if not secret:
        raise ValueError(f"{source} holds nothing")
    return secret
