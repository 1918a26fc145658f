"""What a node measures about itself, in a Prometheus registry of its own.

Labels are method names, outcomes and the like: never a path, a mount, a token or an address of a client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast.cluster.raft.consensus import ConsensusStatus, Role

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """What a scrape sees of the node's state."""

    consensus: ConsensusStatus
    initialized: bool
    sealed: bool
    in_flight: int = 0


class _Observer(Protocol):
    def observe(self, amount: float) -> None: ...


class _Incrementer(Protocol):
    def inc(self, amount: float = 1) -> None: ...


class Metrics:
    """The instruments of one node. Label children are kept, because looking one up costs more than counting."""

    def __init__(self, *, version: str) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._requests = Counter(
            "holdfast_requests",
            "Calls answered, by method and outcome.",
            ["method", "outcome"],
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "holdfast_request_seconds",
            "Time from a call's arrival to its answer.",
            ["method"],
            buckets=LATENCY_BUCKETS_S,
            registry=self._registry,
        )
        self._forwards = Counter(
            "holdfast_forwards", "Requests forwarded to the leader, by outcome.", ["outcome"], registry=self._registry
        )
        self._proposals = Counter(
            "holdfast_proposals", "Batches proposed by this node, by outcome.", ["outcome"], registry=self._registry
        )
        self._proposal_seconds = Histogram(
            "holdfast_proposal_seconds",
            "Time from a proposal to its durable application.",
            buckets=LATENCY_BUCKETS_S,
            registry=self._registry,
        )
        self._read_barrier_seconds = Histogram(
            "holdfast_read_barrier_seconds",
            "Time a linearizable read waited to know that the local state is current.",
            buckets=LATENCY_BUCKETS_S,
            registry=self._registry,
        )
        self._audit_failures = Counter(
            "holdfast_audit_failures",
            "Entries that an audit device did not take, by device and what went wrong.",
            ["device", "error"],
            registry=self._registry,
        )
        self._quorum_loss_seals = Counter(
            "holdfast_quorum_loss_seals",
            "Times this node sealed itself because contact with a quorum was lost.",
            registry=self._registry,
        )
        self._root_key_handovers = Counter(
            "holdfast_root_key_handovers",
            "Requests for the root key that this node answered, by what they were for and outcome.",
            ["why", "outcome"],
            registry=self._registry,
        )
        self._snapshot_success = Gauge(
            "holdfast_snapshot_last_success_timestamp_seconds",
            "When this node last saved a scheduled snapshot, in Unix time; 0 before the first.",
            registry=self._registry,
        )
        self._snapshot_index = Gauge(
            "holdfast_snapshot_last_index", "The Raft index of that snapshot.", registry=self._registry
        )
        self._snapshot_bytes = Gauge(
            "holdfast_snapshot_last_size_bytes", "The size of that snapshot.", registry=self._registry
        )
        self._snapshot_seconds = Gauge(
            "holdfast_snapshot_last_duration_seconds",
            "How long that snapshot took, from the copy to its verification in its place.",
            registry=self._registry,
        )
        self._snapshot_failures = Counter(
            "holdfast_snapshot_failures", "Scheduled snapshots that this node could not save.", registry=self._registry
        )
        self._version = version
        self._by_request: dict[tuple[str, str], _Incrementer] = {}
        self._by_method: dict[str, _Observer] = {}

    def watch(self, state: Callable[[], NodeState]) -> None:
        """Have the node's state shown at each scrape."""
        self._registry.register(_StateCollector(state, self._version))

    def add_collector(self, collector: Collector) -> None:
        """Have what a room collects at each scrape shown too."""
        self._registry.register(collector)

    def request_done(self, method: str, outcome: str, seconds: float) -> None:
        """Count a call."""
        counter = self._by_request.get((method, outcome))
        if counter is None:
            counter = self._by_request[method, outcome] = self._requests.labels(method, outcome)
        counter.inc()
        histogram = self._by_method.get(method)
        if histogram is None:
            histogram = self._by_method[method] = self._request_seconds.labels(method)
        histogram.observe(seconds)

    def forward_done(self, outcome: str) -> None:
        """Count a forwarded request."""
        self._forwards.labels(outcome).inc()

    def proposal_done(self, outcome: str, seconds: float) -> None:
        """Count a proposal."""
        self._proposals.labels(outcome).inc()
        self._proposal_seconds.observe(seconds)

    def read_barrier_done(self, seconds: float) -> None:
        """Count a read barrier that was passed."""
        self._read_barrier_seconds.observe(seconds)

    def sealed_on_quorum_loss(self) -> None:
        """Count a sealing for want of a quorum."""
        self._quorum_loss_seals.inc()

    def root_key_handover(self, why: str, outcome: str) -> None:
        """Count a hand-over of the root key to another member, or a refusal."""
        self._root_key_handovers.labels(why, outcome).inc()

    def audit_failure(self, device: str, error: str) -> None:
        """Count an entry that an audit device did not take. device: the path that it is enabled at."""
        self._audit_failures.labels(device, error).inc()

    def scheduled_snapshot_saved(self, *, at_s: float, size: int, seconds: float, index: int) -> None:
        """Show a scheduled snapshot that was saved and verified."""
        self._snapshot_success.set(at_s)
        self._snapshot_bytes.set(size)
        self._snapshot_seconds.set(seconds)
        self._snapshot_index.set(index)

    def scheduled_snapshot_failed(self) -> None:
        """Count a scheduled snapshot that could not be saved."""
        self._snapshot_failures.inc()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _StateCollector:
    """Gauges that are read off the node when they are asked for, so that nothing has to keep them current."""

    def __init__(self, state: Callable[[], NodeState], version: str) -> None:
        self._state = state
        self._version = version

    def collect(self) -> Iterator[Metric]:
        state = self._state()
        consensus = state.consensus
        sessions = sum(peer.connected for peer in consensus.peers if peer.member.node_id != consensus.node_id)
        gauges: list[tuple[str, str, float]] = [
            ("term", "The Raft term.", consensus.term),
            ("last_index", "The index of the last log entry.", consensus.last_index),
            ("commit_index", "The index up to which the log is committed.", consensus.commit_index),
            ("applied_index", "The index up to which the log is applied.", consensus.applied_index),
            (
                "state_compared_index",
                "The latest index whose state a majority has too.",
                consensus.state_compared_index,
            ),
            ("state_scrubbed_index", "The index of the state last read again.", consensus.state_scrubbed_index),
            ("state_differing", "Members whose state differs from this leader's.", len(consensus.state_differing)),
            ("leader_known", "1 when a leader is known.", bool(consensus.leader_id)),
            ("quorum_contact_age_seconds", "Time since contact with a quorum.", consensus.quorum_contact_age_s),
            ("initialized", "1 when the cluster has its keys.", state.initialized),
            ("sealed", "1 when this node holds no keys.", state.sealed),
            ("peers", "Members of the cluster, this node included.", len(consensus.peers)),
            ("sessions", "Peers that this node has a session with.", sessions),
            ("requests_in_flight", "Calls being served.", state.in_flight),
        ]
        for name, text, number in gauges:
            yield GaugeMetricFamily(f"holdfast_{name}", text, value=float(number))
        role = GaugeMetricFamily("holdfast_role", "1 for the role that this node has.", labels=["role"])
        for candidate in Role:
            role.add_metric([candidate.value], float(consensus.role is candidate))
        yield role
        build = GaugeMetricFamily("holdfast_build_info", "Always 1.", labels=["version"])
        build.add_metric([self._version], 1.0)
        yield build
