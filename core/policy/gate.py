"""Who may do what: the seam that the policy engine fills. Until then root may do everything, nobody else anything."""

from __future__ import annotations

from typing import Protocol

from holdfast.core.request import Operation
from holdfast.core.tokens import ROOT_POLICY, TokenEntry
from holdfast.proto.errors import PermissionDenied
from holdfast.storage.transaction import Transaction


class Policy(Protocol):
    """Decides on one request. Deny by default."""

    async def check(self, txn: Transaction, token: TokenEntry, *, path: str, operation: Operation, sudo: bool) -> None:
        """Raise PermissionDenied unless the token's policies allow the operation on the path.

        txn: for the stored policies; what is read becomes a precondition of the request's write. sudo: whether the path
        also needs that capability. The message names neither the path nor the policies.
        """
        ...


class RootOnly:
    """The policy `root` allows everything; whoever has it not is refused."""

    async def check(
        self,
        txn: Transaction,  # noqa: ARG002
        token: TokenEntry,
        *,
        path: str,  # noqa: ARG002
        operation: Operation,  # noqa: ARG002
        sudo: bool,  # noqa: ARG002
    ) -> None:
        """See Policy."""
        if ROOT_POLICY not in token.policies:
            raise PermissionDenied("the token's policies do not allow this: ask for a policy that does")
