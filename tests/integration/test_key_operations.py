"""Key operations on three real nodes, under load, with the leader killed in the middle of each."""

import io
import json
import ssl
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.running import Running, Writer, assert_nothing_lost, eventually, running_cluster

from holdfast.client import ClientConfig, errors
from holdfast.client.cli.app import App
from holdfast.client.cli.main import run
from holdfast.client.key_results import NewShares
from holdfast.client.local import LocalNode

WRITERS = 3
SECRETS = 400


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def writers(running: Running, request: pytest.FixtureRequest) -> Iterator[list[Writer]]:
    config = ClientConfig(
        addresses=running.cluster.addresses, ca_file=running.cluster.ca_file, token=running.token, timeout_s=60
    )
    found = [Writer(config, f"{request.node.name[:20]}-{number}") for number in range(WRITERS)]
    for writer in found:
        writer.start()
    yield found
    for writer in found:
        writer.stop()


Command = Callable[..., str]


@pytest.fixture
def command(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Runs `holdfast operator` as an operator would; what it printed."""
    environment = {
        "HOLDFAST_ADDR": ",".join(running.cluster.addresses),
        "HOLDFAST_CACERT": str(running.cluster.ca_file),
        "HOLDFAST_TOKEN": running.token,
    }

    def operator(*arguments: str, stdin: str = "", code: int = 0, **changes: str) -> str:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        app = App(environment=environment | changes, home=tmp_path)
        assert run(["operator", *arguments], app) == code, capsys.readouterr()
        shown = capsys.readouterr()
        return shown.out + shown.err

    return operator


def lead(running: Running) -> LocalNode:
    return running.cluster.wait_serving()


def kill_leader(running: Running) -> LocalNode:
    victim = lead(running)
    victim.kill()
    return victim


def metric(running: Running, node: LocalNode, name: str) -> float | None:
    context = ssl.create_default_context(cafile=str(running.cluster.ca_file))
    with urllib.request.urlopen(f"https://{node.metrics_address}/metrics", context=context, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.split(" ")[1]) for line in lines if line.startswith(f"{name} ")), None)


@pytest.mark.timeout(300)
def test_a_rekey_survives_its_leaders_and_the_new_shares_unseal_everything(
    running: Running, writers: list[Writer]
) -> None:
    old = running.shares
    with running.client(timeout_s=60) as client:
        began = client.keys.rekey_init(shares=4, threshold=2)
        assert client.keys.rekey_update(old[0], began.nonce).progress == 1
        victim = kill_leader(running)
        status = eventually(client.keys.rekey_status, "the next leader knows of the rekey")
        assert (status.nonce, status.progress) == (began.nonce, 0)
        for share in old[:2]:
            client.keys.rekey_update(share, began.nonce)
        made = client.keys.rekey_update(old[2], began.nonce)
        assert isinstance(made, NewShares)
        assert made.in_force == "pending"
        running.restart([victim])  # with the old shares, which are still in force
        eventually(lambda: not seal_status(running, victim).sealed, "the node that was killed is unsealed")

        client.keys.rekey_verify(made.shares[0], made.verification_nonce)
        victim = kill_leader(running)
        status = eventually(client.keys.rekey_status, "the next leader knows of the verification")
        assert (status.verification_nonce, status.verification_progress) == (made.verification_nonce, 0)
        client.keys.rekey_verify(made.shares[3], made.verification_nonce)
        status, done = client.keys.rekey_verify(made.shares[1], made.verification_nonce)
        assert done
        assert status.set_id == made.set_id

    running.shares = made.shares
    victim.start()
    running.cluster.wait_listening()
    with running.client(victim.api_address, timeout_s=5) as client:

        def refused() -> bool:
            with pytest.raises(errors.ShareRejected) as problem:
                client.sys.unseal(old[0])
            return problem.value.details["kind"] == "other_set"

        eventually(lambda: seal_status(running, victim).threshold == 2, "it has heard of the new shares")
        assert refused()
    running.unseal(victim)
    for writer in writers:
        writer.stop()
    for node in running.cluster.nodes:
        node.kill()
    running.restart(running.cluster.nodes)
    lead(running)
    with running.client() as client:
        assert sum(assert_nothing_lost(client, writer) for writer in writers) > 0
    assert not [failure for writer in writers for failure in writer.failures]


def seal_status(running: Running, node: LocalNode):
    with running.client(node.api_address, timeout_s=5) as client:
        return client.sys.seal_status()


@pytest.mark.timeout(300)
def test_a_rotation_and_the_re_encryption_go_on_when_the_leader_is_killed(
    running: Running, writers: list[Writer]
) -> None:
    with running.client(timeout_s=60) as client:
        for number in range(SECRETS):
            client.kv.put(f"old/{number}", {"value": number})
        client.keys.configure_rotation(rate=150)
        first = client.keys.rotate()

        def under_way() -> bool:
            at = client.keys.status().reencryption
            return at is not None and at.target_term == first.term and (at.finished or at.rewritten > 0)

        eventually(under_way, "the re-encryption has begun")
        victim = kill_leader(running)
        second = eventually(client.keys.rotate, "the next leader rotates")
        assert second.term > first.term
        running.restart([victim])
        client.keys.configure_rotation(rate=100_000)

        def finished() -> bool:
            at = client.keys.status().reencryption
            return at is not None and at.target_term >= second.term and at.finished

        eventually(finished, "everything is under the new term", deadline_s=120)
        for number in range(SECRETS):
            assert client.kv.get(f"old/{number}").data == {"value": number}
    for node in running.cluster.nodes:
        with running.client(node.api_address) as client:
            assert client.kv.get("old/7").data == {"value": 7}
            assert client.kv.get("old/7", stale=True).data == {"value": 7}
    leader = lead(running)
    eventually(lambda: (metric(running, leader, "holdfast_key_term") or 0) >= second.term, "the metrics show the term")
    assert metric(running, leader, "holdfast_reencryption_rewritten_records") is not None
    for writer in writers:
        writer.stop()
    with running.client() as client:
        assert sum(assert_nothing_lost(client, writer) for writer in writers) > 0
    assert not [failure for writer in writers for failure in writer.failures]


@pytest.mark.timeout(300)
def test_operators_do_all_of_it_with_the_command(running: Running, command: Command) -> None:
    shares = running.shares
    threshold = seal_status(running, running.cluster.nodes[0]).threshold

    # a root token, without a token
    began = json.loads(command("generate-root", "-init", "-format=json", HOLDFAST_TOKEN=""))
    for share in shares[: threshold - 1]:
        shown = command("generate-root", "-", stdin=share + "\n", HOLDFAST_TOKEN="")
        assert f"/{threshold}" in shown
    done = json.loads(command("generate-root", "-format=json", "-", stdin=shares[threshold - 1], HOLDFAST_TOKEN=""))
    token = command("generate-root", f"-decode={done['encoded_token']}", f"-otp={began['otp']}").strip()
    with running.cluster.client(token=token) as client:
        client.kv.put("by-a-new-root", {"value": 1})
    assert len(command("generate-root", "-generate-otp").strip()) == began["otp_length"]
    command("generate-root", "-cancel", code=2)

    # rotation
    before = json.loads(command("key-status", "-format=json"))
    assert json.loads(command("rotate", "-format=json"))["term"] == before["term"] + 1
    assert "Key Term" in command("rotate", "-status")
    assert json.loads(command("rotate-config", "-interval=90d", "-format=json"))["interval_seconds"] == 90 * 86400

    # rekey
    assert "under way" in command("rekey", "-init", "-key-shares=3", "-key-threshold=2")
    command("rekey", "-init", code=2)
    assert "under way" in command("rekey", "-status")
    command("rekey", "-cancel")
    command("rekey", "-init", "-key-shares=3", "-key-threshold=2")
    for share in shares[: threshold - 1]:
        command("rekey", "-", stdin=share)
    made = json.loads(command("rekey", "-", "-format=json", stdin=shares[threshold - 1]))
    assert made["in_force"] == "pending"
    command("rekey", "-verify", "-", stdin=made["keys"][0])
    assert "in force" in command("rekey", "-verify", "-", stdin=made["keys"][2])
    running.shares = made["keys"]
    logs = "".join(node.log_file.read_text() for node in running.cluster.nodes)
    assert not [secret for secret in [*shares, *made["keys"], token, began["otp"]] if secret in logs]
    node = running.cluster.nodes[0]
    node.kill()
    node.start()
    running.cluster.wait_listening()
    # Until it has heard of the switch, it asks for the keys from before.
    eventually(lambda: running.unseal(node) or True, "the new keys unseal a node that was restarted")
    assert not seal_status(running, node).sealed
