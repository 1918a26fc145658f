"""What surrounds a node's seal: the watch over its quorum, the unseal providers, and the hand-over of the root key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from holdfast.cluster.peer.calls import PeerCalls
from holdfast.cluster.raft.consensus import Consensus
from holdfast.cluster.seal.keeper import KeyKeeper
from holdfast.cluster.seal.providers.contract import ProviderError
from holdfast.cluster.seal.providers.keeper import ProviderKeeper
from holdfast.cluster.seal.providers.wraps import ProviderWraps
from holdfast.cluster.seal.quorum_guard import QuorumGuard
from holdfast.cluster.seal.receiving import KeyReceiver
from holdfast.cluster.seal.removal_guard import RemovalGuard
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.sharing import KeyGiver, Result
from holdfast.proto.errors import FailedPrecondition, Fatal, NotFound
from holdfast.server.config import SealSettings
from holdfast.server.key_metrics import KeyCollector
from holdfast.server.metrics import Metrics
from holdfast.server.provider_entries import ProviderEntries
from holdfast.server.seal_provider_metrics import SealProviderCollector
from holdfast.storage.barrier import Barrier


class Sealing:
    """The seal of one node, as its configuration wants it. event: takes the name and the members of an audit event.
    trusts: see KeyGiver. config_file: where the settings came from. clock: see QuorumGuard. wall_clock: Unix time in
    seconds.

    Public: `wraps` and `providers`, for the service that changes and shows them."""

    def __init__(
        self,
        settings: SealSettings,
        *,
        node_id: str,
        seal: SealManager,
        consensus: Consensus,
        calls: PeerCalls,
        metrics: Metrics,
        config_file: Path | None = None,
        event: Callable[..., None],
        trusts: Callable[[str], Awaitable[bool]],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        self._removal = RemovalGuard(seal, consensus)
        self._guard = QuorumGuard(
            seal,
            consensus,
            enabled=settings.seal_on_quorum_loss,
            grace_s=settings.grace_s,
            clock=clock,
            on_sealed=metrics.sealed_on_quorum_loss,
        )

        def handed_over(why: str, receiver: str, outcome: str) -> None:
            metrics.root_key_handover(why, outcome)
            event("root_key_handover", why=why, receiver=receiver, outcome=outcome)

        self._giver = KeyGiver(
            seal,
            consensus,
            calls,
            node_id=node_id,
            share_with_peers=settings.shares_with_peers,
            clock=clock,
            check=self._guard.check,
            trusts=trusts,
            on_handover=handed_over,
        )
        self.wraps = ProviderWraps(
            seal,
            consensus,
            node_id=node_id,
            credentials=ProviderEntries(settings.providers, config_file),
            wall_clock=wall_clock,
            random_bytes=random_bytes,
        )
        self.providers = ProviderKeeper(
            self.wraps,
            seal,
            consensus,
            interval_s=settings.check_interval_s,
            wall_clock=wall_clock,
            clock=clock,
            random_bytes=random_bytes,
            on_unsealed=lambda name, kind: event("unsealed_by_provider", provider=name, provider_type=kind),
            on_fatal=on_fatal,
        )
        self._keys = KeyKeeper(
            consensus,
            seal,
            random_bytes=random_bytes,
            wall_clock=wall_clock,
            on_fatal=on_fatal,
            on_rotation=lambda term, why: event("keyring_rotated", term=term, why=why),
        )
        metrics.add_collector(KeyCollector(self._keys))
        metrics.add_collector(SealProviderCollector(lambda: self.providers.statuses))
        self._receiver = KeyReceiver(
            seal,
            consensus,
            calls,
            node_id=node_id,
            ask=settings.asks_peers,
            first=self.providers.unseal if settings.on_quorum_return == "auto" else None,
            lost_quorum=lambda: self._guard.lost_quorum,
            clock=clock,
            random_bytes=random_bytes,
            on_fatal=on_fatal,
        )

    def start(self) -> None:
        """Watch, and ask for the key where that is configured. Call once, when the seal was loaded."""
        self._guard.start()
        self._removal.start()
        self.providers.start()
        self._keys.start()
        self._receiver.start()

    async def stop(self) -> None:
        """Watch and ask no more. May be called again, and without `start`."""
        await self._receiver.stop()
        await self._keys.stop()
        await self.providers.stop()
        self._removal.stop()
        self._guard.stop()

    @property
    def barrier(self) -> Barrier:
        """See QuorumGuard."""
        return self._guard.barrier

    def check(self) -> None:
        """See QuorumGuard."""
        self._guard.check()

    async def recover_root_key(self, name: str) -> bytes:
        """The root key, opened anew by an unseal provider. Raises NotFound, and FailedPrecondition when the provider
        does not open it now."""
        record = (await self.wraps.stored()).find(name)
        if record is None:
            raise NotFound("there is no such seal provider: `holdfast operator seal-provider list` shows them")
        try:
            return await self.wraps.recover(record)
        except ProviderError as error:
            raise FailedPrecondition(f"the seal provider does not open the root key: {error.message}") from None

    async def unseal_members(self) -> Sequence[Result]:
        """See KeyGiver."""
        return await self._giver.unseal_members()
