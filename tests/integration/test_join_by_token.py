"""A new machine joins a running cluster with a join token alone; tokens that must not work do not."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from support.running import Running, eventually, running_cluster

from holdfast.client import errors
from holdfast.client.local import LocalCluster, LocalNode, free_ports
from holdfast.server import certs, join_token
from holdfast.server.join_token import JoinToken


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    with running_cluster(3) as running:
        yield running


def holdfast(served: Running, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast.client.cli.main", *arguments],
        capture_output=True, text=True, check=False, input=stdin,
        env={
            "HOLDFAST_ADDR": ",".join(served.cluster.addresses[:3]), "HOLDFAST_CACERT": str(served.cluster.ca_file),
            "HOLDFAST_TOKEN": served.token, "PYTHONPATH": ":".join(sys.path), "HOME": str(served.cluster.directory),
            "PATH": str(Path(sys.executable).parent),
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def signing(served: Running) -> Running:
    early = holdfast(served, "operator", "raft", "join-token", "create")
    assert (early.returncode, "its CA's key was not imported" in early.stderr) == (2, True)
    made = certs.create_ca(served.cluster.directory / "other-ca", "other")
    wrong = holdfast(served, "operator", "pki", "import-ca", f"-cert={made.cert_file}", f"-key={made.key_file}")
    assert (wrong.returncode, "not among those that the nodes trust" in wrong.stderr) == (2, True)
    folder = served.cluster.certs_dir
    done = holdfast(served, "operator", "pki", "import-ca", f"-cert={folder}/ca.crt", f"-key={folder}/ca.key")
    assert done.returncode == 0, done.stderr
    return served


def create(served: Running, *options: str) -> str:
    made = holdfast(served, "operator", "raft", "join-token", "create", *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


class Machine:
    """An empty machine."""

    def __init__(self, served: Running, node_id: str, folder: Path) -> None:
        self.served = served
        self.api, self.peer, self.metrics = free_ports(3)
        self.node = LocalNode(node_id, folder / node_id, self.api, self.peer, self.metrics)

    def join(self, token: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable, "-m", "holdfast.client.cli.main", "operator", "raft", "join", self.node.node_id,
                self.node.cluster_address, self.node.api_address, "-join-token=-",
                f"-config-dir={self.node.directory}", f"-data-dir={self.node.data_dir}", *options,
            ],
            capture_output=True, text=True, check=False, input=token + "\n",
        )  # fmt: skip


def test_a_fourth_node_joins_with_the_token_alone_and_gets_the_data(signing: Running, tmp_path: Path) -> None:
    with signing.client() as client:
        client.kv.put("team/db", {"password": "correct horse"})
    token = create(signing, "-ttl=10m", "-node-id=node-4")
    machine = Machine(signing, "node-4", tmp_path)
    joined = machine.join(token, f"-metrics-bind={machine.node.metrics_address}", "-format=json")
    assert joined.returncode == 0, joined.stderr
    assert json.loads(joined.stdout)["data"]["config_file"] == str(machine.node.config_file)
    assert (machine.node.directory / "node-4.key").stat().st_mode & 0o077 == 0
    machine.node.start()
    try:
        with signing.client() as client:
            eventually(
                lambda: any(p.node_id == "node-4" and p.voter for p in client.raft.list_peers().peers), "node-4 votes"
            )
        signing.unseal(machine.node)
        with signing.client(machine.node.api_address) as client:
            assert client.kv.get("team/db").data == {"password": "correct horse"}

        used = Machine(signing, "node-5", tmp_path).join(token)
        assert (used.returncode, "used already, by node node-4" in used.stderr) == (1, True)
        again = Machine(signing, "node-4", tmp_path / "again").join(create(signing))
        assert (again.returncode, "node-4 is a member" in again.stderr) == (1, True)
        listed = holdfast(signing, "operator", "raft", "join-token", "list", "-format=json")
        assert "node-4" in [t["used_by"] for t in json.loads(listed.stdout)["data"]["tokens"]]
        with signing.client() as client:
            client.raft.remove_peer("node-4")
        afterwards = Machine(signing, "node-4", tmp_path / "again").join(create(signing))
        assert (afterwards.returncode, "node-4 was a member before" in afterwards.stderr) == (1, True)
    finally:
        machine.node.stop()


def test_a_certificate_in_a_members_name_or_for_its_host_is_never_issued(signing: Running, tmp_path: Path) -> None:
    token = create(signing)
    for node_id in ("node-1", "node-2"):
        refused = Machine(signing, node_id, tmp_path).join(token)
        assert (refused.returncode, f"{node_id} is a member" in refused.stderr) == (1, True)
        assert not list((tmp_path / node_id).glob("*"))
    machine = Machine(signing, "node-9", tmp_path)
    machine.node.cluster_port = signing.cluster.nodes[0].cluster_port
    refused = machine.join(token)
    assert (refused.returncode, "cluster_address is a member's already" in refused.stderr) == (1, True)
    bound = Machine(signing, "node-9", tmp_path).join(create(signing, "-node-id=node-8"))
    assert (bound.returncode, "is for node node-8 alone" in bound.stderr) == (1, True)
    elsewhere = Machine(signing, "node-9", tmp_path).join(create(signing, "-host=10.9.9.9"))
    assert (elsewhere.returncode, "allows no certificate for 127.0.0.1" in elsewhere.stderr) == (1, True)


def test_an_expired_a_revoked_and_a_mangled_token_are_refused_by_name(signing: Running, tmp_path: Path) -> None:
    machine = Machine(signing, "node-9", tmp_path)
    made = json.loads(holdfast(signing, "operator", "raft", "join-token", "create", "-ttl=1s", "-format=json").stdout)
    end = datetime.fromisoformat(made["data"]["expire_time"])
    eventually(lambda: datetime.now(UTC) > end + timedelta(seconds=1), "it has expired")
    expired = machine.join(made["data"]["join_token"])
    assert (expired.returncode, "expired at" in expired.stderr, "make a new one" in expired.stderr) == (1, True, True)
    made = json.loads(holdfast(signing, "operator", "raft", "join-token", "create", "-format=json").stdout)["data"]
    assert holdfast(signing, "operator", "raft", "join-token", "revoke", made["id"][:16]).returncode == 0
    revoked = machine.join(made["join_token"])
    assert (revoked.returncode, "knows no such join token" in revoked.stderr) == (1, True)
    token = create(signing)
    for mangled in (token[:-5], token[:30] + "A" + token[31:], "hfj1.", token.replace("hfj1.", "hfj1.!")):
        refused = machine.join(mangled)
        assert (refused.returncode, "mangled" in refused.stderr) == (1, True), mangled
    assert "no join token" in machine.join("s.abcdef").stderr
    assert not list(machine.node.directory.glob("*"))


def test_another_ca_in_the_middle_is_told_nothing(signing: Running, tmp_path: Path) -> None:
    genuine = join_token.decode(create(signing))
    with running_cluster(1) as other:
        trap = JoinToken(genuine.fingerprint, (other.cluster.nodes[0].api_address,), genuine.secret)
        caught = Machine(signing, "node-9", tmp_path).join(join_token.encode(trap))
    assert (caught.returncode, "is not of the cluster that made the join token" in caught.stderr) == (1, True)
    wrong = JoinToken(bytes(32), genuine.addresses, genuine.secret)
    refused = Machine(signing, "node-9", tmp_path).join(join_token.encode(wrong))
    assert (refused.returncode, "Nothing was told to it" in refused.stderr) == (1, True)
    # The genuine token was not spent by any of this, and a dead address is passed over.
    dead = f"127.0.0.1:{free_ports(1)[0]}"
    joined = Machine(signing, "node-6", tmp_path).join(
        join_token.encode(JoinToken(genuine.fingerprint, (dead, *genuine.addresses), genuine.secret))
    )
    assert joined.returncode == 0, joined.stderr
    with signing.client() as client:
        client.raft.remove_peer("node-6")


def test_only_who_may_makes_tokens(signing: Running) -> None:
    with signing.cluster.client(token="hfs.none") as client:
        for call in (
            lambda: client.logical.write("sys/join-token", {}),
            lambda: client.logical.read("sys/cluster-ca"),
            lambda: client.logical.write("sys/join", {"secret": "00" * 32}),
        ):
            with pytest.raises(errors.Unauthenticated):
                call()


def ask_peers(node: LocalNode) -> None:
    config = yaml.safe_load(node.config_file.read_text())
    config["seal"] = {"on_quorum_return": "peers"}
    node.config_file.write_text(yaml.safe_dump(config))


def test_a_member_that_gives_the_root_key_gives_none_to_a_node_of_a_token_before_people_trust_it(
    tmp_path: Path,
) -> None:
    def prepare(cluster: LocalCluster) -> None:
        for node in cluster.nodes:
            ask_peers(node)

    with running_cluster(1, prepare) as running:
        founder = running.cluster.nodes[0]
        folder = running.cluster.certs_dir
        done = holdfast(running, "operator", "pki", "import-ca", f"-cert={folder}/ca.crt", f"-key={folder}/ca.key")
        assert done.returncode == 0, done.stderr
        machine = Machine(running, "node-2", tmp_path)
        joined = machine.join(create(running), f"-metrics-bind={machine.node.metrics_address}")
        assert joined.returncode == 0, joined.stderr
        ask_peers(machine.node)
        machine.node.start()
        try:
            eventually(lambda: "root_key_not_handed_over" in founder.log_tail(50), "the founder refuses")
            assert "root_key_handed_over" not in founder.log_tail(1000)
            with running.client(machine.node.api_address) as client:
                assert client.sys.seal_status().sealed
                trust = holdfast(running, "operator", "raft", "join-token", "trust", "node-2")
                assert trust.returncode == 0, trust.stderr
                eventually(lambda: not client.sys.seal_status().sealed, "trusted, it is handed the key")
        finally:
            machine.node.stop()
