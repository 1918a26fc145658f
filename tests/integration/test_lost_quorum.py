"""The runbook for a quorum that is lost for good, with real nodes: what the survivors had is there again, and a node
that was given up does not come back."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.running import Running, eventually, running_cluster

from holdfast.client.local import LocalNode, free_ports

CLUSTER = "local"


def recover(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`holdfast operator raft recover`, as a person types it."""
    return subprocess.run(
        [sys.executable, "-m", "holdfast.client.cli.main", "operator", "raft", "recover", *arguments],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture
def served() -> Iterator[Running]:
    with running_cluster(5) as running:
        yield running


def new_node(served: Running, node_id: str) -> LocalNode:
    api, peer, metrics = free_ports(3)
    node = LocalNode(node_id, served.cluster.directory / node_id, api, peer, metrics)
    served.cluster.add_node_files(node, founding=False)
    return node


def add(served: Running, to: LocalNode, node: LocalNode) -> None:
    served.cluster.nodes.append(node)
    node.start()
    served.cluster.wait_listening()
    with served.client(to.api_address) as client:
        eventually(
            lambda: client.raft.join(node.node_id, cluster_address=node.cluster_address, api_address=node.api_address),
            f"{node.node_id} joins",
        )
        eventually(
            lambda: any(p.node_id == node.node_id and p.voter for p in client.raft.list_peers().peers),
            f"{node.node_id} votes",
        )
    served.unseal(node)


def test_two_of_five_survive_and_the_cluster_goes_on_from_the_better_one(served: Running, tmp_path: Path) -> None:
    cluster = served.cluster
    leader = cluster.wait_serving()
    others = [node for node in cluster.nodes if node is not leader]
    behind, best, *lost = [*others, leader]

    with served.client() as client:
        for number in range(20):
            client.kv.put(f"early/{number}", {"value": number})
        behind.kill()
        for number in range(20):
            client.kv.put(f"late/{number}", {"value": number})
        applied = client.raft.list_peers().commit_index
        with served.client(best.api_address) as direct:
            eventually(lambda: direct.kv.get("late/19"), "the best survivor has everything")
    reported = recover("inspect", f"-data-dir={best.data_dir}")
    assert reported.returncode == 1
    assert "in use" in reported.stderr

    keepsake = tmp_path / "lost"
    for node in lost:
        node.kill()
        shutil.copytree(node.data_dir, keepsake / node.node_id)
        shutil.rmtree(node.data_dir)
    best.kill()

    # One machine's survivor comes as a report, the other as a folder.
    report = tmp_path / "behind.json"
    assert recover("inspect", f"-data-dir={behind.data_dir}", f"-out={report}").returncode == 0
    shown = recover("plan", f"-data-dir={best.data_dir}", str(report), "-format=json")
    assert shown.returncode == 0, shown.stderr
    plan = json.loads(shown.stdout)["data"]
    assert plan["recover_from"] == best.node_id
    assert {member["node_id"] for member in plan["given_up"]} == {node.node_id for node in lost}
    assert plan["may_lose_acknowledged"] is True
    assert plan["kept_to_index"] >= applied
    assert [s["node_id"] for s in plan["survivors"]] == [best.node_id, behind.node_id]
    assert plan["survivors"][1]["missing_entries"] > 0

    unasked = recover("apply", f"-data-dir={best.data_dir}", str(report))
    assert (unasked.returncode, f"--confirm {CLUSTER}" in unasked.stderr) == (1, True)
    misnamed = recover("apply", f"-data-dir={best.data_dir}", str(report), "-confirm=another")
    assert (misnamed.returncode, "not the cluster's name" in misnamed.stderr) == (1, True)
    best_report = tmp_path / "best.json"
    assert recover("inspect", f"-data-dir={best.data_dir}", f"-out={best_report}").returncode == 0
    elsewhere = recover("apply", f"-data-dir={behind.data_dir}", str(best_report), f"-confirm={CLUSTER}")
    assert (elsewhere.returncode, "its data folder is not here" in elsewhere.stderr) == (1, True)
    done = recover("apply", f"-data-dir={best.data_dir}", str(report), f"-confirm={CLUSTER}")
    assert done.returncode == 0, done.stderr
    assert f"{best.node_id} is the only member now" in done.stdout

    cluster.nodes = [best]
    served.restart([best])
    cluster.wait_serving()
    with served.client(best.api_address) as client:
        for name in ("early", "late"):
            for number in range(20):
                assert client.kv.get(f"{name}/{number}").data == {"value": number}
        assert [peer.node_id for peer in client.raft.list_peers().peers] == [best.node_id]
        client.kv.put("after/1", {"value": "new"})

    # The other survivor, started as it is, is told that it was given up; so is a lost node whose disk turns up again.
    shutil.copytree(keepsake / lost[0].node_id, lost[0].data_dir)
    for node in (behind, lost[0]):
        node.start()
        assert node.wait(60) == 70
        assert "recovered from a lost quorum without this node" in node.log_tail()
        node.start()
        assert node.wait(60) == 1
        assert "join it as a new one" in node.log_tail()

    # The survivor comes back empty under its name, the machines in place of the lost ones under new names.
    shutil.rmtree(behind.data_dir)
    behind_config = behind.config_file.read_text()

    config = yaml.safe_load(behind_config)
    config["cluster"]["initial_members"] = []
    behind.config_file.write_text(yaml.safe_dump(config))
    add(served, best, behind)
    add(served, best, new_node(served, "node-6"))
    with served.client() as client:
        client.kv.put("after/2", {"value": "three nodes"})
        best.kill()
        eventually(lambda: client.kv.get("late/7").data == {"value": 7}, "the others serve it")
        assert client.kv.get("after/2").data == {"value": "three nodes"}
