"""Nodes are killed while clients write: nothing acknowledged is lost, and writers hardly notice."""

import statistics
from collections.abc import Iterator

import pytest
from support.running import Running, Writer, assert_nothing_lost, eventually, running_cluster

from holdfast.client import ClientConfig

WRITERS = 4
LEADER_KILLS = 10
ALL_KILLS = 5


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with running_cluster() as cluster:
        yield cluster


def start_writers(running: Running, prefix: str) -> list[Writer]:
    config = ClientConfig(
        addresses=running.cluster.addresses, ca_file=running.cluster.ca_file, token=running.token, timeout_s=60
    )
    writers = [Writer(config, f"{prefix}-{number}") for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    return writers


def progressed(writers: list[Writer], beyond: list[int]) -> bool:
    return all(len(writer.latencies_s) > before + 5 for writer, before in zip(writers, beyond, strict=True))


def counts(writers: list[Writer]) -> list[int]:
    return [len(writer.latencies_s) for writer in writers]


@pytest.mark.timeout(600)
def test_leader_is_killed_ten_times_under_load(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    writers = start_writers(running, "leader")
    slowest = []
    for _ in range(LEADER_KILLS):
        before = counts(writers)
        eventually(lambda before=before: progressed(writers, before), "the writers make progress")
        victim = running.cluster.wait_serving()
        before = counts(writers)
        victim.kill()
        eventually(lambda before=before: progressed(writers, before), "the writers go on without the leader")
        slowest.append(max(max(w.latencies_s[count - 1 :]) for w, count in zip(writers, before, strict=True)))
        running.restart([victim])
    for writer in writers:
        writer.stop()
    with running.client() as client:
        checked = sum(assert_nothing_lost(client, writer) for writer in writers)
    acknowledged = sum(len(writes) for writer in writers for writes in writer.acknowledged.values())
    failures = [failure for writer in writers for failure in writer.failures]
    with capsys.disabled():
        print(
            f"\nleader killed {LEADER_KILLS} times: {acknowledged} writes acknowledged, "
            f"{checked} kept versions compared, "
            f"{len(failures)} errors reached a writer; slowest write around each kill: "
            f"min {min(slowest):.2f} s, median {statistics.median(slowest):.2f} s, max {max(slowest):.2f} s"
        )
    assert not failures


@pytest.mark.timeout(600)
def test_all_nodes_are_killed_at_once_five_times_under_load(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    everything: list[Writer] = []
    for round_ in range(ALL_KILLS):
        writers = start_writers(running, f"all{round_}")
        everything += writers
        before = counts(writers)
        eventually(lambda w=writers, b=before: progressed(w, b), "the writers make progress")
        for node in running.cluster.nodes:
            node.kill()
        running.restart(running.cluster.nodes)
        running.cluster.wait_serving()
        before = counts(writers)
        eventually(lambda w=writers, b=before: progressed(w, b), "the writers go on after the restart")
        for writer in writers:
            writer.stop()
        with running.client() as client:
            for writer in everything:
                assert_nothing_lost(client, writer)
    with capsys.disabled():
        acknowledged = sum(len(writes) for writer in everything for writes in writer.acknowledged.values())
        failures = sum(len(writer.failures) for writer in everything)
        print(f"\nall nodes killed {ALL_KILLS} times: {acknowledged} acknowledged, {failures} errors reached a writer")


def test_replicas_hold_the_same_state_afterwards(running: Running) -> None:
    def level() -> bool:
        with running.client() as client:
            peers = client.raft.list_peers()
            return len({peer.match_index for peer in peers.peers}) == 1 and len(peers.peers) == 3

    eventually(level, "all replicas reach the same index")
    answers = []
    for node in running.cluster.nodes:
        with running.client(node.api_address) as client:
            names = sorted(client.kv.list("load", stale=True))
            answers.append([(name, client.kv.get(f"load/{name}", stale=True).data) for name in names])
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]
