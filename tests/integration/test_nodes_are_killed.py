"""Nodes are killed while clients write and the log is trimmed: nothing acknowledged is lost, writers hardly notice, and
all replicas are the same afterwards."""

import statistics
import time
from collections.abc import Iterator

import pytest
import yaml
from support.replicas import assert_all_equal
from support.running import Running, Writer, assert_nothing_lost, eventually, running_cluster

from holdfast.client import ClientConfig
from holdfast.client.local import LocalCluster

WRITERS = 4
LEADER_KILLS = 20
ALL_KILLS = 10
LOG_TAIL = 100
SETTLED_S_MAX = 60.0
"""Far beyond what is expected (3 s): how long it takes depends on the machine, that it ends does not."""


def with_small_tail(cluster: LocalCluster) -> None:
    for node in cluster.nodes:
        config = yaml.safe_load(node.config_file.read_text())
        config["raft"] = {"log_tail": LOG_TAIL}
        node.config_file.write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with running_cluster(prepare=with_small_tail) as cluster:
        yield cluster


def start_writers(running: Running, prefix: str) -> list[Writer]:
    config = ClientConfig(
        addresses=running.cluster.addresses, ca_file=running.cluster.ca_file, token=running.token, timeout_s=60
    )
    writers = [Writer(config, f"{prefix}-{number}") for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    return writers


def progressed(writers: list[Writer], beyond: list[int], by: int = 5) -> bool:
    return all(len(writer.latencies_s) > before + by for writer, before in zip(writers, beyond, strict=True))


def counts(writers: list[Writer]) -> list[int]:
    return [len(writer.latencies_s) for writer in writers]


def settled_s(writers: list[Writer], since_s: float) -> float:
    """Seconds from `since_s` until every writer has had an answer to a write that it began later."""
    before = counts(writers)
    eventually(lambda: progressed(writers, before, by=1), "every writer goes on", SETTLED_S_MAX, every_s=0.005)
    return time.monotonic() - since_s


def summary(what: str, times_s: list[float]) -> str:
    each = " ".join(f"{took:.2f}" for took in times_s)
    return f"{what}: median {statistics.median(times_s):.2f} s, max {max(times_s):.2f} s; each: {each}"


def trims(running: Running) -> int:
    return sum(node.log_file.read_text().count('"log_trimmed"') for node in running.cluster.nodes)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_leader_is_killed_twenty_times_under_load(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    writers = start_writers(running, "leader")
    reconverged_s: list[float] = []
    slowest_s: list[float] = []
    trimmed = trims(running)
    for _ in range(LEADER_KILLS):
        before = counts(writers)
        eventually(lambda before=before: progressed(writers, before), "the writers make progress")
        victim = running.cluster.wait_serving()
        before, killed_at_s = counts(writers), time.monotonic()
        victim.kill()
        reconverged_s.append(settled_s(writers, killed_at_s))
        slowest_s.append(max(max(w.latencies_s[count - 1 :]) for w, count in zip(writers, before, strict=True)))
        running.restart([victim])
    for writer in writers:
        writer.stop()
    with running.client() as client:
        checked = sum(assert_nothing_lost(client, writer) for writer in writers)
    same = assert_all_equal(running)
    acknowledged = sum(len(writes) for writer in writers for writes in writer.acknowledged.values())
    failures = [failure for writer in writers for failure in writer.failures]
    with capsys.disabled():
        print(
            f"\nleader killed {LEADER_KILLS} times: {acknowledged} writes acknowledged, {checked} kept versions "
            f"compared, {len(failures)} errors reached a writer, the log was trimmed {trims(running) - trimmed} times, "
            f"{same.records} records are the same on every node\n"
            + summary("  every writer went on after", reconverged_s)
            + "\n"
            + summary("  slowest write around each kill", slowest_s)
        )
    assert not failures
    assert trims(running) > trimmed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_nodes_are_killed_at_once_ten_times_under_load(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    everything: list[Writer] = []
    reconverged_s: list[float] = []
    trimmed = trims(running)
    for round_ in range(ALL_KILLS):
        writers = start_writers(running, f"all{round_}")
        everything += writers
        before = counts(writers)
        eventually(lambda w=writers, b=before: progressed(w, b), "the writers make progress")
        for node in running.cluster.nodes:
            node.kill()
        running.restart(running.cluster.nodes)
        unsealed_at_s = time.monotonic()
        reconverged_s.append(settled_s(writers, unsealed_at_s))
        for writer in writers:
            writer.stop()
        with running.client() as client:
            for writer in writers:
                assert_nothing_lost(client, writer)
    with running.client() as client:
        for writer in everything:
            assert_nothing_lost(client, writer)
    same = assert_all_equal(running)
    with capsys.disabled():
        acknowledged = sum(len(writes) for writer in everything for writes in writer.acknowledged.values())
        failures = sum(len(writer.failures) for writer in everything)
        print(
            f"\nall nodes killed {ALL_KILLS} times: {acknowledged} acknowledged, {failures} errors reached a writer, "
            f"the log was trimmed {trims(running) - trimmed} times, {same.records} records are the same on every node\n"
            + summary("  every writer went on after the last unseal", reconverged_s)
        )


def test_replicas_answer_the_same_afterwards(running: Running) -> None:
    assert_all_equal(running)
    answers = []
    for node in running.cluster.nodes:
        with running.client(node.api_address) as client:
            names = sorted(client.kv.list("load", stale=True))
            answers.append([(name, client.kv.get(f"load/{name}", stale=True).data) for name in names])
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]
