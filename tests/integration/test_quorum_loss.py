"""What happens to the keys when the quorum goes, and when it comes back: the minority seals itself and says why, the
majority does not notice, a node that slept serves nothing old, and the way back is the one that was configured."""

import ssl
import threading
import time
import urllib.request
from collections.abc import Sequence
from signal import SIGCONT, SIGSTOP

import pytest
import yaml
from support.partition import partitionable_cluster
from support.running import Running, Writer, assert_nothing_lost, eventually, running_cluster

from holdfast.client import Client, ClientConfig, errors
from holdfast.client.local import LocalCluster, LocalNode
from holdfast.client.results import SealStatus

GRACE_S = 2.0


def status(running: Running, node: LocalNode) -> SealStatus:
    with running.client(node.api_address, timeout_s=5) as client:
        return client.sys.seal_status()


def metrics(running: Running, node: LocalNode) -> str:
    context = ssl.create_default_context(cafile=str(running.cluster.ca_file))
    with urllib.request.urlopen(f"https://{node.metrics_address}/metrics", context=context, timeout=10) as answer:
        return str(answer.read().decode())


def contact_age_s(running: Running, node: LocalNode) -> float:
    name = "holdfast_quorum_contact_age_seconds "
    return next(float(line[len(name) :]) for line in metrics(running, node).splitlines() if line.startswith(name))


def in_contact(running: Running, node: LocalNode) -> bool:
    return "holdfast_leader_known 1.0" in metrics(running, node) and contact_age_s(running, node) < 0.5


def handovers(running: Running, node: LocalNode, why: str, outcome: str) -> int:
    name = f'holdfast_root_key_handovers_total{{outcome="{outcome}",why="{why}"}} '
    lines = [line for line in metrics(running, node).splitlines() if line.startswith(name)]
    return sum(int(float(line[len(name) :])) for line in lines)


def followers(running: Running) -> list[LocalNode]:
    leader = running.cluster.wait_serving()
    return [node for node in running.cluster.nodes if node is not leader]


def term(running: Running, nodes: Sequence[LocalNode]) -> int:
    with running.client(*(node.api_address for node in nodes)) as client:
        return client.sys.leader().term


def await_sealed(running: Running, nodes: Sequence[LocalNode]) -> None:
    for node in nodes:
        eventually(lambda node=node: status(running, node).sealed, f"{node.node_id} seals itself")


def assert_sealed_for_want_of_quorum(running: Running, node: LocalNode) -> None:
    found = status(running, node)
    assert "contact with a quorum was lost for 2 s" in found.last_seal_reason
    assert found.last_seal_time is not None
    assert "holdfast_quorum_loss_seals_total 1.0" in metrics(running, node)
    assert '"sealed_on_quorum_loss"' in node.log_file.read_text()
    with running.client(node.api_address, timeout_s=5) as client, pytest.raises(errors.Sealed):
        client.kv.get("kept", stale=True)


def await_contact(running: Running, nodes: Sequence[LocalNode]) -> None:
    for node in nodes:
        eventually(lambda node=node: in_contact(running, node), f"{node.node_id} is in contact")


def await_serving(running: Running, nodes: Sequence[LocalNode]) -> None:
    for node in nodes:
        with running.client(node.api_address) as client:
            got = eventually(lambda client=client: client.kv.get("kept"), f"{node.node_id} serves")
            assert got.data == {"value": "kept"}


def put_kept(running: Running) -> None:
    with running.client() as client:
        client.kv.put("kept", {"value": "kept"})


