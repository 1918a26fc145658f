"""What tests of seal providers share."""

import asyncio
import itertools
from collections.abc import Callable, Collection
from typing import Literal

import pytest

from holdfast.cluster.seal.providers.catalogue import TYPES
from holdfast.cluster.seal.providers.contract import Binding, Health, Provider, ProviderError
from holdfast.cluster.seal.providers.credentials import AgeCredentials, Credentials
from holdfast.cluster.seal.providers.orders import Order
from holdfast.cluster.seal.providers.processes import ProviderProcesses
from holdfast.cluster.seal.providers.wraps import Spec

KEY = bytes(range(32))


def binding_of(kind: str, *, cluster_id: str = "c-1", name: str = "one") -> Binding:
    return Binding(cluster_id=cluster_id, name=name, type=kind)


def failure_of(provider: Provider, binding: Binding, blob: bytes | None = None, *, secret: str = "") -> ProviderError:
    """How wrapping fails, or with a blob, unwrapping it. No message holds the secret."""

    def attempt() -> bytes:
        return provider.wrap(KEY, binding) if blob is None else provider.unwrap(blob, binding)

    with pytest.raises(ProviderError) as caught:
        attempt()
    assert not secret or secret not in caught.value.message
    return caught.value


class Vault:
    """A provider that a test holds in its hand: XOR under a key. It keeps no secret; who is asked when is what counts.

    key: changes what it opens. failing: raised instead of an answer. gate: when set, its calls wait for it. answering:
    takes the place of the answer to that operation.
    """

    def __init__(self) -> None:
        self.key = 0x5A
        self.failing: ProviderError | None = None
        self.gate: asyncio.Event | None = None
        self.answering: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.given: list[bytes] = []

    async def answer(self, order: Order) -> bytes:
        self.calls.append(order.operation)
        self.given.append(order.data)
        if self.gate is not None:
            await self.gate.wait()
        if self.failing is not None:
            raise self.failing
        return self.answering.get(order.operation, bytes(byte ^ self.key for byte in order.data))


class Vaults:
    """ProviderCalls without processes: a vault for each name, whatever its type."""

    def __init__(self, timeout_s: float = 30.0) -> None:
        self.vaults: dict[str, Vault] = {}
        self.kept: set[str] = set()
        self._timeout_s = timeout_s

    def __getitem__(self, name: str) -> Vault:
        return self.vaults.setdefault(name, Vault())

    async def run(self, order: Order) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self[order.name].answer(order)
        except TimeoutError:
            raise ProviderError(Health.TIMEOUT, "it did not answer") from None

    def keep(self, names: Collection[str]) -> None:
        self.kept = set(names)


class ByProcess:
    """A Provider whose calls go through real processes, as a node's do."""

    def __init__(
        self, kind: str, parameters: dict[str, str], credentials: Credentials, *, timeout_s: float = 30
    ) -> None:
        self._kind, self._parameters, self._credentials = kind, TYPES[kind].checked(parameters), credentials
        self._processes = ProviderProcesses(timeout_s=timeout_s)

    def wrap(self, key: bytes, binding: Binding) -> bytes:
        return self._run("wrap", key, binding)

    def unwrap(self, blob: bytes, binding: Binding) -> bytes:
        return self._run("unwrap", blob, binding)

    def _run(self, operation: Literal["wrap", "unwrap"], data: bytes, binding: Binding) -> bytes:
        order = Order(
            name="one", type=self._kind, parameters=self._parameters, credentials=self._credentials,
            operation=operation, data=data, binding=binding,
        )  # fmt: skip
        return asyncio.run(self._processes.run(order))


def entries(*names: str) -> dict[str, Credentials]:
    """A node's credentials for vaults of these names."""
    return {name: AgeCredentials(identity_file="none") for name in names}


def spec(name: str, priority: int = 1) -> Spec:
    return Spec(name=name, type="age", priority=priority, parameters={})


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something is so; whoever calls has a deadline."""
    for _ in itertools.count():
        if condition():
            return
        await asyncio.sleep(0.01)
