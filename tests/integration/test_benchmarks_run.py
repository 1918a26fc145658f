"""The benchmark runners work and tell what they promise; what they measure is nobody's business here."""

import json
import subprocess
import sys

import pytest


def bench(*arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "holdfast.benchmarks", *arguments], capture_output=True, text=True, timeout=240
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_consensus_is_measured_and_told_in_json() -> None:
    few = ["-operations=20", "-seconds=0.2", "-at-once=5", "-kills=1", "-snapshots=1", "-state-mib=2"]
    told = json.loads(bench("consensus", *few, "-format=json"))
    assert set(told) == {"machine", "runs", "failovers_s", "snapshots_s", "targets"}
    assert {"cores", "cpu", "file_system", "in_memory", "fsync_p50_ms", "load_before", "load_after"} <= set(
        told["machine"]
    )
    assert len(told["runs"]) == 7
    for run in told["runs"]:
        assert set(run) == {"name", "operations", "failures", "p50_ms", "p95_ms", "p99_ms", "per_second"}
        assert run["operations"] > 0
    assert len(told["failovers_s"]) == len(told["snapshots_s"]) == 1
    assert all(took > 0 for took in told["failovers_s"] + told["snapshots_s"])
    assert len(told["targets"]) == 5
    assert all(target["ratio"] > 0 for target in told["targets"])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_requests_are_measured_and_told_in_json() -> None:
    told = json.loads(bench("requests", "--operations=5", "--seconds=0.2", "--clients=2", "--format=json"))
    assert len(told["runs"]) == 8
    assert all(run["operations"] > 0 and run["failures"] == 0 for run in told["runs"])
