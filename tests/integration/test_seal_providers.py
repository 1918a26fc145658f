"""Unseal providers under real nodes: restarts without people, outages that are seen before they hurt, and shares that
always open what no provider does."""

import contextlib
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest
import yaml
from support.moto_kms import ENVIRONMENT, REGION, MotoKms, moto_kms
from support.partition import partitionable_cluster
from support.running import Running, eventually, running_cluster
from support.softhsm import PIN, SoftHsm, make_softhsm
from support.transit_server import TransitServer, transit_server

from holdfast.client import errors
from holdfast.client.local import LocalCluster, LocalNode
from holdfast.client.results import SealStatus


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def kms() -> Iterator[MotoKms]:
    with moto_kms() as server:
        yield server


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransitServer]:
    with transit_server(tmp_path_factory.mktemp("transit")) as server:
        yield server


def private(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def identity(folder: Path) -> str:
    return private(folder / "identity", f"{pyrage.x25519.Identity.generate()}\n")


def section(providers: dict[str, Any], **more: object) -> dict[str, Any]:
    return {
        "on_quorum_return": "auto", "quorum_loss_grace": "2s", "provider_check_interval": "3s", "providers": providers,
        **more,
    }  # fmt: skip


def configure(cluster: LocalCluster, seal: dict[str, Any]) -> None:
    for node in cluster.nodes:
        config = yaml.safe_load(node.config_file.read_text())
        config["seal"] = seal
        node.config_file.write_text(yaml.safe_dump(config))


def status(running: Running, node: LocalNode) -> SealStatus:
    with running.client(node.api_address, timeout_s=5) as client:
        return client.sys.seal_status()


def health(running: Running, node: LocalNode) -> dict[str, str]:
    return {provider.name: provider.health for provider in status(running, node).seal_providers}


def metric(running: Running, node: LocalNode, name: str) -> float | None:
    context = ssl.create_default_context(cafile=str(running.cluster.ca_file))
    with urllib.request.urlopen(f"https://{node.metrics_address}/metrics", context=context, timeout=10) as answer:
        text = str(answer.read().decode())
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name + " ")), None)


def put_kept(running: Running) -> None:
    with running.client() as client:
        client.kv.put("kept", {"value": "kept"})


def await_serving(running: Running, nodes: list[LocalNode]) -> None:
    for node in nodes:
        with running.client(node.api_address) as client:
            got = eventually(lambda client=client: client.kv.get("kept"), f"{node.node_id} serves")
            assert got.data == {"value": "kept"}


def await_health(running: Running, expected: dict[str, str]) -> None:
    for node in running.cluster.nodes:
        eventually(lambda node=node: health(running, node) == expected, f"{node.node_id} finds {expected}")


def kill_and_start(running: Running) -> None:
    for node in running.cluster.nodes:
        node.kill()
    running.cluster.start()
    running.cluster.wait_listening()


