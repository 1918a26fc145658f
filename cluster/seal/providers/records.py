"""The record of all providers, in the clear under `cluster_key("seal/providers")`, since a sealed node must read it.

    record = format (1 byte, 1) msgpack of ProviderList

One record for all of them: each change of the set conflicts with every other one and with a replacement of the root
key, which renews every wrap in it in one batch.
"""

from __future__ import annotations

import msgspec

from holdfast.cluster.seal.providers.contract import NAME_PATTERN, Binding
from holdfast.proto.errors import Corruption
from holdfast.storage.decoding import MALFORMED
from holdfast.storage.keys import cluster_key

PROVIDERS_KEY = cluster_key("seal/providers")
"""Where the ProviderList is."""

PROVIDERS_MAX = 16
PRIORITY_MAX = 1000

_FORMAT = 1
_REMEDY = "restore it from a peer or a snapshot"


class ProviderRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider. Nothing in it is secret.

    priority: 1 to PRIORITY_MAX; the lowest is tried first. parameters: where it is and which key it uses.
    wrap: see `envelope`. enrolled_ms: Unix time in milliseconds, by the clock of the node `enrolled_by`.
    """

    name: str
    type: str
    priority: int
    parameters: dict[str, str]
    wrap: bytes
    enrolled_ms: int
    enrolled_by: str

    def binding(self, cluster_id: str) -> Binding:
        """What the wrap is bound to, in this cluster."""
        return Binding(cluster_id=cluster_id, name=self.name, type=self.type)


class ProviderList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every provider of a cluster, in the order in which they are tried."""

    providers: tuple[ProviderRecord, ...] = ()

    def find(self, name: str) -> ProviderRecord | None:
        """The provider of this name."""
        return next((provider for provider in self.providers if provider.name == name), None)

    def with_added(self, record: ProviderRecord) -> ProviderList:
        """A list with one more."""
        assert self.find(record.name) is None
        return ProviderList(tuple(sorted((*self.providers, record), key=lambda each: (each.priority, each.name))))

    def without(self, name: str) -> ProviderList:
        """A list with one less."""
        return ProviderList(tuple(provider for provider in self.providers if provider.name != name))


def encode(providers: ProviderList) -> bytes:
    """The record's stored form."""
    assert _well_formed(providers)
    return bytes((_FORMAT,)) + msgspec.msgpack.encode(providers)


def decode(value: bytes) -> ProviderList:
    """The record in `value`. Raises Corruption when it is not one that this version can read."""
    if not value or value[0] != _FORMAT:
        form = str(value[0]) if value else "none"
        raise Corruption(
            f"the record of the unseal providers has the unknown format {form}: run the version that wrote it, or"
            f" {_REMEDY}"
        )
    try:
        providers = msgspec.msgpack.decode(value[1:], type=ProviderList)
    except MALFORMED:
        providers = None
    if providers is None or not _well_formed(providers):
        raise Corruption(f"the record of the unseal providers is damaged: {_REMEDY}")
    return providers


def _well_formed(providers: ProviderList) -> bool:
    names = [provider.name for provider in providers.providers]
    return len(names) == len(set(names)) <= PROVIDERS_MAX and all(
        NAME_PATTERN.fullmatch(each.name) and 1 <= each.priority <= PRIORITY_MAX for each in providers.providers
    )
