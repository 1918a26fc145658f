"""What tests of seal providers share."""

import asyncio
import dataclasses
import itertools
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from holdfast.cluster.seal.providers.catalogue import TYPES
from holdfast.cluster.seal.providers.contract import Binding, Parameter, Provider, ProviderError, ProviderType
from holdfast.cluster.seal.providers.credentials import AgeCredentials, Credentials
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

    key: changes what it opens. failing: raised instead of an answer. gate: when set, its calls wait for it.
    """

    def __init__(self) -> None:
        self.key = 0x5A
        self.failing: ProviderError | None = None
        self.gate: threading.Event | None = None
        self.calls: list[str] = []

    def wrap(self, key: bytes, binding: Binding) -> bytes:
        return self._answer("wrap", key)

    def unwrap(self, blob: bytes, binding: Binding) -> bytes:
        return self._answer("unwrap", blob)

    def describe(self) -> Mapping[str, str]:
        return {"where": "here"}

    def _answer(self, operation: str, data: bytes) -> bytes:
        self.calls.append(operation)
        if self.gate is not None:
            self.gate.wait(60)
        if self.failing is not None:
            raise self.failing
        return bytes(byte ^ self.key for byte in data)


class Vaults:
    """The kind of provider `age` replaced by vaults, one for each recipient given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.vaults: dict[str, Vault] = {}
        kind = dataclasses.replace(
            TYPES["age"],
            parameters=(Parameter("recipient", "which vault"),),
            open=lambda parameters, _: self[parameters["recipient"]],
        )
        monkeypatch.setitem(cast("dict[str, ProviderType[Any]]", TYPES), "age", kind)

    def __getitem__(self, name: str) -> Vault:
        return self.vaults.setdefault(name, Vault())


def entries(*names: str) -> dict[str, Credentials]:
    """A node's credentials for vaults of these names."""
    return {name: AgeCredentials(identity_file="none") for name in names}


def spec(name: str, priority: int = 1) -> Spec:
    return Spec(name=name, type="age", priority=priority, parameters={"recipient": name})


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something is so; whoever calls has a deadline."""
    for _ in itertools.count():
        if condition():
            return
        await asyncio.sleep(0.01)
