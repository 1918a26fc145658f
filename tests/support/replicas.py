"""Whether all replicas of a cluster hold the same: read from the state folders of nodes that were just killed."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from support.running import Running, eventually

from holdfast.cluster.raft.statemachine import DATA, StateMachine
from holdfast.storage.keys import successor
from holdfast.storage.rockshome import RocksHome

ATTEMPTS = 5


@dataclass(frozen=True)
class Replica:
    """index, log_digest: of the last entry applied. state_digest: over the outcomes of all batches and
    all records. contents: over every record. (Remembered request ids are not compared: each node tidies old ones away
    when it likes.)"""

    index: int
    log_digest: str
    state_digest: str
    contents: str
    records: int


def read(data_dir: Path) -> Replica:
    """The state of a node that does not run."""
    home = RocksHome.open(data_dir / "state")
    try:
        machine = StateMachine(home.store)
        digest, records = hashlib.sha256(), 0
        for key, value in home.store.scan(DATA, successor(DATA)):
            digest.update(len(key).to_bytes(4, "big") + key + len(value).to_bytes(4, "big") + value)
            records += 1
        meta = machine._meta
        return Replica(
            meta.at.index, meta.at.digest.hex(), (meta.outcomes + meta.content).hex(), digest.hexdigest(), records
        )
    finally:
        home.close()


def assert_all_equal(running: Running) -> Replica:
    """Kill every node once all have applied the same, compare, and start them again. Nothing may write meanwhile."""

    def level() -> bool:
        with running.client() as client:
            peers = client.raft.list_peers().peers
            return len({peer.match_index for peer in peers}) == 1 and len(peers) == len(running.cluster.nodes)

    replicas: list[Replica] = []
    for _ in range(ATTEMPTS):  # a follower hears of the last commit with the next heartbeat
        eventually(level, "all replicas reach the same index")
        for node in running.cluster.nodes:
            node.kill()
        replicas = [read(node.data_dir) for node in running.cluster.nodes]
        running.restart(running.cluster.nodes)
        running.cluster.wait_serving()
        if len({replica.index for replica in replicas}) == 1:
            break
    assert len(set(replicas)) == 1, replicas
    return replicas[0]
