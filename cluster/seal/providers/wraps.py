"""The wraps of the root key by providers: adding and removing one, opening one, renewing all.

What is stored is changed on the leader; what is asked of a provider is asked with the credentials of the node that runs
this. All methods are called from the event-loop thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Never

import msgspec

from holdfast.cluster.raft.consensus import Conflicted, Consensus
from holdfast.cluster.seal.providers import envelope, records
from holdfast.cluster.seal.providers.catalogue import TYPES
from holdfast.cluster.seal.providers.contract import (
    NAME_PATTERN,
    NAME_RULE,
    Binding,
    Health,
    ProviderError,
    ProviderType,
)
from holdfast.cluster.seal.providers.credentials import Credentials
from holdfast.cluster.seal.providers.orders import Order, ProviderCalls
from holdfast.cluster.seal.providers.processes import ProviderProcesses
from holdfast.cluster.seal.providers.records import (
    PRIORITY_MAX,
    PROVIDERS_KEY,
    PROVIDERS_MAX,
    ProviderList,
    ProviderRecord,
)
from holdfast.cluster.seal.records import KEYRING_KEY
from holdfast.cluster.seal.seal import SEAL_TYPE, SealManager
from holdfast.proto.errors import (
    AlreadyExists,
    Conflict,
    Corruption,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from holdfast.storage.batch import Batch, Precondition, Put, Record
from holdfast.storage.keyring import KEY_BYTES, Keyring


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that is to be added."""

    name: str
    type: str
    priority: int
    parameters: Mapping[str, str]


class Renewal(msgspec.Struct, frozen=True):
    """What belongs into the batch that replaces the root key."""

    puts: tuple[Put, ...]
    preconditions: tuple[Precondition, ...]

    def __repr__(self) -> str:
        return "<Renewal>"


