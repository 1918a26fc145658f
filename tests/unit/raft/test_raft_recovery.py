"""A quorum that is lost for good: the comparison of survivors, and the one write that makes a new membership."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from support.raft_rig import entries_of, member, members, noop, put

from holdfast.cluster.raft import membership
from holdfast.cluster.raft.entries import Entry, Kind, follow
from holdfast.cluster.raft.installing import reconcile
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.lineage import ID_BYTES, RECOVERIES_MAX, Kinship, Verdict, judge, kinship
from holdfast.cluster.raft.membership import Configuration
from holdfast.cluster.raft.recovery import TERM_STEP, Survivor, plan, recover, survey
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.proto.errors import FailedPrecondition, InvalidArgument, StorageFailed
from holdfast.storage.memory import MemoryStore

FIRST, SECOND = b"1" * ID_BYTES, b"2" * ID_BYTES


class Disk:
    """A stopped node's disk: its log as a list of terms, and how much of it was applied."""

    def __init__(
        self, name: str, terms: Sequence[int], *, applied: int = 1, names: str = "abcde", text: str = "v"
    ) -> None:
        self.name = name
        self.store, self.state = MemoryStore(), MemoryStore()
        self.journal = Journal(self.store, initial=membership.initial(members(names)))
        for term in terms:
            entry = entries_of(self.journal.last, put(b"k", b"%s%d" % (text.encode(), term)), term=term)[0]
            self.journal.append(entry)
        self.journal.setCurrentTerm(max([1, *terms]), None)
        self.journal.vouch()
        self.journal.note_founded()
        self.journal.sync()
        self.machine = StateMachine(self.state)
        self.machine.apply([self.journal.entry(index) for index in range(1, applied + 1)])

    def survey(self, **changes: Any) -> Survivor:
        made = survey(self.journal, self.machine, node_id=self.name, cluster_name="production")
        return msgspec.structs.replace(made, **changes)


def test_the_best_log_is_of_the_latest_term_and_then_the_longest() -> None:
    later = Disk("d", [1, 1, 3], applied=2).survey()
    longer = Disk("e", [1, 1, 2, 2, 2], applied=2).survey()
    made = plan([longer, later])
    assert made.best is later
    assert [standing.survivor.node_id for standing in made.standings] == ["d", "e"]
    beside = made.standings[1]
    assert (beside.shared_to, beside.missing, beside.dropped, beside.role) == (3, 1, 3, "voter")
    assert [lost.node_id for lost in made.lost] == ["a", "b", "c"]
    assert (made.committed, made.undecided, made.voters, made.may_lose) == (2, (3, 4), 5, True)
    assert made.term == 3 + TERM_STEP


def test_the_order_in_which_survivors_are_given_does_not_matter() -> None:
    disks = [Disk("d", [1, 1]).survey(), Disk("e", [1, 1]).survey()]
    assert plan(disks) == plan(disks[::-1])


def test_half_of_an_even_number_of_voters_has_everything_that_was_acknowledged() -> None:
    made = plan([Disk("c", [1, 1], names="abcd").survey(), Disk("d", [1], names="abcd").survey()])
    assert (made.best.node_id, made.may_lose) == ("c", False)


def test_a_term_that_a_survivor_voted_in_is_left_behind_too() -> None:
    assert plan([Disk("d", [1]).survey(), Disk("e", [1]).survey(term=77)]).term == 77 + TERM_STEP


def test_a_log_that_begins_above_the_others_end_is_not_compared_but_counted() -> None:
    best = Disk("d", [1] * 9, applied=9)
    best.journal.compact(8)
    made = plan([best.survey(), Disk("e", [1]).survey()])
    assert (made.standings[1].shared_to, made.standings[1].missing, made.standings[1].dropped) == (None, 8, 0)


