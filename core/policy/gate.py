"""The seam between the request path and the policies."""

from __future__ import annotations

from typing import Protocol

from holdfast.core.policy.acl import Asked, Decision
from holdfast.core.tokens import TokenEntry
from holdfast.storage.transaction import Transaction


class Policy(Protocol):
    """Decides on one request. Deny by default."""

    async def decide(self, txn: Transaction, token: TokenEntry, asked: Asked) -> Decision:
        """What the token's policies say. txn: for the stored policies; what is read becomes a precondition of the
        request's write."""
        ...

    def forget(self) -> None:
        """Drop what was decrypted."""
        ...
