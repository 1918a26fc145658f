"""Clusters whose log is trimmed early, so that a member that was away needs a snapshot."""

import json
from concurrent.futures import ThreadPoolExecutor

import yaml
from support.running import Running, eventually

from holdfast.client.local import LocalCluster, LocalNode

LOG_TAIL = 100
WRITERS = 8
PATHS = 400


def with_small_tail(node: LocalNode) -> None:
    """Keep few entries of the log."""
    config = yaml.safe_load(node.config_file.read_text())
    config["raft"] = {"log_tail": LOG_TAIL}
    node.config_file.write_text(yaml.safe_dump(config))


def prepare(cluster: LocalCluster) -> None:
    """For `running_cluster`."""
    for node in cluster.nodes:
        with_small_tail(node)


def write_many(running: Running, count: int, *, name: str, size: int = 20) -> None:
    """Small writes, from several clients at once."""

    def write(writer: int) -> None:
        with running.client() as client:
            for n in range(writer, count, WRITERS):
                client.kv.put(f"{name}/{n % PATHS}", {"n": n, "fill": "x" * size})

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))


def events(node: LocalNode, event: str) -> list[dict[str, object]]:
    """The lines of a node's log about one event."""
    lines = [json.loads(line) for line in node.log_file.read_text().splitlines() if f'"{event}"' in line]
    return [line for line in lines if line["event"] == event]


def trimmed_beyond(running: Running, index: int) -> bool:
    """Whether the leader's log begins above an index."""
    leader = running.cluster.wait_serving()
    return any(int(str(line["first_index"])) > index + 1 for line in events(leader, "log_trimmed"))


def last_index(running: Running, node: LocalNode) -> int:
    """How far a member's log is known to match the leader's."""
    with running.client() as client:
        peers = client.raft.list_peers().peers
    return next(peer.match_index for peer in peers if peer.node_id == node.node_id)


def away_until_trimmed(running: Running, name: str, *, writes: int, size: int = 20) -> LocalNode:
    """Kill a follower, and write until the others have trimmed what it misses."""
    leader = running.cluster.wait_serving()
    away = next(node for node in running.cluster.nodes if node is not leader and node.running)
    index = last_index(running, away)
    away.kill()
    write_many(running, writes, name=name, size=size)

    def trimmed() -> bool:
        write_many(running, 40, name="more")
        return trimmed_beyond(running, index)

    eventually(trimmed, "the log is trimmed although a member is away")
    return away
