"""An unsealed node that was cut off while the keyring rotated is sent the state whole, keyring and records at once, and
serves from it without a word of complaint."""

import threading

import pytest
import yaml
from support.partition import partitionable_cluster
from support.running import Running, eventually
from support.trimmed import last_index, trimmed_beyond

from holdfast.client import errors

LOG_TAIL = 100
WRITES = 900


def with_a_short_log(running: Running) -> None:
    for node in running.cluster.nodes:
        node.kill()
        config = yaml.safe_load(node.config_file.read_text())
        config["raft"] = {"log_tail": LOG_TAIL}
        node.config_file.write_text(yaml.safe_dump(config))
    running.restart(running.cluster.nodes)


@pytest.mark.timeout(240)
def test_a_node_that_missed_rotations_reads_what_they_encrypted() -> None:
    with partitionable_cluster(3, {"quorum_loss_grace": "24h"}) as (running, partition):
        with_a_short_log(running)
        leader = running.cluster.wait_serving()
        away = next(node for node in running.cluster.nodes if node is not leader)
        others = [node.api_address for node in running.cluster.nodes if node is not away]
        with running.client(*others) as client:
            client.kv.put("hot", {"value": -1})
            with running.client(away.api_address) as aside:
                eventually(lambda: aside.kv.get("hot").data == {"value": -1}, "the node has the first version")
            before = away.log_file.read_text().count("snapshot_installed")
            has = last_index(running, away)
            partition.isolate([away])
            for number in range(WRITES):
                client.kv.put("hot" if number % 2 else f"cold/{number}", {"value": number})
                if number % 200 == 100:
                    client.keys.rotate()
            term = client.keys.status().term

            def trimmed() -> bool:
                client.kv.put("more", {"value": 0})
                return trimmed_beyond(running, has)

            eventually(trimmed, "the log is trimmed although a member is cut off")
        assert term == 5

        wrong: list[Exception] = []
        caught_up, stop = threading.Event(), threading.Event()

        def read() -> None:
            with running.client(away.api_address, timeout_s=5) as client:
                while not stop.is_set():
                    try:
                        if client.kv.get("hot", stale=True).data != {"value": -1}:
                            caught_up.set()
                    except (errors.Unavailable, errors.OutcomeUnknown):
                        pass  # cut off, or busy taking up the state
                    except errors.HoldfastError as problem:
                        wrong.append(problem)

        readers = [threading.Thread(target=read, daemon=True) for _ in range(3)]
        for reader in readers:
            reader.start()
        try:
            partition.heal()
            assert caught_up.wait(60)
            with running.client(away.api_address) as client:
                got = eventually(lambda: client.kv.get("hot").data, "the node that was away serves linearizable reads")
                assert got == {"value": WRITES - 1}
                for number in range(0, WRITES, 50):
                    assert client.kv.get(f"cold/{number}").data == {"value": number}
            assert away.log_file.read_text().count("snapshot_installed") > before
        finally:
            stop.set()
            for reader in readers:
                reader.join(30)
        assert not wrong
        assert away.running
