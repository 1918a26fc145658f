"""The cluster's keys as a scrape of the leader sees them. Other nodes, and a sealed one, show nothing of it."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast.cluster.seal.keeper import KeyKeeper


class KeyCollector(Collector):
    """Read off the keeper at each scrape."""

    def __init__(self, keeper: KeyKeeper) -> None:
        self._keeper = keeper

    def collect(self) -> Iterator[Metric]:
        seen = self._keeper.seen
        if seen is None:
            return
        gauges: list[tuple[str, str, float]] = [
            ("key_term", "The key term that encrypts.", seen.term),
            ("key_terms", "Key terms that the keyring holds.", seen.terms),
            ("key_encryptions_reserved", "Encryptions reserved under the term, by all nodes.", seen.encryptions),
        ]
        if seen.reencryption is not None:
            at = seen.reencryption
            gauges += [
                ("reencryption_under_way", "1 while data is brought under the key term.", not at.finished_ms),
                ("reencryption_scanned_records", "Records that the latest pass has seen.", at.scanned),
                ("reencryption_rewritten_records", "Records that the latest pass has rewritten.", at.rewritten),
            ]
        for name, text, number in gauges:
            yield GaugeMetricFamily(f"holdfast_{name}", text, value=float(number))