@pytest.mark.timeout(300)
def test_of_five_nodes_split_three_to_two_the_two_seal_and_the_three_never_notice() -> None:
    seal = {"quorum_loss_grace": "2s", "on_quorum_return": "manual"}
    with partitionable_cluster(5, seal) as (running, partition):
        put_kept(running)
        minority = followers(running)[:2]
        majority = [node for node in running.cluster.nodes if node not in minority]
        before = term(running, majority)
        writer = Writer(
            ClientConfig(
                addresses=[node.api_address for node in majority],
                ca_file=running.cluster.ca_file,
                token=running.token,
                timeout_s=30,
            ),
            "split",
        )
        writer.start()
        partition.isolate(minority)
        await_sealed(running, minority)
        for node in minority:
            assert_sealed_for_want_of_quorum(running, node)
        partition.heal()
        await_contact(running, minority)
        assert all(status(running, node).sealed for node in minority), "manual waits for people"
        for node in minority:
            running.unseal(node)
        await_serving(running, minority)
        writer.stop()
        assert not writer.failures
        assert not any(status(running, node).last_seal_reason for node in majority)
        assert term(running, majority) == before, "nobody was elected: the majority kept its leader all the while"
        with running.client() as client:
            assert assert_nothing_lost(client, writer) > 0


@pytest.mark.timeout(300)
def test_a_leader_that_is_cut_off_seals_too_and_so_does_every_node_when_all_are() -> None:
    with partitionable_cluster(3, {"quorum_loss_grace": 2}) as (running, partition):
        put_kept(running)
        leader = running.cluster.wait_serving()
        partition.isolate([leader])
        await_sealed(running, [leader])
        assert_sealed_for_want_of_quorum(running, leader)
        others = [node for node in running.cluster.nodes if node is not leader]
        await_serving(running, others)
        partition.isolate(running.cluster.nodes)
        await_sealed(running, others)
        partition.heal()
        await_contact(running, running.cluster.nodes)
        for node in running.cluster.nodes:
            running.unseal(node)
        await_serving(running, running.cluster.nodes)


class Reader(threading.Thread):
    """Reads stale from one node, again and again; `answers` are data or classes of errors."""

    def __init__(self, running: Running, node: LocalNode, count: int) -> None:
        super().__init__(daemon=True)
        self.answers: list[object] = []
        self.warm, self.go, self.asking = threading.Event(), threading.Event(), threading.Event()
        self._running, self._node, self._count = running, node, count

    def run(self) -> None:
        config = ClientConfig(
            addresses=[self._node.api_address],
            ca_file=self._running.cluster.ca_file,
            token=self._running.token,
            timeout_s=60,
            max_retries=0,
        )
        with Client(config) as client:
            assert client.kv.get("kept", stale=True).data == {"value": "kept"}
            self.warm.set()
            self.go.wait()
            self.asking.set()
            for _ in range(self._count):
                try:
                    self.answers.append(client.kv.get("kept", stale=True).data)
                except errors.HoldfastError as error:
                    self.answers.append(type(error))


@pytest.mark.timeout(300)
def test_a_node_that_slept_longer_than_the_grace_serves_no_stale_read_after_waking() -> None:
    with running_cluster(3, prepare=lambda cluster: configure(cluster, {"quorum_loss_grace": "2s"})) as running:
        put_kept(running)
        for sleeper in [followers(running)[0], running.cluster.wait_serving()]:
            reader = Reader(running, sleeper, 20)
            reader.start()
            assert reader.warm.wait(60)
            sleeper.signal(SIGSTOP)
            reader.go.set()
            reader.asking.wait()  # its first read lies in the sleeper's socket when it wakes
            time.sleep(GRACE_S * 1.5)
            sleeper.signal(SIGCONT)
            reader.join()
            assert set(reader.answers) == {errors.Sealed}
            assert "stood still" in status(running, sleeper).last_seal_reason
            running.unseal(sleeper)
            await_serving(running, [sleeper])


