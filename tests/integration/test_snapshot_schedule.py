"""Snapshots by the clock, of three real nodes, to a folder and to a real S3 server's port."""

import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer
from support.running import Running, eventually, running_cluster

from holdfast.client.local import LocalCluster, LocalNode, free_ports
from holdfast.client.snapshot_files import inspect

INTERVAL_S = 10


def configure(cluster: LocalCluster, **snapshots: object) -> None:
    for node in cluster.nodes:
        config = yaml.safe_load(node.config_file.read_text())
        config["snapshots"] = {"interval": f"{INTERVAL_S}s", **snapshots}
        node.config_file.write_text(yaml.safe_dump(config))


def metric(running: Running, node: LocalNode, name: str) -> float:
    context = ssl.create_default_context(cafile=str(running.cluster.ca_file))
    with urllib.request.urlopen(f"https://{node.metrics_address}/metrics", context=context, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


@pytest.mark.timeout(300)
def test_the_leader_saves_by_the_clock_and_keeps_so_many_whoever_leads(tmp_path: Path) -> None:
    with running_cluster(prepare=lambda cluster: configure(cluster, target=str(tmp_path / "kept"), keep=2)) as running:
        with running.client() as client:
            client.kv.put("scheduled/one", {"value": 1})
            eventually(lambda: client.snapshots.list().snapshots, "the first snapshot is there")
            first = client.snapshots.list().snapshots[0]
            leader = running.cluster.wait_serving()
            assert metric(running, leader, "holdfast_snapshot_last_success_timestamp_seconds") > time.time() - 120
            assert metric(running, leader, "holdfast_snapshot_last_size_bytes") == first.size
            assert metric(running, leader, "holdfast_snapshot_failures_total") == 0
            for _ in range(3):  # leaders that change make no more of them
                client.sys.step_down()
                running.cluster.wait_serving()
            names: set[str] = set()

            def removed() -> bool:
                now = {one.name for one in client.snapshots.list().snapshots}
                names.update(now)
                return len(names) >= 4

            began = time.time()
            eventually(removed, "four were made", deadline_s=120)
            assert time.time() - began > 1.5 * INTERVAL_S, "no storm"
            eventually(lambda: len(client.snapshots.list().snapshots) == 2, "two are kept")
            newest = client.snapshots.list().snapshots[0]
        info = inspect(tmp_path / "kept" / newest.name)
        assert info.metadata.index == newest.index
        assert not list((tmp_path / "kept").glob(".*"))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (port,) = free_ports(1)
    for name, value in (("ACCESS_KEY_ID", "known-id"), ("SECRET_ACCESS_KEY", "known-secret")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.mark.timeout(300)
def test_snapshots_go_to_an_s3_store_and_failures_are_counted_until_they_do(s3: str, tmp_path: Path) -> None:
    place = {"endpoint": s3, "region": "us-east-1", "path_style": True}
    with running_cluster(1, prepare=lambda c: configure(c, target="s3://vault/nightly", s3=place)) as running:
        node = running.cluster.nodes[0]
        eventually(lambda: metric(running, node, "holdfast_snapshot_failures_total") > 0, "there is no such bucket yet")
        bucket = boto3.client("s3", endpoint_url=s3, region_name="us-east-1")
        bucket.create_bucket(Bucket="vault")
        with running.client() as client:
            found = eventually(lambda: client.snapshots.list().snapshots, "one is there", deadline_s=120)
            assert client.snapshots.list().target == "s3://vault/nightly"
            bucket.download_file("vault", f"nightly/{found[0].name}", str(tmp_path / "back.hfsnap"))
            assert inspect(tmp_path / "back.hfsnap").metadata.index == found[0].index
            client.kv.put("after", {"value": 1})
            client.snapshots.restore(tmp_path / "back.hfsnap")
        log = node.log_file.read_text()
        assert "scheduled_snapshot_failed" in log
        assert "NoSuchBucket" in log
        assert "known-id" not in log
        assert "known-secret" not in log
