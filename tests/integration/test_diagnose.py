"""`holdfast operator diagnose` beside a real cluster: all well, a node down, and a sealed node."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.running import Running, eventually, running_cluster

from holdfast.client.local import LocalNode


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with running_cluster(3) as cluster:
        yield cluster


def diagnose(node: LocalNode) -> tuple[int, dict[str, str]]:
    command = [sys.executable, "-m", "holdfast.server.main", "diagnose", "--config", str(node.config_file)]
    result = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, timeout=120)
    assert not result.stderr
    return result.returncode, {f["check"]: f["result"] for f in json.loads(result.stdout)["findings"]}


def test_a_running_cluster_is_well_and_is_not_disturbed(running: Running) -> None:
    node = running.cluster.nodes[0]

    def settled() -> bool:
        code, found = diagnose(node)
        # What depends on the machine may warn; nothing may fail, and all that is the cluster's own must pass.
        own = {result for check, result in found.items() if not check.startswith(("host.", "data_dir.", "clock."))}
        return code == 0 and own == {"pass"} and {"seal.self", "seal.node-2", "clock.node-3"} <= set(found)

    eventually(settled, "every finding of a running cluster is a pass")
    with running.client() as client:
        client.kv.put("diagnosed", {"a": 1})
    assert all("wrong" not in node.log_tail(50) for node in running.cluster.nodes)


def test_a_sealed_peer_warns_and_a_dead_one_fails(running: Running) -> None:
    first, second, third = running.cluster.nodes
    with running.client(second.api_address) as client:
        client.sys.seal()
    third.kill()
    code, found = diagnose(first)
    assert code == 1
    assert found["seal.node-2"] == "warn"
    assert found["peer.node-2.cluster"] == "pass"
    assert found["peer.node-3.cluster"] == found["peer.node-3.api"] == "fail"


def test_a_node_that_does_not_run_is_diagnosed_too_and_stays_as_it_was(running: Running) -> None:
    third = running.cluster.nodes[2]
    before = sorted(path.name for path in third.data_dir.iterdir())
    code, found = diagnose(third)
    assert code == 0
    assert {result for check, result in found.items() if check.startswith(("peer.", "port.", "certificate."))} == {
        "pass"
    }
    assert sorted(path.name for path in third.data_dir.iterdir()) == before
    running.restart([third])
    running.cluster.wait_serving()
