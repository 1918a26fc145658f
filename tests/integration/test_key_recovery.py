"""Keepers have lost their shares and a provider gives new ones; and seals are exchanged while the cluster serves."""

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest
import yaml
from support.running import Running, Writer, assert_nothing_lost, eventually, running_cluster

from holdfast.client import ClientConfig, errors
from holdfast.client.cli.app import App
from holdfast.client.cli.main import run
from holdfast.client.local import LocalCluster, LocalNode

PROVIDERS = ("old", "new")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("identities")
    files: dict[str, Path] = {}
    for name in PROVIDERS:
        files[name] = folder / name
        files[name].write_text(f"{pyrage.x25519.Identity.generate()}\n")
        files[name].chmod(0o600)

    def prepare(cluster: LocalCluster) -> None:
        for node in cluster.nodes:
            config = yaml.safe_load(node.config_file.read_text())
            providers = {name: {"type": "age", "identity_file": str(file)} for name, file in files.items()}
            config["seal"] = {"on_quorum_return": "auto", "providers": providers}
            node.config_file.write_text(yaml.safe_dump(config))

    with running_cluster(3, prepare=prepare) as cluster:
        yield cluster


def operator(running: Running, home: Path, *arguments: str, stdin: str = "", code: int = 0) -> str:
    environment = {
        "HOLDFAST_ADDR": ",".join(running.cluster.addresses),
        "HOLDFAST_CACERT": str(running.cluster.ca_file),
        "HOLDFAST_TOKEN": running.token,
    }
    out, was = io.StringIO(), sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            ended = run(["operator", *arguments], App(environment=environment, home=home))
    finally:
        sys.stdin = was
    assert ended == code, out.getvalue()
    return out.getvalue()


def sealed(running: Running, node: LocalNode) -> bool:
    with running.client(node.api_address, timeout_s=5) as client:
        return client.sys.seal_status().sealed


@pytest.mark.timeout(300)
def test_a_provider_and_a_token_make_a_new_set_when_the_shares_are_lost(running: Running, tmp_path: Path) -> None:
    operator(running, tmp_path, "seal-provider", "add", "-type=age", "-name=old")
    lost = running.shares
    refused = operator(running, tmp_path, "rekey", "-init", "-recover-from=old", code=1)
    assert "-yes" in refused
    flags = ("-init", "-key-shares=3", "-key-threshold=2", "-recover-from=old", "-yes", "-format=json")
    made = json.loads(operator(running, tmp_path, "rekey", *flags))
    assert made["in_force"] == "pending"
    operator(running, tmp_path, "rekey", "-verify", "-", stdin=made["keys"][1])
    assert "in force" in operator(running, tmp_path, "rekey", "-verify", "-", stdin=made["keys"][0])
    node = running.cluster.nodes[0]
    with running.client(node.api_address) as client:
        client.sys.seal()
        with pytest.raises(errors.ShareRejected):
            client.sys.unseal(lost[0])
        for share in made["keys"][1:]:
            client.sys.unseal(share)
        eventually(lambda: not client.sys.seal_status().sealed, "the new shares unseal")
    running.shares = made["keys"]


@pytest.mark.timeout(300)
def test_a_cluster_changes_its_kind_of_seal_while_it_serves(running: Running, tmp_path: Path) -> None:
    config = ClientConfig(
        addresses=running.cluster.addresses, ca_file=running.cluster.ca_file, token=running.token, timeout_s=60
    )
    writers = [Writer(config, f"migrating-{number}") for number in range(2)]
    for writer in writers:
        writer.start()
    operator(running, tmp_path, "seal-provider", "add", "-type=age", "-name=new")
    operator(running, tmp_path, "seal-provider", "test", "new")
    operator(running, tmp_path, "seal-provider", "remove", "old", "-yes")
    for node in running.cluster.nodes:
        node.kill()
        node.start()
        running.cluster.wait_listening()
        eventually(lambda node=node: not sealed(running, node), f"{node.node_id} is unsealed by the new provider")
        eventually(lambda node=node: serves(running, node), f"{node.node_id} serves again")
    for writer in writers:
        writer.stop()
    assert not [failure for writer in writers for failure in writer.failures]
    with running.client() as client:
        assert sum(assert_nothing_lost(client, writer) for writer in writers) > 0


def serves(running: Running, node: LocalNode) -> bool:
    with running.client(node.api_address, timeout_s=5) as client:
        client.kv.put("kept", {"value": "kept"})
        return client.kv.get("kept").data == {"value": "kept"}
