"""A member that was away is sent a snapshot while everybody is killed, and then while whoever sends it is: nothing
acknowledged is lost, it is served in the end, and all replicas are the same."""

import time
from collections.abc import Iterator

import pytest
from support.replicas import assert_all_equal
from support.running import Running, Writer, assert_nothing_lost, eventually, running_cluster
from support.trimmed import away_until_trimmed, events, prepare

from holdfast.client import ClientConfig

WRITES = 1200
SIZE = 24_000  # about 30 MiB in all, of which at most 16 are sent in a second
SENDER_KILLS = 4
ALL_KILLS = 3


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with running_cluster(prepare=prepare) as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_everybody_and_then_the_sender_is_killed_while_a_snapshot_is_sent(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    away = away_until_trimmed(running, "large", writes=WRITES, size=SIZE)
    config = ClientConfig(
        addresses=running.cluster.addresses, ca_file=running.cluster.ca_file, token=running.token, timeout_s=90
    )
    writers = [Writer(config, f"meanwhile-{number}") for number in range(2)]
    for writer in writers:
        writer.start()
    installed = len(events(away, "snapshot_installed"))
    recovered_s: list[float] = []

    def kill_while_receiving(*, everybody: bool, receiver: bool) -> None:
        """Kill whoever sends, or all, in the middle of a reception; start all but the receiver again."""
        begun = len(events(away, "snapshot_reception_begins"))
        if not away.running:
            away.start()
        eventually(lambda: len(events(away, "snapshot_reception_begins")) > begun, "a reception begins")
        sender = running.cluster.wait_serving()
        began_s = time.monotonic()
        victims = [node for node in running.cluster.nodes if node is not away] if everybody else [sender]
        for victim in victims:
            victim.kill()
        if receiver:
            away.kill()
        assert len(events(away, "snapshot_installed")) == installed, "it was killed in the middle"
        running.restart(victims)
        eventually(lambda: running.cluster.leader(), "somebody leads")
        recovered_s.append(time.monotonic() - began_s)

    for _ in range(ALL_KILLS):
        kill_while_receiving(everybody=True, receiver=True)
    for _ in range(SENDER_KILLS - 1):
        kill_while_receiving(everybody=False, receiver=True)
    kill_while_receiving(everybody=False, receiver=False)  # it goes on with the next leader
    eventually(lambda: len(events(away, "snapshot_installed")) > installed, "the snapshot is installed")
    running.unseal(away)
    for writer in writers:
        writer.stop()
    with running.client() as client:
        checked = sum(assert_nothing_lost(client, writer) for writer in writers)
    same = assert_all_equal(running)
    with capsys.disabled():
        failures = sum(len(writer.failures) for writer in writers)
        print(
            f"\n{SENDER_KILLS} senders and {ALL_KILLS} times everybody killed during a reception: "
            f"{checked} kept versions compared, {failures} errors reached a writer, {same.records} records are the "
            f"same on every node; killed until restarted, unsealed and led: max {max(recovered_s):.2f} s; each: "
            + " ".join(f"{took:.2f}" for took in recovered_s)
        )
    assert checked
    assert {path.name for path in away.data_dir.glob("state.*")} <= {"state.replaced"}
