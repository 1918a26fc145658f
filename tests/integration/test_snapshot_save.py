"""`holdfast operator raft snapshot save` and `inspect` with three real nodes, under load."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.running import Running, Writer, running_cluster

from holdfast.client import ClientConfig, LocalError
from holdfast.client.local import LocalNode
from holdfast.client.snapshot_files import inspect


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with running_cluster() as cluster:
        yield cluster


def command(running: Running, *arguments: str, node: LocalNode | None = None) -> subprocess.CompletedProcess[str]:
    addresses = ",".join(n.api_address for n in ([node] if node else running.cluster.nodes))
    environment = {
        "HOLDFAST_ADDR": addresses, "HOLDFAST_TOKEN": running.token, "HOLDFAST_CACERT": str(running.cluster.ca_file),
        "PYTHONPATH": ":".join(sys.path),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "holdfast.client.cli.main", *arguments],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_a_snapshot_is_saved_under_load_by_every_node_and_can_be_inspected(running: Running, tmp_path: Path) -> None:
    with running.client() as client:
        for n in range(300):
            client.kv.put(f"visible-path/{n}", {"plaintext-value": "readable" * 20})
        index = client.raft.list_peers().commit_index
    config = ClientConfig(
        addresses=[node.api_address for node in running.cluster.nodes], ca_file=running.cluster.ca_file,
        token=running.token,
    )  # fmt: skip
    writer = Writer(config, "load")
    writer.start()
    for node in running.cluster.nodes:
        path = tmp_path / f"{node.node_id}.hfsnap"
        done = command(running, "operator", "raft", "snapshot", "save", "-format=json", str(path), node=node)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)["data"]
        assert told["node_id"] == node.node_id
        assert told["index"] >= index
        shown = command(running, "operator", "raft", "snapshot", "inspect", "-format=json", str(path))
        facts = json.loads(shown.stdout)["data"]
        assert (facts["index"], facts["sha256"], facts["verified"]) == (told["index"], told["sha256"], True)
        assert facts["records"]["shared"] > 300
        assert [member["node_id"] for member in facts["members"]] == ["node-1", "node-2", "node-3"]
        content = path.read_bytes()
        for word in (b"visible-path", b"plaintext-value", b"readablereadable", running.token.encode()):
            assert word not in content
        assert path.stat().st_mode & 0o077 == 0
    writer.stop()
    assert not writer.failures
    assert sorted(p.name for p in tmp_path.iterdir()) == ["node-1.hfsnap", "node-2.hfsnap", "node-3.hfsnap"]
    for node in running.cluster.nodes:
        assert not list(node.data_dir.glob("state.backup*"))


def test_a_file_is_not_overwritten_unless_forced(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "kept.hfsnap"
    path.write_bytes(b"mine")
    refused = command(running, "operator", "raft", "snapshot", "save", str(path))
    assert refused.returncode == 1
    assert "-force" in refused.stderr
    assert path.read_bytes() == b"mine"
    assert command(running, "operator", "raft", "snapshot", "save", "-force", str(path)).returncode == 0
    assert inspect(path).metadata.cluster_name == "local"


def test_damage_is_told_with_exit_code_1(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "good.hfsnap"
    with running.client() as client:
        client.snapshots.save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    told = command(running, "operator", "raft", "snapshot", "inspect", str(path))
    assert told.returncode == 1
    assert "damaged" in told.stderr
    with pytest.raises(LocalError, match="damaged"):
        inspect(path)


def test_nobody_without_a_token_saves(running: Running, tmp_path: Path) -> None:
    with running.cluster.client(token="") as client, pytest.raises(Exception, match="token"):
        client.snapshots.save(tmp_path / "no.hfsnap")
    assert not list(tmp_path.iterdir())
