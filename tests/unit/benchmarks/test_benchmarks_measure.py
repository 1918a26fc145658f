"""Latencies to figures, and figures to ratios."""

from pathlib import Path

import pytest

from holdfast.benchmarks.machine import file_system
from holdfast.benchmarks.measure import Target, figures, percentile, targets_table


def test_percentiles_are_by_nearest_rank() -> None:
    ordered = [float(n) for n in range(1, 101)]
    assert [percentile(ordered, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.5) == 7


def test_figures_are_in_milliseconds_and_per_second() -> None:
    made = figures("x", [0.004, 0.002, 0.001], 1, 2.0)
    assert (made.operations, made.failures, made.p50_ms, made.p99_ms, made.per_second) == (3, 1, 2.0, 4.0, 1.5)


def test_a_target_is_reached_from_one_on_whichever_way_it_runs() -> None:
    assert Target("ops", 30.0, 15.0, more_is_better=True).ratio == 2
    assert Target("ms", 1.0, 2.0, more_is_better=False).ratio == 2
    assert Target("ms", 4.0, 2.0, more_is_better=False).ratio == pytest.approx(0.5)
    assert "0.50x" in targets_table([Target("ms", 4.0, 2.0, more_is_better=False)])


def test_the_file_system_of_a_folder_is_told() -> None:
    assert file_system(Path("/proc/self")).startswith("proc on ")
    assert " on " in file_system(Path("/"))
