"""The unseal providers as a scrape sees them. Labels are the names and types that operators gave them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast.cluster.seal.providers.contract import Health
from holdfast.cluster.seal.providers.health import ProviderStatus

_LABELS = ["name", "type"]


class SealProviderCollector(Collector):
    """Read off the node at each scrape. A provider that was not asked yet has no health."""

    def __init__(self, statuses: Callable[[], Sequence[ProviderStatus]]) -> None:
        self._statuses = statuses

    def collect(self) -> Iterator[Metric]:
        healthy = GaugeMetricFamily(
            "holdfast_seal_provider_healthy", "1 when the provider opened its wrap at the last attempt.", labels=_LABELS
        )
        success = GaugeMetricFamily(
            "holdfast_seal_provider_last_success_timestamp_seconds",
            "Unix time of the last attempt that succeeded, since the node was started.",
            labels=_LABELS,
        )
        duration = GaugeMetricFamily(
            "holdfast_seal_provider_check_seconds", "How long the last attempt took.", labels=_LABELS
        )
        for status in self._statuses():
            labels = [status.name, status.type]
            if status.checked_s is not None:
                healthy.add_metric(labels, float(status.health is Health.HEALTHY))
                duration.add_metric(labels, status.duration_s)
            if status.succeeded_s is not None:
                success.add_metric(labels, status.succeeded_s)
        yield from (healthy, success, duration)