def command(running: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast.client.cli.main", *arguments],
        env={
            **os.environ,
            "HOLDFAST_ADDR": ",".join(running.cluster.addresses),
            "HOLDFAST_CACERT": str(running.cluster.ca_file),
            "HOLDFAST_TOKEN": running.token,
        },
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.timeout(300)
def test_restarted_nodes_are_unsealed_by_whichever_provider_lives_and_by_the_shares_when_none_does(
    kms: MotoKms, tmp_path: Path
) -> None:
    key_file = Path(identity(tmp_path))
    seal = section({"kms": {"type": "awskms"}, "dev": {"type": "age", "identity_file": str(key_file)}})
    with running_cluster(3, prepare=lambda cluster: configure(cluster, seal)) as running:
        nodes = running.cluster.nodes
        put_kept(running)
        place = (f"key_id={kms.make_key()}", f"region={REGION}", f"endpoint={kms.endpoint}")
        for flags in (("-type=awskms", "-name=kms", "-priority=1", *place), ("-type=age", "-name=dev", "-priority=2")):
            added = command(running, "operator", "seal-provider", "add", *flags)
            assert added.returncode == 0, added.stderr
        await_health(running, {"kms": "healthy", "dev": "healthy"})

        kill_and_start(running)
        await_serving(running, nodes)
        assert all('"unsealed_by_provider"' in node.log_file.read_text() for node in nodes)

        # An outage shows before anybody needs the provider.
        since = time.time()
        kms.relay.cut()
        await_health(running, {"kms": "unreachable", "dev": "healthy"})
        for node in nodes:
            labels = '{name="kms",type="awskms"}'
            assert metric(running, node, f"holdfast_seal_provider_healthy{labels}") == 0
            last = metric(running, node, f"holdfast_seal_provider_last_success_timestamp_seconds{labels}")
            assert last is not None
            assert last <= since + 60
        listed = json.loads(command(running, "operator", "seal-provider", "list", "-format=json").stdout)["data"]
        assert [provider["name"] for provider in listed["providers"]] == ["kms", "dev"]
        found = {(m["node_id"], p["name"]): p["health"] for m in listed["members"] for p in m["providers"]}
        assert found == {(n.node_id, p): h for n in nodes for p, h in (("kms", "unreachable"), ("dev", "healthy"))}
        table = command(running, "operator", "seal-provider", "list").stdout
        assert "unreachable" in table
        assert "development only" in table
        tested = command(running, "operator", "seal-provider", "test", "kms")
        assert tested.returncode == 2

        # One is dead: the other opens the nodes.
        kill_and_start(running)
        await_serving(running, nodes)

        # All are dead: the nodes stay sealed and say what they tried, and people open them.
        hidden = key_file.rename(key_file.with_name("hidden"))
        kill_and_start(running)
        await_health(running, {"kms": "unreachable", "dev": "misconfigured"})
        assert all(status(running, node).sealed for node in nodes)
        for node in nodes:
            running.unseal(node)
        await_serving(running, nodes)

        # Back again, and noticed without a restart.
        hidden.rename(key_file)
        kms.relay.heal()
        await_health(running, {"kms": "healthy", "dev": "healthy"})

        # Removed while running: it opens nothing any more, and nothing else is lost.
        refused = command(running, "operator", "seal-provider", "remove", "dev")
        assert refused.returncode == 1
        assert "-yes" in refused.stderr
        assert command(running, "operator", "seal-provider", "remove", "dev", "-yes").returncode == 0
        await_health(running, {"kms": "healthy"})
        kms.relay.cut()
        kill_and_start(running)
        await_health(running, {"kms": "unreachable"})
        assert all(status(running, node).sealed for node in nodes)
        kms.relay.heal()
        await_serving(running, nodes)

        secrets = [key_file.read_text().strip(), ENVIRONMENT["AWS_SECRET_ACCESS_KEY"], running.token]
        for node in nodes:
            assert not any(secret in node.log_file.read_text() for secret in secrets)


@pytest.mark.timeout(300)
def test_the_minority_of_a_healed_split_comes_back_by_itself_and_what_people_sealed_does_not(tmp_path: Path) -> None:
    seal = section({"dev": {"type": "age", "identity_file": identity(tmp_path)}})
    with partitionable_cluster(5, seal) as (running, partition):
        put_kept(running)
        with running.client() as client:
            client.seal_providers.add("dev", type="age", priority=1, parameters={})
        await_health(running, {"dev": "healthy"})
        leader = running.cluster.wait_serving()
        minority = [node for node in running.cluster.nodes if node is not leader][:2]
        partition.isolate(minority)
        for node in minority:
            eventually(lambda node=node: status(running, node).sealed, f"{node.node_id} seals itself")
        healed_s = time.monotonic()
        partition.heal()
        await_serving(running, minority)
        took_s = time.monotonic() - healed_s
        print(f"\nsplit 3/2, healed: both nodes of the minority serve linearizable reads after {took_s:.2f} s")
        assert took_s < 60
        with running.client(minority[0].api_address) as client:
            client.sys.seal()
        time.sleep(2)
        assert status(running, minority[0]).sealed, "what an operator sealed stays sealed"


@pytest.mark.timeout(300)
def test_a_hardware_module_and_another_cluster_s_transit_key_unseal_nodes(
    vault: TransitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hsm: SoftHsm = make_softhsm(tmp_path / "hsm")
    for name, value in {**hsm.environment, "HSM_PIN": PIN}.items():
        monkeypatch.setenv(name, value)
    token = private(tmp_path / "token", "s.token\n")
    entries = {"hsm": {"type": "pkcs11", "module": hsm.module, "pin_env": "HSM_PIN"}}
    with running_cluster(3, prepare=lambda cluster: configure(cluster, section(entries))) as running:
        put_kept(running)
        # Credentials for one more provider, under the running nodes.
        entries["vault"] = {"type": "transit", "token_file": token, "ca_file": str(vault.ca_file)}
        configure(running.cluster, section(entries))
        with running.client() as client:
            client.seal_providers.add("hsm", type="pkcs11", priority=1, parameters={"token": hsm.token, "key": hsm.key})
            client.seal_providers.add(
                "vault", type="transit", priority=2, parameters={"address": vault.address, "key": "holdfast"}
            )
            with pytest.raises(errors.AlreadyExists):
                client.seal_providers.add("hsm", type="pkcs11", priority=1, parameters={"token": "x", "key": "y"})
            with pytest.raises(errors.FailedPrecondition, match="not_configured"):
                client.seal_providers.add("more", type="awskms", priority=1, parameters={"key_id": "k"})
        await_health(running, {"hsm": "healthy", "vault": "healthy"})

        # The transit key is rotated there, which nobody here needs to know.
        vault.rotate("holdfast")
        # The module is unplugged, and the nodes restart: the transit key opens them.
        away = hsm.tokens_dir.rename(tmp_path / "unplugged")
        hsm.tokens_dir.mkdir()
        await_health(running, {"hsm": "unreachable", "vault": "healthy"})
        kill_and_start(running)
        await_serving(running, running.cluster.nodes)
        # The other way round.
        hsm.tokens_dir.rmdir()
        away.rename(hsm.tokens_dir)
        vault.sealed = True
        await_health(running, {"hsm": "healthy", "vault": "unreachable"})
        kill_and_start(running)
        await_serving(running, running.cluster.nodes)
        # A token that was revoked and renewed in its file, under running nodes.
        vault.sealed, vault.token = False, "s.renewed"
        await_health(running, {"hsm": "healthy", "vault": "refused"})
        private(tmp_path / "token", "s.renewed\n")
        await_health(running, {"hsm": "healthy", "vault": "healthy"})
        logs = "".join(node.log_file.read_text() for node in running.cluster.nodes)
        assert not any(secret in logs for secret in (PIN, "s.token", "s.renewed"))


@pytest.mark.timeout(300)
def test_when_no_provider_answers_a_node_asks_its_peers_where_they_share(tmp_path: Path) -> None:
    key_file = Path(identity(tmp_path))
    seal = section({"dev": {"type": "age", "identity_file": str(key_file)}}, share_with_peers=True)
    with running_cluster(3, prepare=lambda cluster: configure(cluster, seal)) as running:
        put_kept(running)
        with running.client() as client:
            client.seal_providers.add("dev", type="age", priority=1, parameters={})
        key_file.unlink()
        victim = running.cluster.nodes[0]
        victim.kill()
        victim.start()
        running.cluster.wait_listening()
        await_serving(running, [victim])
        assert '"unsealed_by_member"' in victim.log_file.read_text()


def test_a_stranger_sees_health_and_no_reason_and_needs_a_token_for_everything_else(tmp_path: Path) -> None:
    seal = section({"dev": {"type": "age", "identity_file": str(tmp_path / "none")}}, on_quorum_return="manual")
    with running_cluster(1, prepare=lambda cluster: configure(cluster, seal)) as running:
        (node,) = running.cluster.nodes
        key_file = tmp_path / "none"
        with running.client() as client:
            with pytest.raises(errors.FailedPrecondition, match="misconfigured"):
                client.seal_providers.add("dev", type="age", priority=1, parameters={})
            assert not client.seal_providers.list().providers
            Path(identity(tmp_path)).rename(key_file)
            client.seal_providers.add("dev", type="age", priority=1, parameters={})
            key_file.unlink()
            tested = client.seal_providers.test("dev")
            assert str(key_file) in tested.provider.message
        with running.cluster.client() as stranger:
            (shown,) = stranger.sys.seal_status().seal_providers
            assert (shown.health, shown.message, shown.development) == ("misconfigured", "", True)
            for call in (
                stranger.seal_providers.list,
                lambda: stranger.seal_providers.test("dev"),
                lambda: stranger.seal_providers.remove("dev"),
                lambda: stranger.seal_providers.add("x", type="age", priority=1, parameters={}),
            ):
                with pytest.raises(errors.Unauthenticated):
                    call()
        with running.client() as client, contextlib.suppress(errors.Conflict):
            client.seal_providers.remove("dev")
        shown_text = command(running, "status").stdout
        assert "Seal Providers" not in shown_text
        node.kill()
        node.start()
        running.cluster.wait_listening()
        time.sleep(1)
        assert status(running, node).sealed, "manual waits for people"
