"""The stored policies: one record each, under `shared/core/policy/`, read in the transaction of every request.

Parsed rules and compiled sets of them are kept while their records stay the same; the records are always read, so that
a write has the policies that allowed it among its preconditions: a policy cannot be taken away under a write in flight.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from holdfast.core.plugin import StorageView
from holdfast.core.policy.acl import Acl, Asked, Decision, Granted, Reason
from holdfast.core.policy.names import DEFAULT_POLICY
from holdfast.core.policy.rules import Capability, Rule, read
from holdfast.core.tokens import ROOT_POLICY, TokenEntry
from holdfast.proto.errors import Corruption, InvalidArgument
from holdfast.storage.decoding import MALFORMED
from holdfast.storage.transaction import Transaction

POLICY_PREFIX = "shared/core/policy"

NAME_BYTES_MAX = 128

_SETS_MAX = 512
"""How many compiled sets of policies are kept."""

_FORMAT = 1

_EVERYTHING = frozenset(Capability) - {Capability.DENY}

DEFAULT_TEXT = """\
# What every token may do: with itself, and to find out what it may do.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
path "sys/capabilities-self" {
  capabilities = ["update"]
}
"""


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    text: str


class StoredPolicies:
    """See the module. Implements Policy."""

    def __init__(self) -> None:
        self._rules: dict[str, tuple[bytes | None, Sequence[Rule]]] = {}
        self._sets: OrderedDict[tuple[tuple[str, int], ...], tuple[Acl, list[Sequence[Rule]]]] = OrderedDict()

    async def decide(self, txn: Transaction, token: TokenEntry, asked: Asked) -> Decision:
        """See Policy."""
        if ROOT_POLICY in token.policies:
            return Decision(Reason.ALLOWED, deciding=_ROOT)
        return (await self.acl(txn.view(POLICY_PREFIX), token.policies)).decide(asked)

    async def acl(self, view: StorageView, names: Sequence[str]) -> Acl:
        """The compiled rules of some policies. Names of which no policy is stored give nothing."""
        loaded = {name: await self._load(view, name) for name in dict.fromkeys(names)}
        # The rules are kept beside the compiled set, so that an identity is never that of other rules.
        key = tuple((name, id(rules)) for name, rules in loaded.items())
        known = self._sets.get(key)
        if known is None:
            known = self._sets[key] = Acl(loaded), list(loaded.values())
            if len(self._sets) > _SETS_MAX:
                self._sets.popitem(last=False)
        else:
            self._sets.move_to_end(key)
        return known[0]

    async def _load(self, view: StorageView, name: str) -> Sequence[Rule]:
        record = await view.get(name)
        kept = self._rules.get(name)
        if kept is not None and kept[0] == record:
            return kept[1]
        text = policy_text(name, record)
        try:
            rules = () if text is None else read(text)
        except InvalidArgument:
            raise Corruption("a stored policy does not parse: restore this node from its peers") from None
        if len(self._rules) >= _SETS_MAX:
            self._rules.clear()
        self._rules[name] = record, rules
        return rules

    def forget(self) -> None:
        """See Policy."""
        self._rules.clear()
        self._sets.clear()

    def __repr__(self) -> str:
        return "<StoredPolicies>"


def policy_text(name: str, record: bytes | None) -> str | None:
    """The text of a policy by its record; None when there is none. Raises Corruption."""
    if record is None:
        return DEFAULT_TEXT if name == DEFAULT_POLICY else None
    try:
        stored = msgspec.msgpack.decode(record, type=_Stored)
    except MALFORMED:
        raise Corruption("a policy's record does not parse: restore this node from its peers") from None
    if stored.format != _FORMAT:
        raise Corruption(f"a policy's record has format {stored.format}, this build reads {_FORMAT}: upgrade the node")
    return stored.text


def encode_policy(text: str) -> bytes:
    """The record of a policy. Raises InvalidArgument, with line and column, when the text is none."""
    read(text)
    return msgspec.msgpack.encode(_Stored(format=_FORMAT, text=text))


def policy_name(name: str) -> str:
    """A policy's name, checked. Raises InvalidArgument.

    One that is not in lower case is refused and not corrected: it stands in the path that the caller's own policies
    decided on, and a rule about `sys/policies/acl/admin` must not be passed by with `sys/policies/acl/Admin`."""
    if name != name.strip().lower():
        raise InvalidArgument("a policy's name is in lower case, without spaces around it", field="name")
    if not name or len(name.encode(errors="surrogatepass")) > NAME_BYTES_MAX or not name.isprintable() or "/" in name:
        raise InvalidArgument(
            f'a policy\'s name is 1 to {NAME_BYTES_MAX} bytes of printable characters without "/"', field="name"
        )
    return name


_ROOT = Granted("", _EVERYTHING, None, {}, frozenset(), 0, 0, ())