class ProviderWraps:
    """See the module. credentials: this node's entry for a provider's name, None when there is none. wall_clock: Unix
    time in seconds. random_bytes: cryptographically secure."""

    def __init__(
        self,
        seal: SealManager,
        consensus: Consensus,
        *,
        node_id: str,
        credentials: Callable[[str], Credentials | None],
        wall_clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        calls: ProviderCalls | None = None,
    ) -> None:
        self._seal = seal
        self._consensus = consensus
        self._node_id = node_id
        self._credentials = credentials
        self._wall_clock = wall_clock
        self._random_bytes = random_bytes
        self._calls = calls or ProviderProcesses()

    async def stored(self) -> ProviderList:
        """The providers of the local state, in the order in which they are tried. Raises Corruption."""
        return (await self._read())[0]

    async def add(self, spec: Spec, *, timeout_s: float) -> ProviderRecord:
        """Have a provider wrap the root key, see it unwrap again, and store the wrap. On the leader, unsealed.

        Raises InvalidArgument; AlreadyExists; FailedPrecondition when the provider did not pass (details["health"]),
        or there are PROVIDERS_MAX; Conflict when keys or providers changed meanwhile; Sealed; and as `propose`."""
        parameters = _checked(spec)
        providers, revision = await self._read()
        if providers.find(spec.name) is not None:
            raise AlreadyExists(f"there is a provider {spec.name}: remove it first, or choose another name")
        if len(providers.providers) >= PROVIDERS_MAX:
            raise FailedPrecondition(f"there are {PROVIDERS_MAX} providers, the most allowed: remove one first")
        binding = Binding(cluster_id=self._cluster_id, name=spec.name, type=spec.type)
        _ = self._seal.barrier  # raises Sealed before anybody is asked for anything
        try:
            wrapping_key, sealed_key = await self._sealed_key(parameters, binding)
        except ProviderError as error:
            raise _refused(spec.name, error) from None
        keyring = await self._keyring()
        wrap = self._seal.with_root_key(
            lambda root_key: _wrap_proved(root_key, keyring, wrapping_key, sealed_key, binding, self._random_bytes)
        )
        record = ProviderRecord(
            name=spec.name,
            type=spec.type,
            priority=spec.priority,
            parameters=parameters,
            wrap=wrap,
            enrolled_ms=int(self._wall_clock() * 1000),
            enrolled_by=self._node_id,
        )
        checks = (Precondition(PROVIDERS_KEY, revision), Precondition(KEYRING_KEY, keyring.revision))
        await self._store(providers.with_added(record), checks, timeout_s=timeout_s)
        return record

    async def remove(self, name: str, *, timeout_s: float) -> None:
        """Forget a provider's wrap. On the leader. Raises InvalidArgument for the Shamir seal; NotFound; Conflict; and
        what `propose` raises."""
        if name == SEAL_TYPE:
            raise _shamir_stays()
        providers, revision = await self._read()
        if providers.find(name) is None:
            raise NotFound("there is no such seal provider: `holdfast operator seal-provider list` shows them")
        await self._store(providers.without(name), (Precondition(PROVIDERS_KEY, revision),), timeout_s=timeout_s)

    async def recover(self, record: ProviderRecord) -> bytes:
        """The root key in a provider's wrap, as the provider opens it; not yet proved to be the cluster's.

        Raises ProviderError."""
        wrapping_key, binding = await self._wrapping_key(record)
        return envelope.unseal(record.wrap, wrapping_key, binding)

    async def check(self, record: ProviderRecord) -> None:
        """See that a provider opens its wrap, and that the root key in it opens the cluster's keyring.

        Raises ProviderError; Sealed when the node was sealed meanwhile, which must not see the root key any more;
        Corruption when the keyring is gone."""
        wrapping_key, binding = await self._wrapping_key(record)
        keyring = await self._keyring()
        _ = self._seal.barrier
        if not _opens(envelope.unseal(record.wrap, wrapping_key, binding), keyring):
            raise ProviderError(
                Health.WRONG_KEY, "the wrap holds another root key than this cluster's: remove it and add it again"
            )

    async def renewed(self, root_key: bytes) -> Renewal:
        """Every wrap anew, around a root key that is about to replace the cluster's: for the batch that replaces it. On
        the leader. Every provider is asked for a new wrapping key, so that who knew the old root key learns nothing.

        Raises FailedPrecondition naming a provider that does not answer: its wrap would be worthless; remove it
        first."""
        providers, revision = await self._read()
        checks = (Precondition(PROVIDERS_KEY, revision),)
        if not providers.providers:
            return Renewal((), checks)
        renewed = []
        for record in providers.providers:
            binding = record.binding(self._cluster_id)
            try:
                wrapping_key, sealed_key = await self._sealed_key(record.parameters, binding)
            except ProviderError as error:
                raise _refused(record.name, error) from None
            wrap = envelope.seal(root_key, wrapping_key, sealed_key, binding, self._random_bytes)
            renewed.append(msgspec.structs.replace(record, wrap=wrap))
        return Renewal((Put(PROVIDERS_KEY, records.encode(ProviderList(tuple(renewed)))),), checks)

    def keep(self, providers: ProviderList) -> None:
        """Let go of what is remembered of providers that are no more."""
        self._calls.keep([record.name for record in providers.providers])

    @property
    def _cluster_id(self) -> str:
        return self._seal.status().cluster_id

    async def _read(self) -> tuple[ProviderList, int]:
        record = await self._consensus.get(PROVIDERS_KEY)
        return (ProviderList(), 0) if record is None else (records.decode(record.value), record.revision)

    async def _keyring(self) -> Record:
        record = await self._consensus.get(KEYRING_KEY)
        if record is None:
            raise Corruption("the keyring has vanished from this node's state: restore it from its peers")
        return record

    async def _store(
        self, providers: ProviderList, preconditions: tuple[Precondition, ...], *, timeout_s: float
    ) -> None:
        batch = Batch(puts=(Put(PROVIDERS_KEY, records.encode(providers)),), preconditions=preconditions)
        if isinstance(await self._consensus.propose(batch, timeout_s=timeout_s), Conflicted):
            raise Conflict("the cluster's keys or providers were changed at the same time: look, and try again")

    async def _sealed_key(self, parameters: Mapping[str, str], binding: Binding) -> tuple[bytes, bytes]:
        """A new wrapping key and what the provider made of it, once it was seen to open it. Raises ProviderError."""
        wrapping_key = self._random_bytes(KEY_BYTES)
        sealed_key = await self._ask("wrap", wrapping_key, parameters, binding)
        if not 0 < len(sealed_key) <= envelope.SEALED_BYTES_MAX:
            raise ProviderError(Health.FAILED, "it wraps a key into nothing, or into more than can be stored")
        opened = await self._ask("unwrap", sealed_key, parameters, binding)
        if not envelope.same(opened, wrapping_key):
            raise ProviderError(Health.WRONG_KEY, "it does not give back what it was given")
        return wrapping_key, sealed_key

    async def _wrapping_key(self, record: ProviderRecord) -> tuple[bytes, Binding]:
        binding = record.binding(self._cluster_id)
        sealed_key = envelope.sealed_key(record.wrap)
        return await self._ask("unwrap", sealed_key, record.parameters, binding), binding

    async def _ask(
        self, operation: Literal["wrap", "unwrap"], data: bytes, parameters: Mapping[str, str], binding: Binding
    ) -> bytes:
        kind = TYPES.get(binding.type)
        if kind is None:
            raise ProviderError(Health.MISCONFIGURED, "this version knows no provider of this type; run a newer one")
        order = Order(
            name=binding.name,
            type=binding.type,
            parameters=dict(parameters),
            credentials=self._credentials_of(binding.name, kind),
            operation=operation,
            data=data,
            binding=binding,
        )
        return await self._calls.run(order)

    def _credentials_of(self, name: str, kind: ProviderType[Any]) -> Credentials:
        credentials = self._credentials(name)
        if credentials is None:
            raise ProviderError(
                Health.NOT_CONFIGURED, f"node {self._node_id} has no entry seal.providers.{name} in its node.yaml"
            )
        matches = isinstance(credentials, kind.credentials)
        if not matches:
            raise ProviderError(
                Health.MISCONFIGURED,
                f"seal.providers.{name} in node.yaml of {self._node_id} is not of type {kind.name}",
            )
        return credentials

    def __repr__(self) -> str:
        return "<ProviderWraps>"

    def __reduce__(self) -> Never:
        raise TypeError("what holds keys is never copied or serialised")


