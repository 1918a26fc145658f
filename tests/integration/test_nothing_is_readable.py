"""Neither a value, a name, a share, a token nor a key can be read on disk, in a log, or on the wire between nodes."""

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support.relay import RecordingRelay
from support.running import Running, running_cluster

from holdfast.client import errors
from holdfast.client.local import LocalCluster

VALUE = "planted-value-7f3a91"
NAME = "planted-name-52c8d4"
FOLDER = "planted-folder-e01b77"
METADATA = "planted-metadata-a94f10"
REJECTED = "planted-rejected-3d6e5c"


@dataclass
class Watched:
    running: Running
    capture: Path


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A cluster whose nodes reach each other only through relays that record every byte."""
    capture = tmp_path_factory.mktemp("capture") / "peer-ports.bin"
    relays: list[RecordingRelay] = []

    def put_relays_between(cluster: LocalCluster) -> None:
        relays.extend(RecordingRelay(node.cluster_port, capture) for node in cluster.nodes)
        ports = {node.node_id: relay.port for node, relay in zip(cluster.nodes, relays, strict=True)}
        for node in cluster.nodes:
            config = yaml.safe_load(node.config_file.read_text())
            config["cluster"]["advertise"] = f"127.0.0.1:{ports[node.node_id]}"
            for member in config["cluster"]["initial_members"]:
                member["cluster_address"] = f"127.0.0.1:{ports[member['node_id']]}"
            node.config_file.write_text(yaml.safe_dump(config))

    try:
        with running_cluster(prepare=put_relays_between) as running:
            use_everything(running)
            yield Watched(running, capture)
    finally:
        for relay in relays:
            relay.close()


def use_everything(running: Running) -> None:
    """Send the markers along every path: at the leader and at a follower, accepted and refused, replicated and
    forwarded, before and after a restart."""
    for node in running.cluster.nodes:
        with running.client(node.api_address) as client:
            path = f"{FOLDER}/{NAME}-{node.node_id}"
            client.kv.put(path, {"password": VALUE, VALUE: 1})
            client.kv.patch(path, {"extra": VALUE})
            client.kv.put_metadata(path, custom_metadata={"note": METADATA})
            assert client.kv.get(path).data == {"password": VALUE, VALUE: 1, "extra": VALUE}
            assert list(client.kv.list(FOLDER))
            with pytest.raises(errors.Conflict):
                client.kv.put(path, {"password": REJECTED}, cas=7)
            with pytest.raises(errors.InvalidArgument):
                client.kv.put(f"{REJECTED}/../x", {"password": REJECTED})
            with pytest.raises(errors.NotFound):
                client.kv.get(REJECTED)
            with pytest.raises(errors.NotFound):
                client.kv.put("x", {"password": REJECTED}, mount=REJECTED)
        with (
            running.cluster.client(node.api_address, token="hfs." + REJECTED) as stranger,
            pytest.raises(errors.Unauthenticated),
        ):
            stranger.kv.get(f"{FOLDER}/{NAME}")
        with running.client(node.api_address) as client:
            client.sys.seal()
            with pytest.raises(errors.HoldfastError):
                client.sys.unseal(REJECTED)
        running.unseal(node)
    last = running.cluster.nodes[-1]
    last.stop()
    running.restart([last])


def forms(text: str) -> list[bytes]:
    """The marker as bytes, in hex, in UTF-16 and as any alignment of base64 would show it."""
    raw = text.encode()
    aligned = [base64.b64encode(b"\0" * shift + raw)[shift + (shift > 0) : -4] for shift in range(3)]
    return [raw, raw.hex().encode(), text.encode("utf-16-le"), *aligned]


def secrets_of(running: Running) -> dict[str, list[bytes]]:
    planted = {name: forms(name) for name in (VALUE, NAME, FOLDER, METADATA, REJECTED)}
    shares: dict[str, list[bytes]] = {}
    for number, share in enumerate(running.shares):
        body = share.rpartition(".")[2]
        shares[f"share {number}"] = [share.encode(), body.encode()]
        with_padding = body + "=" * (-len(body) % 4)
        # The y bytes of the share itself, however it is framed: any 24 bytes in the middle of it.
        shares[f"share {number}"].append(base64.urlsafe_b64decode(with_padding)[12:36])
    token = {"root token": [running.token.encode(), running.token.partition(".")[2].encode()]}
    return planted | shares | token


def assert_absent(running: Running, haystacks: dict[str, bytes]) -> None:
    for where, content in haystacks.items():
        for what, needles in secrets_of(running).items():
            for needle in needles:
                assert needle not in content, f"{what} is readable in {where}"


def test_no_secret_in_any_file_of_the_data_folders(watched: Watched) -> None:
    files = {
        str(path): path.read_bytes()
        for node in watched.running.cluster.nodes
        for path in node.data_dir.rglob("*")
        if path.is_file()
    }
    assert sum(len(content) for content in files.values()) > 10_000, "the test looked at the wrong folders"
    assert_absent(watched.running, files)


def test_no_secret_in_any_log(watched: Watched) -> None:
    logs = {node.node_id: node.log_file.read_bytes() for node in watched.running.cluster.nodes}
    assert all(logs.values()), "the test looked at the wrong files"
    assert_absent(watched.running, logs)


def test_no_secret_on_the_wire_between_nodes(watched: Watched) -> None:
    capture = watched.capture.read_bytes()
    assert len(capture) > 50_000, "nothing went through the relays"
    assert_absent(watched.running, {"the capture of the peer ports": capture})


def test_the_search_would_find_a_secret(watched: Watched, tmp_path: Path) -> None:
    """Proves the search itself: each secret, written to a file in each form, is found."""
    for what, needles in secrets_of(watched.running).items():
        for needle in needles:
            with pytest.raises(AssertionError, match="is readable in"):
                assert_absent(watched.running, {"a file": os.urandom(100) + needle + os.urandom(100)})
            assert needle, what


def test_data_folders_and_keys_are_private(watched: Watched) -> None:
    for node in watched.running.cluster.nodes:
        assert node.data_dir.stat().st_mode & 0o077 == 0
    for key in watched.running.cluster.certs_dir.glob("*.key"):
        assert key.stat().st_mode & 0o077 == 0
