"""The simulator's own eyes: what is broken on purpose is seen. (The catalogue in tests/mutants breaks far more.)"""

from collections.abc import Callable, Iterator

import pytest
import structlog
from support import sim_runs
from support.raft_story import lived

from holdfast.cluster.raft import voting
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.leadership import Leadership
from holdfast.cluster.raft.outbox import Outbox
from holdfast.cluster.raft.quorum_contact import QuorumContact
from holdfast.cluster.raft.reads import ReadRounds
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.cluster.seal.quorum_watch import QuorumWatch, Verdict
from holdfast.proto.errors import Fatal

SEEDS = 60
"""Within how many lives it must be seen."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    sim_runs.quiet()
    yield
    structlog.reset_defaults()


def a_sync_counts_for_what_came_after_it(patch: pytest.MonkeyPatch) -> None:
    def end_sync(journal: Journal) -> None:
        journal._synced, journal._in_flight, journal._meta_in_flight = journal.last_index, None, False

    patch.setattr(Journal, "end_sync", end_sync)


def a_failed_sync_is_ignored(patch: pytest.MonkeyPatch) -> None:
    synced = Outbox._synced
    patch.setattr(Outbox, "_synced", lambda outbox, leaving, error: synced(outbox, leaving, None))


def votes_leave_before_they_are_durable(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "post", lambda outbox, node_id, message: outbox._deliver(node_id, message))


def votes_for_older_logs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(voting, "log_is_up_to_date", lambda **_: True)


def reads_need_no_quorum(patch: pytest.MonkeyPatch) -> None:
    begin = ReadRounds.begin

    def answered(rounds: ReadRounds, stamp: int, commit: int) -> None:
        begin(rounds, stamp, commit)
        rounds.echoed(stamp)

    patch.setattr(ReadRounds, "begin", answered)


def reads_before_the_terms_own_entry(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leadership, "read_ready", property(lambda leadership: True))


def retried_requests_count_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StateMachine, "_remembered", lambda machine, key, now_ms: None)


def a_node_never_seals_itself(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(QuorumWatch, "observe", lambda watch, now_s, age_s, alone=False: Verdict.HOLD)


def what_waited_in_a_socket_counts_as_contact(patch: pytest.MonkeyPatch) -> None:
    def reported(contact: QuorumContact, contact_s: float) -> None:
        contact.known_s = max(contact.known_s, contact_s)

    patch.setattr(QuorumContact, "reported", reported)


@pytest.mark.parametrize(
    "broken",
    [
        a_sync_counts_for_what_came_after_it, a_failed_sync_is_ignored, votes_leave_before_they_are_durable,
        votes_for_older_logs, reads_need_no_quorum, reads_before_the_terms_own_entry, retried_requests_count_again,
        a_node_never_seals_itself, what_waited_in_a_socket_counts_as_contact,
    ],
)  # fmt: skip
def test_what_is_broken_is_seen(broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch)
    with pytest.raises((AssertionError, Fatal)) as seen:  # noqa: PT012 - which seed sees it is open
        for seed in range(SEEDS):
            lived(seed)
    print(str(seen.value).splitlines()[0])
