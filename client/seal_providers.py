"""`client.seal_providers`: the unseal providers, for the blocking and the asyncio client. Every call needs a token with
`sudo`; what any call may raise is said in `api.py`."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.client.api import Run
from holdfast.client.api_aio import RunAsync, documented_as
from holdfast.client.calls import seal_provider
from holdfast.client.seal_provider_results import SealProvider, SealProviderList, SealProviderTest


class SealProviders:
    """Further wraps of the root key, each under a key that something outside the cluster holds."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def add(self, name: str, *, type: str, priority: int, parameters: Mapping[str, str]) -> SealProvider:  # noqa: A002
        """Have a provider wrap the root key, see it unwrap again, and store the wrap.

        priority: 1 to 1000; the lowest is tried first. parameters: where it is and which key it uses; nothing secret.
        Raises AlreadyExists; FailedPrecondition when the provider did not pass, and nothing was changed.

            client.seal_providers.add("kms", type="awskms", priority=1, parameters={"key_id": "alias/holdfast"})
        """
        return self._run(seal_provider.add(name, type, priority, parameters))

    def remove(self, name: str) -> None:
        """Forget a provider's wrap. Raises NotFound.

        client.seal_providers.remove("kms")
        """
        self._run(seal_provider.remove(name))

    def list(self) -> SealProviderList:
        """Every provider, and how each member found it when it last asked it.

        names = [provider.name for provider in client.seal_providers.list().providers]
        """
        return self._run(seal_provider.list_())

    def test(self, name: str) -> SealProviderTest:
        """Have the first address check a provider now. Raises NotFound.

        assert client.seal_providers.test("kms").provider.health == "healthy"
        """
        return self._run(seal_provider.test(name))


class AsyncSealProviders:
    """`SealProviders` of the blocking client, to be awaited."""

    def __init__(self, run: RunAsync) -> None:
        self._run = run

    @documented_as(SealProviders.add)
    async def add(
        self,
        name: str,
        *,
        type: str,  # noqa: A002
        priority: int,
        parameters: Mapping[str, str],
    ) -> SealProvider:
        return await self._run(seal_provider.add(name, type, priority, parameters))

    @documented_as(SealProviders.remove)
    async def remove(self, name: str) -> None:
        await self._run(seal_provider.remove(name))

    @documented_as(SealProviders.list)
    async def list(self) -> SealProviderList:
        return await self._run(seal_provider.list_())

    @documented_as(SealProviders.test)
    async def test(self, name: str) -> SealProviderTest:
        return await self._run(seal_provider.test(name))
