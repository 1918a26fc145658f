"""What the memory of a node with an unseal provider holds once it is sealed: nothing that opens the stored wrap."""

import os
import shutil
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml
from support.process_memory import find
from support.running import Running, eventually, running_cluster

from holdfast.client.local import LocalNode
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.cluster.seal.providers import envelope, records
from holdfast.storage.rocksdb import RocksStore


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sealed_node_holds_neither_the_root_key_nor_a_wrapping_key_nor_the_provider_s_secret(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        return  # only root may read the memory of a process that is not dumpable
    identity = pyrage.x25519.Identity.generate()
    key_file = tmp_path / "identity"
    key_file.write_text(f"{identity}\n")
    key_file.chmod(0o600)

    def prepare(cluster) -> None:
        for node in cluster.nodes:
            config = yaml.safe_load(node.config_file.read_text())
            config["seal"] = {
                "on_quorum_return": "auto", "provider_check_interval": "1s",
                "providers": {"dev": {"type": "age", "identity_file": str(key_file)}},
            }  # fmt: skip
            node.config_file.write_text(yaml.safe_dump(config))

    with running_cluster(1, prepare=prepare) as running:
        (node,) = running.cluster.nodes
        with running.client() as client:
            client.seal_providers.add("dev", type="age", priority=1, parameters={})
            for _ in range(5):
                assert client.seal_providers.test("dev").provider.health == "healthy"
        secrets = secrets_of(running, node, identity, tmp_path)
        assert_sealing_drops(running, node, secrets)
        # Once more in a process that a provider unsealed, so that the root key came out of the wrap there.
        node.kill()
        node.start()
        running.cluster.wait_listening()
        running.cluster.wait_serving()
        assert_sealing_drops(running, node, secrets)


def secrets_of(running: Running, node: LocalNode, identity: Any, scratch: Path) -> dict[str, bytes]:
    """What opens the cluster, made from the identity and a copy of the node's state as an attacker would."""
    with running.client() as client:
        cluster_id = client.sys.seal_status().cluster_id
    shutil.copytree(node.data_dir / "state", scratch / "state")
    store = RocksStore.open(scratch / "state")
    stored = StateMachine(store).get(records.PROVIDERS_KEY)
    assert stored is not None
    (record,) = records.decode(stored.value).providers
    store.close()
    wrapping_key = pyrage.decrypt(envelope.sealed_key(record.wrap), [identity])
    root_key = envelope.unseal(record.wrap, wrapping_key, record.binding(cluster_id))
    return {"root key": root_key, "wrapping key": wrapping_key, "identity": str(identity).encode()}


def assert_sealing_drops(running: Running, node: LocalNode, secrets: dict[str, bytes]) -> None:
    assert node.process is not None
    pid = node.process.pid
    assert find(pid, secrets)["root key"], "the search does not find the root key where it must be"
    with running.client() as client:
        client.sys.seal()
    eventually(lambda: not any(find(pid, secrets).values()), f"none of {sorted(secrets)} is in memory")
