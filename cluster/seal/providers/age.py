"""`age`: the key in a file beside the node. For development: who has the node's files has the key.

X25519 (age-encryption.org/v1), by pyrage. age has no associated data; the binding is held by our own envelope.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from holdfast.cluster.seal.providers.contract import Binding, Health, Parameter, ProviderError, ProviderType
from holdfast.cluster.seal.providers.credentials import AgeCredentials, read_private

_RECIPIENT = re.compile(r"age1[0-9a-z]{58}")


class AgeProvider:
    """One identity file. recipient: whom to wrap to; the first identity of the file when it is empty."""

    def __init__(self, *, recipient: str, identity_file: str) -> None:
        self._recipient = recipient
        self._identity_file = identity_file

    def wrap(self, key: bytes, binding: Binding) -> bytes:
        """See Provider."""
        del binding
        pyrage = _pyrage()
        if self._recipient:
            try:
                recipient = pyrage.x25519.Recipient.from_str(self._recipient)
            except pyrage.RecipientError:
                raise ProviderError(Health.MISCONFIGURED, "the recipient is not an age X25519 recipient") from None
        else:
            recipient = self._identities(pyrage)[0].to_public()
        return bytes(pyrage.encrypt(key, [recipient]))

    def unwrap(self, blob: bytes, binding: Binding) -> bytes:
        """See Provider."""
        del binding
        pyrage = _pyrage()
        try:
            return bytes(pyrage.decrypt(blob, self._identities(pyrage)))
        except pyrage.DecryptError:
            raise ProviderError(
                Health.WRONG_KEY, f"no identity in {self._identity_file} opens the wrap; put the right one back"
            ) from None

    def _identities(self, pyrage: Any) -> list[Any]:
        try:
            lines = read_private(self._identity_file).splitlines()
        except ValueError as error:
            raise ProviderError(Health.MISCONFIGURED, str(error)) from None
        try:
            found = [pyrage.x25519.Identity.from_str(line.strip()) for line in lines if line.strip() and line[0] != "#"]
        except pyrage.IdentityError:
            found = []
        if not found:
            raise ProviderError(
                Health.MISCONFIGURED, f"{self._identity_file} holds no age X25519 identity (AGE-SECRET-KEY-1...)"
            )
        return found


def _pyrage() -> Any:
    try:
        import pyrage
    except ImportError:
        raise ProviderError(Health.MISCONFIGURED, "this node lacks pyrage: pip install 'holdfast[age]'") from None
    return pyrage


def _check_recipient(text: str) -> None:
    if not _RECIPIENT.fullmatch(text):
        raise ValueError("not an age X25519 recipient (age1...)")


def _open(parameters: Mapping[str, str], credentials: AgeCredentials, spent: str) -> AgeProvider:
    del spent
    return AgeProvider(recipient=parameters.get("recipient", ""), identity_file=credentials.identity_file)


AGE = ProviderType(
    name="age",
    help="an age identity file on each node; for development only",
    parameters=(
        Parameter("recipient", "the age1... recipient to wrap to; the identity file's own without it",
                  check=_check_recipient),
    ),
    credentials=AgeCredentials,
    open=_open,
    development=True,
)  # fmt: skip
