"""What an unseal provider is, to the code that uses one. A new kind is one file and one line in `catalogue`.

A provider wraps short secrets under a key that never leaves it. It is given the wrapping key of one record and never
the root key (see `envelope`). It blocks: it runs in a process of its own, under a deadline (see `processes`).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from holdfast.cluster.seal.providers.credentials import Credentials
from holdfast.proto.errors import InvalidArgument

NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
NAME_RULE = "lower-case letters, digits and inner hyphens, at most 32 characters"

CALL_TIMEOUT_S = 10.0
"""How long one call of a provider may take before it is given up."""

SOCKET_TIMEOUT_S = 4.0
"""How long a provider that is asked over a network may be silent before the attempt counts as failed."""

C = TypeVar("C", bound=Credentials, contravariant=True)


class Health(enum.Enum):
    """How a provider did when it was last asked, as one node sees it.

    UNCHECKED: not asked yet. UNREACHABLE: no answer, or one that says "not now". TIMEOUT: not within the deadline.
    REFUSED: it answered that these credentials may not. WRONG_KEY: it answered, and its answer does not open the wrap.
    NOT_CONFIGURED: this node's node.yaml names no credentials for it. MISCONFIGURED: this node cannot ask it as it is
    set up (a file, a library, a parameter). FAILED: anything else.
    """

    UNCHECKED = "unchecked"
    HEALTHY = "healthy"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    WRONG_KEY = "wrong_key"
    NOT_CONFIGURED = "not_configured"
    MISCONFIGURED = "misconfigured"
    FAILED = "failed"


class ProviderError(Exception):
    """A provider could not wrap or unwrap. Never fatal: what a provider says must not stop a node.

    health: what it means for the provider. message: what happened and what to do; of our own words and of names and
    codes from standards, never of a foreign message, which might quote what it was given. spent: the digest of a
    credential that was refused and must not be given again; empty when there is none.
    """

    def __init__(self, health: Health, message: str, *, spent: str = "") -> None:
        super().__init__(message)
        assert health not in (Health.HEALTHY, Health.UNCHECKED)
        self.health = health
        self.message = message
        self.spent = spent


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """Whose wrap it is. A wrap that was moved to another cluster, provider or kind does not open."""

    cluster_id: str
    name: str
    type: str

    @property
    def aad(self) -> bytes:
        """As associated data: unambiguous, since each part is framed by its length."""
        parts = (self.cluster_id.encode(), self.type.encode(), self.name.encode())
        return b"holdfast/seal/provider/1" + b"".join(len(part).to_bytes(2, "big") + part for part in parts)

    @property
    def context(self) -> dict[str, str]:
        """As names and values, for providers that show it in their own audit log."""
        return {
            "holdfast-cluster-id": self.cluster_id,
            "holdfast-provider": self.name,
            "holdfast-provider-type": self.type,
        }


class Provider(Protocol):
    """One configured provider, for one call."""

    def wrap(self, key: bytes, binding: Binding) -> bytes:
        """`key` (32 bytes), readable only with this provider's help. Raises ProviderError."""
        ...

    def unwrap(self, blob: bytes, binding: Binding) -> bytes:
        """What `wrap` was given. Raises ProviderError; WRONG_KEY when `blob` does not open under this key and
        binding, where the provider can tell."""
        ...


@dataclass(frozen=True)
class Parameter:
    """A parameter that is stored with the wrap, readable by all. check: raises ValueError saying what is wrong."""

    name: str
    help: str
    required: bool = False
    default: str = ""
    check: Callable[[str], None] = lambda _: None


PARAMETER_CHARS_MAX = 512


@dataclass(frozen=True)
class ProviderType(Generic[C]):
    """One kind of provider.

    name: what operators write. credentials: the form of its entry in node.yaml. open: makes one from its parameters,
    this node's credentials and what is spent of them (see ProviderError). development: whether it keeps no secret from
    whoever has the node's files.
    """

    name: str
    help: str
    parameters: Sequence[Parameter]
    credentials: type[C]
    open: Callable[[Mapping[str, str], C, str], Provider]
    development: bool = False

    def checked(self, given: Mapping[str, str]) -> dict[str, str]:
        """The parameters with their defaults. Raises InvalidArgument naming the one at fault."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                takes = ", ".join(known) or "none"
                raise InvalidArgument(f"{self.name} has no such parameter; it takes: {takes}", field="parameters")
        found: dict[str, str] = {}
        for name, parameter in known.items():
            value = given.get(name, "") or parameter.default
            if not value:
                if parameter.required:
                    raise InvalidArgument(f"{self.name} needs {name}=: {parameter.help}", field=name)
                continue
            if len(value) > PARAMETER_CHARS_MAX or not value.isprintable():
                raise InvalidArgument(f"{name} is at most {PARAMETER_CHARS_MAX} printable characters", field=name)
            try:
                parameter.check(value)
            except ValueError as error:
                raise InvalidArgument(f"{name}: {error}", field=name) from None
            found[name] = value
        return found
