"""What a node's memory holds: the keys while it is unsealed, and none of them once it is sealed. Only root may look."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.process_memory import find
from support.running import Running, eventually, running_cluster

from holdfast.client.local import LocalNode
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.cluster.seal import shamir, shares
from holdfast.cluster.seal.records import KEYRING_KEY, SEAL_KEY, decode_config
from holdfast.server.memory import has_lock_capability
from holdfast.storage.keyring import Keyring
from holdfast.storage.rocksdb import RocksStore

VALUE = "a-planted-value-" + os.urandom(8).hex()
NAME = "a-planted-name-" + os.urandom(8).hex()
HALF = 32  # AES-SIV uses the halves of its key apart (RFC 5297)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with running_cluster(1) as cluster:
        yield cluster


def keys_of(running: Running, node: LocalNode, scratch: Path) -> dict[str, bytes]:
    """Every key of the cluster, made from the shares and a copy of the node's state as an attacker would."""
    shutil.copytree(node.data_dir / "state", scratch / "state")
    store = RocksStore.open(scratch / "state")
    machine = StateMachine(store)
    seal_record, keyring_record = machine.get(SEAL_KEY), machine.get(KEYRING_KEY)
    assert seal_record is not None
    assert keyring_record is not None
    config = decode_config(seal_record.value)
    given = [shares.decode(text) for text in running.shares[: config.threshold]]
    share_key = shamir.combine([share.core for share in given])
    root_key = config.unwrap(share_key)
    keys = Keyring.unwrap(keyring_record.value, root_key)._open()
    store.close()
    return {
        "root key": root_key,
        "share key": share_key,
        "name key, first half": keys.name_key[:HALF],
        "name key, second half": keys.name_key[HALF:],
        "request key": keys.request_key,
        **{f"key of term {term}": key for term, key in keys.terms.items()},
        **{f"share {share.x}": share.core[:-1] for share in given},
    }


def put_and_get(running: Running) -> None:
    with running.client() as client:
        for number in range(200):
            client.kv.put(f"{NAME}/{number % 20}", {"v": VALUE})
            assert client.kv.get(f"{NAME}/{number % 20}").data == {"v": VALUE}


@pytest.mark.slow
def test_a_sealed_node_holds_no_key_in_its_memory(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = running.cluster.nodes[0]
    assert node.process is not None
    pid = node.process.pid
    keys = keys_of(running, node, tmp_path)
    contents = {"a value": VALUE.encode(), "a name": NAME.encode(), "the token": running.token.encode()}
    put_and_get(running)
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            find(pid, keys)
        return
    unsealed = find(pid, keys | contents)
    for name in ("root key", "key of term 1", "name key, first half", "name key, second half", "request key"):
        assert unsealed[name], f"the search does not find the {name} where it must be"
    for name in contents:
        assert unsealed[name], f"the search does not find {name}"
    with running.client() as client:
        client.sys.seal()
    eventually(lambda: not any(find(pid, keys).values()), f"no key in memory, of {sorted(keys)}")
    sealed = find(pid, keys | contents)
    assert not {name: count for name, count in sealed.items() if count and name in keys}
    with capsys.disabled():
        print(f"\nin memory, unsealed: { {n: c for n, c in unsealed.items() if c} }")
        print(f"in memory, sealed:   { {n: c for n, c in sealed.items() if c} }")


def test_a_node_leaves_no_core_dump_and_its_memory_is_locked_and_private(running: Running) -> None:
    node = running.cluster.nodes[0]
    assert node.process is not None
    process = Path(f"/proc/{node.process.pid}")
    assert process.joinpath("mem").stat().st_uid == 0  # of a process that is not dumpable, whoever runs it (proc(5))
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            process.joinpath("limits").read_text()
        return
    limits = {line[:26].strip(): line[26:].split() for line in process.joinpath("limits").read_text().splitlines()}
    assert limits["Max core file size"][:2] == ["0", "0"]
    if has_lock_capability():
        status = dict(line.split(":", 1) for line in process.joinpath("status").read_text().splitlines())
        assert int(status["VmLck"].split()[0]) > 0
