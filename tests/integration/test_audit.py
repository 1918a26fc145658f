"""Audit on three nodes: whatever is served is recorded, sealing too, and what was recorded can be proved whole."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.running import Running, eventually, running_cluster

from holdfast.client.cli.app import App
from holdfast.client.cli.main import run

VALUE = "planted-value-4711"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def running(logs: Path) -> Iterator[Running]:
    with running_cluster() as cluster:
        for node in cluster.cluster.nodes:
            (logs / node.node_id).mkdir()
        assert holdfast(cluster, "audit", "enable", "file", f"file_path={logs}/{{node_id}}/audit.log") == 0
        yield cluster


def holdfast(running: Running, *arguments: str) -> int:
    environment = {
        "HOLDFAST_ADDR": ",".join(node.api_address for node in running.cluster.nodes),
        "HOLDFAST_CACERT": str(running.cluster.ca_file),
        "HOLDFAST_TOKEN": running.token,
    }
    return run(arguments, App(environment))


def lines(logs: Path, *node_ids: str) -> list[dict[str, Any]]:
    folders = [logs / node_id for node_id in node_ids] or sorted(logs.iterdir())
    return [json.loads(line) for folder in folders for line in (folder / "audit.log").read_text().splitlines()]


def test_every_request_is_in_the_log_of_a_node_and_no_value_is(running: Running, logs: Path) -> None:
    for number, node in enumerate(running.cluster.nodes):
        with running.client(node.api_address) as client:
            client.kv.put(f"audited/{number}", {"password": VALUE})
            assert client.kv.get(f"audited/{number}").data == {"password": VALUE}
    for number in range(3):
        path = f"secret/data/audited/{number}"
        found = [
            (line["type"], line["request"]["operation"])
            for line in lines(logs)
            if line["type"] != "event" and line["request"]["path"] == path
        ]
        for kind in ("request", "response"):
            assert (kind, "update") in found
            assert (kind, "read") in found
    assert VALUE not in "".join(file.read_text() for file in logs.glob("*/audit.log"))
    assert running.token not in "".join(file.read_text() for file in logs.glob("*/audit.log"))


def test_sealing_and_unsealing_are_events_of_the_node(running: Running, logs: Path) -> None:
    node = next(node for node in running.cluster.nodes if node is not running.cluster.leader())
    with running.client(node.api_address) as client:
        client.kv.get("audited/0")
        client.sys.seal()
    running.unseal(node)

    def events() -> list[str]:
        return [line["event"] for line in lines(logs, node.node_id) if line["type"] == "event"]

    eventually(lambda: events()[-2:] == ["sealed", "unsealed"], "both events are recorded")


def test_the_chain_survives_kill_9_and_shows_what_was_removed(
    running: Running, logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = running.cluster.leader()
    with running.client(node.api_address) as client:
        for number in range(20):
            client.kv.put("chained", {"n": number})
    node.kill()
    running.restart([node])
    running.cluster.wait_serving()
    with running.client(node.api_address) as client:
        client.kv.get("chained")
    log = logs / node.node_id / "audit.log"
    copy = tmp_path / "audit.log"
    shutil.copy(log, copy)
    assert holdfast(running, "audit", "verify", "-format=json", str(copy)) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["valid"]
    assert shown["complete_from_start"]
    assert shown["lines"] > 40

    whole = copy.read_bytes().splitlines(keepends=True)
    for spoiled in (
        [*whole[:20], *whole[21:]],  # removed
        [*whole[:20], whole[20].replace(b"chained", b"changed"), *whole[21:]],
        [*whole[:20], whole[21], whole[20], *whole[22:]],
        [*whole[:-1], whole[-1].replace(b'"type":"', b'"type": "')],  # the last one, which no other line vouches for
    ):
        copy.write_bytes(b"".join(spoiled))
        assert holdfast(running, "audit", "verify", "-format=json", str(copy)) == 2
        assert json.loads(capsys.readouterr().out)["problems"]


def test_a_leader_that_cannot_audit_hands_leadership_on(running: Running, logs: Path) -> None:
    before = running.cluster.leader()
    folder = logs / before.node_id
    folder.rename(folder.with_name("away"))
    try:
        with running.client() as client:
            eventually(lambda: client.kv.put("after", {"n": 1}), "a node that can audit takes the write")
        eventually(lambda: running.cluster.leader() is not before, "another node leads")
    finally:
        folder.with_name("away").rename(folder)
    with running.client(before.api_address) as client:
        eventually(lambda: client.kv.get("after"), "the node serves again when its device works again")
