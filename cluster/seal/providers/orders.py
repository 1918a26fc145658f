"""What a node has a provider do, and what came of it, as it travels to the provider's process and back.

order  = msgpack of Order on standard input      answer = msgpack of Answer on standard output
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, Protocol

import msgspec

from holdfast.cluster.seal.providers.contract import Binding, Health, ProviderError
from holdfast.cluster.seal.providers.credentials import Credentials


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call of one provider. spent: see ProviderError. seconds: after which nobody waits for the answer."""

    name: str
    type: str
    parameters: dict[str, str]
    credentials: Credentials
    operation: Literal["wrap", "unwrap"]
    data: bytes
    binding: Binding
    spent: str = ""
    seconds: float = 0.0

    def __repr__(self) -> str:
        return f"<Order {self.operation} by {self.name}>"


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """data: what was asked for; None when it failed, and the rest is the ProviderError."""

    data: bytes | None = None
    health: Health = Health.UNCHECKED
    message: str = ""
    spent: str = ""

    def __repr__(self) -> str:
        return "<Answer>"

    def result(self) -> bytes:
        """The data. Raises the ProviderError."""
        if self.data is None:
            raise ProviderError(self.health, self.message, spent=self.spent)
        return self.data


class ProviderCalls(Protocol):
    """Carries out orders: `ProviderProcesses`, and what tests put in its place."""

    async def run(self, order: Order) -> bytes:
        """What the provider made of the data. Ends within a deadline. Raises ProviderError."""
        ...

    def keep(self, names: Collection[str]) -> None:
        """Let go of what is remembered of all other providers."""
        ...