def test_a_learner_can_be_the_best() -> None:
    disk = Disk("f", [1], names="abc")
    payload = membership.encode(membership.initial(members("abc")).with_learner(member("f")))
    disk.journal.append(follow(disk.journal.last, term=1, cluster_time_ms=9, kind=Kind.MEMBERSHIP, payload=payload))
    made = plan([disk.survey(), Disk("a", [1], names="abc").survey()])
    assert (made.best.node_id, made.standings[0].role, made.voters) == ("f", "learner", 3)


@pytest.mark.parametrize(
    ("survivors", "said"),
    [
        ([], "name the data folders"),
        ([Disk("d", [1]).survey(), Disk("d", [1]).survey()], "d is given twice"),
        ([Disk("d", [1]).survey(), Disk("e", [1]).survey(cluster_name="test")], "different clusters"),
        ([Disk("x", [1]).survey()], "x is no member by its own log"),
        ([Disk("a", [1], names="abc").survey(), Disk("c", [1], names="abc").survey()], "nothing is lost: a, c are"),
        ([Disk("a", [1], names="a").survey()], "a is the only voter"),
        ([Disk("d", [1, 1]).survey(), Disk("e", [1, 1], text="w").survey()], "contradict each other at index 2"),
        ([Disk("d", [2, 2]).survey(), Disk("e", [1, 1], applied=3).survey()], "contradict each other at index 2"),
        ([Disk("d", [2]).survey(), Disk("e", [1, 1, 1], applied=3).survey()], "contradict each other at index"),
        ([Disk("d", [1]).survey(), Disk("e", [1]).survey(state_digest="00" * 16)], "contradict each other at index 1"),
        ([Disk("d", [1, 2]).survey(lineage=FIRST.hex()), Disk("e", [1]).survey()], "e was given up in an earlier"),
        (
            [Disk("d", [1, 2]).survey(lineage=FIRST.hex()), Disk("e", [1]).survey(lineage=SECOND.hex())],
            "e and d were recovered apart",
        ),
    ],
)  # fmt: skip
def test_what_is_no_case_for_a_recovery_is_refused(survivors: list[Survivor], said: str) -> None:
    with pytest.raises((FailedPrecondition, InvalidArgument), match=said):
        plan(survivors)


def test_a_new_disk_that_was_not_brought_up_to_date_makes_no_quorum() -> None:
    made = plan([Disk("a", [1], names="abc").survey(), Disk("c", [1], names="abc").survey(vouched=False)])
    assert made.best.node_id == "c"
    assert made.may_lose


def test_a_founding_that_never_committed_anything_is_no_lost_quorum() -> None:
    fresh = [Disk(name, [], names="abc").survey(vouched=False, founded=False) for name in "ab"]
    with pytest.raises(FailedPrecondition, match="nothing is lost"):
        plan(fresh)


def test_a_recovered_log_has_one_voter_a_later_term_and_a_longer_lineage() -> None:
    disk = Disk("d", [1, 1])
    recover(disk.journal, member=member("d"), term=50, recovery_id=FIRST)
    again = Journal(disk.store.crash(), initial=None)
    assert again.configurations.current == Configuration((member("d"),), (), FIRST)
    assert (again.getCurrentTerm(), again.last.term, again.getVotedForNodeId()) == (50, 50, None)
    assert again.vouched
    assert again.founded
    assert again.last_index == 4
    assert reconcile(again, disk.machine) == 1
    recover(again, member=member("d"), term=60, recovery_id=SECOND)
    assert again.configurations.current.lineage == FIRST + SECOND


def test_a_lineage_outlives_every_change_of_members() -> None:
    configuration = Configuration((member("d"),), (), FIRST)
    grown = configuration.with_learner(member("f"))
    assert {c.lineage for c in (grown, grown.promoted("f"), grown.without("d"))} == {FIRST}