def _checked(spec: Spec) -> dict[str, str]:
    if spec.name == SEAL_TYPE:
        raise _shamir_stays()
    if not NAME_PATTERN.fullmatch(spec.name):
        raise InvalidArgument(f"a provider's name is {NAME_RULE}", field="name")
    kind = TYPES.get(spec.type)
    if kind is None:
        raise InvalidArgument(f"the type is one of {', '.join(TYPES)}", field="type")
    if not 1 <= spec.priority <= PRIORITY_MAX:
        raise InvalidArgument(f"the priority is from 1 (tried first) to {PRIORITY_MAX}", field="priority")
    return kind.checked(spec.parameters)


def _shamir_stays() -> InvalidArgument:
    return InvalidArgument("the Shamir seal is always there, and its shares always unseal", field="name")


def _refused(name: str, error: ProviderError) -> FailedPrecondition:
    return FailedPrecondition(
        f"nothing was changed, because provider {name} did not pass ({error.health.value}): {error.message}",
        details={"health": error.health.value},
    )


def _opens(root_key: bytes, keyring: Record) -> bool:
    try:
        Keyring.unwrap(keyring.value, root_key).close()
    except Corruption:
        return False
    return True


def _wrap_proved(
    root_key: bytes,
    keyring: Record,
    wrapping_key: bytes,
    sealed_key: bytes,
    binding: Binding,
    random_bytes: Callable[[int], bytes],
) -> bytes:
    if not _opens(root_key, keyring):
        raise Conflict("the cluster's root key is being replaced: try again")
    wrap = envelope.seal(root_key, wrapping_key, sealed_key, binding, random_bytes)
    assert envelope.same(envelope.unseal(wrap, wrapping_key, binding), root_key)
    return wrap
