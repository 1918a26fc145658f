"""Latencies to figures. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """One measured run: latencies in milliseconds, throughput in operations per second."""

    name: str
    operations: int
    failures: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    per_second: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of ascending values; `share` is between 0 and 1."""
    assert ordered
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def figures(name: str, latencies_s: Sequence[float], failures: int, wall_s: float) -> Figures:
    """The figures of a run that took `wall_s` seconds. `latencies_s`: of the operations that succeeded."""
    ordered = sorted(latencies_s)
    p50, p95, p99 = (percentile(ordered, share) * 1000 if ordered else float("nan") for share in (0.5, 0.95, 0.99))
    return Figures(name, len(ordered), failures, p50, p95, p99, len(ordered) / wall_s if wall_s else 0.0)


def table(rows: Sequence[Figures]) -> str:
    """A table for people."""
    lines = [f"{'run':<34}{'ops':>8}{'failed':>8}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'ops/s':>9}"]
    lines += [
        f"{row.name:<34}{row.operations:>8}{row.failures:>8}"
        f"{row.p50_ms:>9.2f}{row.p95_ms:>9.2f}{row.p99_ms:>9.2f}{row.per_second:>9.0f}"
        for row in rows
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Target:
    """A figure beside what it should be."""

    name: str
    measured: float
    target: float
    more_is_better: bool

    @property
    def ratio(self) -> float:
        """How much of the target is reached; 1 or more is all of it, whichever way the figure runs."""
        better, worse = (self.measured, self.target) if self.more_is_better else (self.target, self.measured)
        return better / worse


def targets_table(targets: Sequence[Target]) -> str:
    """A table for people."""
    lines = [f"{'target':<52}{'measured':>12}{'target':>10}{'reached':>9}"]
    lines += [f"{t.name:<52}{t.measured:>12.2f}{t.target:>10.2f}{t.ratio:>8.2f}x" for t in targets]
    return "\n".join(lines)
