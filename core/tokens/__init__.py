"""Tokens: who asks. See DESIGN.md in `core/`, "Tokens"."""

from holdfast.core.tokens.entries import ROOT_POLICY, TokenEntry
from holdfast.core.tokens.store import (
    NOBODY,
    TOKEN_CHARS,
    TOKEN_PREFIX,
    TOKENS_PREFIX,
    Known,
    create,
    create_root,
    create_salt,
    lookup,
    named,
    new_accessor,
    use,
)

__all__ = [
    "NOBODY",
    "ROOT_POLICY",
    "TOKENS_PREFIX",
    "TOKEN_CHARS",
    "TOKEN_PREFIX",
    "Known",
    "TokenEntry",
    "create",
    "create_root",
    "create_salt",
    "lookup",
    "named",
    "new_accessor",
    "use",
]