def test_a_cluster_is_not_recovered_for_ever() -> None:
    disk = Disk("d", [1])
    payload = membership.encode(Configuration((member("d"),), (), FIRST * RECOVERIES_MAX))
    disk.journal.append(follow(disk.journal.last, term=1, cluster_time_ms=9, kind=Kind.MEMBERSHIP, payload=payload))
    with pytest.raises(FailedPrecondition, match="recovered 128 times"):
        recover(disk.journal, member=member("d"), term=50, recovery_id=FIRST)


class Dying(MemoryStore):
    """A store whose process dies at the n-th change: before a write, after it, or in the sync."""

    steps = 10**9

    def _step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise StorageFailed("the process dies here")

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes] = ()) -> None:
        self._step()
        super().write(puts, deletes)
        self._step()

    def sync(self) -> None:
        self._step()
        super().sync()
        self._step()


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("steps", range(5))
def test_a_crash_anywhere_in_a_recovery_leaves_the_old_membership_or_the_new_one(steps: int, kept: int) -> None:
    store = Dying()
    journal = Journal(store, initial=membership.initial(members("abcde")))
    for entry in (*entries_of(journal.last, put(b"k", b"v"), put(b"k", b"w"), term=3),):
        journal.append(entry)
    journal.setCurrentTerm(4, "b")
    journal.sync()
    before = (journal.last_index, 4, "b", journal.configurations.voters)
    store.steps = steps
    died = False
    try:
        recover(journal, member=member("d"), term=50, recovery_id=FIRST)
    except StorageFailed:
        died = True
    assert died == (steps < 4)
    again = Journal(store.crash(unsynced_kept=kept), initial=None)
    found = (again.last_index, again.getCurrentTerm(), again.getVotedForNodeId(), again.configurations.voters)
    new = (before[0] + 1, 50, None, ("d",))
    assert found in ((new,) if steps >= 3 else (before, new))
    if steps < 1:
        assert found == before


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (b"", b"", Kinship.SAME),
        (FIRST, FIRST, Kinship.SAME),
        (b"", FIRST, Kinship.AHEAD),
        (FIRST, b"", Kinship.BEHIND),
        (FIRST, FIRST + SECOND, Kinship.AHEAD),
        (FIRST, SECOND, Kinship.FOREIGN),
        (FIRST + SECOND, FIRST + FIRST, Kinship.FOREIGN),
    ],
)
def test_lineages_are_compared_by_what_they_begin_with(own: bytes, other: bytes, expected: Kinship) -> None:
    assert kinship(own, other) is expected


@pytest.mark.parametrize(
    ("own", "peer", "vouched", "lives", "expected"),
    [
        (b"", b"", True, True, Verdict.SPEAK),
        (FIRST, b"", True, True, Verdict.SPEAK),
        (b"", FIRST, False, False, Verdict.FOUNDED),
        (b"", FIRST, False, True, Verdict.FOUNDED),
        (b"", FIRST, True, False, Verdict.LEFT_BEHIND),
        (b"", FIRST, True, True, Verdict.REFUSE),
        (FIRST, SECOND, True, False, Verdict.REFUSE),
        (FIRST, SECOND, False, False, Verdict.REFUSE),
    ],
)
def test_a_node_that_was_given_up_stops_unless_it_belongs_to_something_alive(
    own: bytes, peer: bytes, vouched: bool, lives: bool, expected: Verdict
) -> None:
    assert judge(own, peer, vouched=vouched, has_led_or_heard=lives) is expected


def test_a_survey_holds_enough_digests_of_a_long_log_to_compare_it() -> None:
    disk = Disk("d", [1])
    for _ in range(6000):
        disk.journal.append(noop(disk.journal.last, term=1))
    disk.journal.sync()
    survivor = disk.survey()
    known = dict(survivor.digests)
    assert set(range(6002 - 4096 + 1, 6003)) <= known.keys()
    assert {256, 512, 1024} <= known.keys()
    entry = disk.journal.entry(512)
    assert isinstance(entry, Entry)
    assert known[512] == entry.digest.hex()