@pytest.mark.timeout(300)
def test_switched_off_a_node_without_quorum_keeps_its_keys() -> None:
    seal = {"quorum_loss_grace": 1, "seal_on_quorum_loss": False}
    with running_cluster(3, prepare=lambda cluster: configure(cluster, seal)) as running:
        put_kept(running)
        survivor, victim = followers(running)
        victim.kill()
        running.cluster.wait_serving().kill()
        eventually(lambda: contact_age_s(running, survivor) > 3, "contact is lost for three times the grace")
        with running.client(survivor.api_address) as client:
            assert client.kv.get("kept", stale=True).data == {"value": "kept"}
        assert not status(running, survivor).sealed


@pytest.mark.timeout(300)
def test_with_peers_the_minority_comes_back_without_a_person_and_so_does_a_restarted_node() -> None:
    seal = {"quorum_loss_grace": "2s", "on_quorum_return": "peers"}
    with partitionable_cluster(5, seal) as (running, partition):
        put_kept(running)
        minority = followers(running)[:2]
        partition.isolate(minority)
        await_sealed(running, minority)
        for node in minority:
            assert_sealed_for_want_of_quorum(running, node)
        partition.heal()
        await_serving(running, minority)
        victim = minority[0]
        victim.kill()
        victim.start()
        await_serving(running, [victim])
        given = sum(handovers(running, node, "asked", "given") for node in running.cluster.nodes if node is not victim)
        assert given >= 2
        with running.client(victim.api_address) as client:
            client.sys.seal()
        time.sleep(1)
        assert status(running, victim).sealed, "what an operator sealed stays sealed"


@pytest.mark.timeout(300)
def test_with_manual_one_ceremony_unseals_every_node_that_can_be_reached() -> None:
    with partitionable_cluster(5, {"quorum_loss_grace": "2s", "on_quorum_return": "manual"}) as (running, partition):
        put_kept(running)
        first, second = followers(running)[:2]
        partition.isolate([first, second])
        await_sealed(running, [first, second])
        partition.heal()
        await_contact(running, [first, second])
        with running.client(first.api_address) as client:
            for share in running.shares[:3]:
                ceremony = client.sys.unseal_cluster(share)
        assert ceremony.done
        assert not ceremony.status.sealed
        assert {m.node_id: (m.unsealed, m.already) for m in ceremony.members} == {
            node.node_id: (True, node is not second) for node in running.cluster.nodes if node is not first
        }
        await_serving(running, [first, second])
        assert handovers(running, first, "ceremony", "given") == 1
        assert '"root_key_handed_over"' in first.log_file.read_text()

        second.kill()
        with running.client(first.api_address) as client:  # a node that is open takes the shares as well
            for share in running.shares[2:]:
                ceremony = client.sys.unseal_cluster(share)
        (missing,) = [member for member in ceremony.members if not member.unsealed]
        assert missing.node_id == second.node_id
        assert missing.reason


@pytest.mark.timeout(300)
def test_one_ceremony_opens_a_cluster_of_which_every_node_was_restarted() -> None:
    with running_cluster(3) as running:
        put_kept(running)
        for node in running.cluster.nodes:
            node.kill()
        running.cluster.start()
        running.cluster.wait_listening()
        await_contact(running, running.cluster.nodes)
        with running.client(running.cluster.nodes[0].api_address) as client:
            for share in running.shares[:3]:
                ceremony = client.sys.unseal_cluster(share)
        assert [member.unsealed for member in ceremony.members] == [True, True], ceremony.members
        await_serving(running, running.cluster.nodes)


def test_a_single_node_is_always_in_contact() -> None:
    with running_cluster(1, prepare=lambda cluster: configure(cluster, {"quorum_loss_grace": 1})) as running:
        put_kept(running)
        time.sleep(3)
        await_serving(running, running.cluster.nodes)
        assert not status(running, running.cluster.nodes[0]).last_seal_reason


def configure(cluster: LocalCluster, seal: dict[str, object]) -> None:
    for node in cluster.nodes:
        config = yaml.safe_load(node.config_file.read_text())
        config["seal"] = seal
        node.config_file.write_text(yaml.safe_dump(config))
