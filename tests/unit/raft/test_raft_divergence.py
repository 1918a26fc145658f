"""The divergence alarm: what is compared, who stops, and what reading the records again finds."""

import pytest
from support.raft_rig import Alone, entries_of, put, raises

from holdfast.cluster.raft.comparing import SAMPLES_KEPT, Comparison, Reporting, StateMark
from holdfast.cluster.raft.messages import Append, AppendReply
from holdfast.cluster.raft.scrub import STEP_BYTES, Scrub
from holdfast.cluster.raft.statemachine import DATA, DIGESTS_KEPT, StateMachine
from holdfast.cluster.raft.timing import Timing
from holdfast.proto.errors import Corruption, Diverged
from holdfast.storage.batch import Batch
from holdfast.storage.memory import MemoryStore

RIGHT, WRONG = b"r" * 16, b"w" * 16


def mark(index: int, digest: bytes = RIGHT) -> StateMark:
    return StateMark(index, digest)


def test_what_a_majority_has_is_agreed() -> None:
    comparison = Comparison("a")
    comparison.take(mark(5), "abc")
    assert comparison.agreed == StateMark()
    assert not comparison.reported("b", mark(5), "abc")
    assert comparison.agreed == mark(5)


def test_a_leader_that_a_majority_contradicts_stops_itself() -> None:
    comparison = Comparison("a")
    comparison.take(mark(5, WRONG), "abc")
    assert comparison.reported("b", mark(5), "abc")
    error = raises(lambda: comparison.reported("c", mark(5), "abc"))
    assert isinstance(error, Diverged)
    assert "remove-peer" in error.message
    assert comparison.agreed == StateMark(), "it tells nobody that its state is right"


def test_one_against_one_decides_nothing() -> None:
    comparison = Comparison("a")
    comparison.take(mark(5), "abc")
    assert comparison.reported("b", mark(5, WRONG), "abc")
    assert comparison.agreed == StateMark()
    assert comparison.differing("abc") == ["b"]
    comparison.reported("c", mark(5), "abc")
    assert comparison.agreed == mark(5)


def test_who_does_not_vote_is_compared_but_not_counted() -> None:
    comparison = Comparison("a")
    comparison.take(mark(5, WRONG), "ab")
    comparison.reported("x", mark(5), "ab")
    comparison.reported("y", mark(5), "ab")
    assert comparison.agreed == StateMark()


def test_reports_come_late_and_of_other_indexes() -> None:
    comparison = Comparison("a")
    for index in range(1, SAMPLES_KEPT + 2):
        comparison.take(mark(index), "abc")
    assert not comparison.reported("b", mark(1, WRONG), "abc"), "too old to be remembered"
    assert not comparison.reported("b", mark(99, WRONG), "abc"), "never asked for"
    comparison.reported("b", mark(2), "abc")
    assert comparison.agreed == mark(2)
    comparison.reported("c", mark(7), "abc")
    comparison.reported("c", mark(3), "abc")
    assert comparison.agreed == mark(7), "what is agreed does not go back"


def test_a_member_reports_on_the_latest_sample_that_it_has_come_to() -> None:
    reporting = Reporting()
    assert reporting.due(100) == 0
    for index in (5, 9, 12):
        reporting.heard(mark(index), StateMark())
    assert [reporting.due(applied) for applied in (4, 5, 11, 12)] == [0, 5, 9, 12]


def test_a_member_that_differs_from_what_is_agreed_stops() -> None:
    reporting = Reporting()
    reporting.heard(mark(5), mark(5))
    reporting.compare(mark(4, WRONG))
    reporting.compare(mark(5))
    assert reporting.compared_index == 5
    reporting.heard(mark(6), mark(6))
    assert isinstance(raises(lambda: reporting.compare(mark(6, WRONG))), Diverged)


# In the machine


def test_a_follower_reports_its_state_and_stops_only_when_a_majority_has_another() -> None:
    node = Alone()
    first = node.machine.log.entry(1)
    entries = entries_of(first, put(b"k", b"v"), term=1)

    def heartbeat(sample: StateMark, agreed: StateMark) -> None:
        last = entries[-1]
        node.hear(
            "b",
            Append(
                term=1, prev_index=last.index, prev_term=1, prev_digest=last.digest, commit=last.index, stamp=2,
                trim=0, quorum_age_ms=0, sample=sample, agreed=agreed,
            ),
        )  # fmt: skip

    node.append(entries, previous=first, term=1, commit=2)
    own = node.machine.machine.state_digest
    node.take(AppendReply)
    heartbeat(mark(2, WRONG), StateMark())
    assert node.only(AppendReply, "b").state == mark(2, own), "the leader alone does not decide"
    heartbeat(mark(2, own), mark(2, own))
    heartbeat(mark(2), mark(1))
    error = raises(lambda: heartbeat(mark(2), mark(3, WRONG)) or node.append(
        entries_of(entries[-1], put(b"k", b"w"), term=1), previous=entries[-1], term=1, commit=3
    ))  # fmt: skip
    assert isinstance(error, Diverged), "what is agreed waits until this node has come so far"


def go_on(node: Alone, seconds: float = 1.1) -> Append:
    """The leader goes on, with b; its latest message to b."""
    for _ in range(int(seconds / 0.1)):
        node.advance(0.1)
        node.acknowledge("b")
    node.advance(0.05)
    return node.take(Append, "b")[-1]


def test_a_leader_takes_samples_and_tells_what_is_agreed() -> None:
    node = Alone()
    node.lead()
    node.propose(put(b"k", b"v"))
    node.acknowledge("b")
    latest = go_on(node)
    sample, stamp = latest.sample, latest.stamp
    assert sample == mark(node.machine.applied, node.machine.machine.state_digest)
    last = node.machine.log.last_index
    node.hear("b", AppendReply(node.machine.term, True, last, 0, stamp, True, sample))
    node.advance(0.05)
    assert node.take(Append, "c")[-1].agreed == sample
    contrary = mark(sample.index, WRONG)
    node.hear("c", AppendReply(node.machine.term, True, last, 0, stamp, True, contrary))
    go_on(node)
    assert node.machine.leadership is not None, "one follower's other state stops that follower, not the leader"


def test_a_leader_stops_when_both_others_have_another_state() -> None:
    node = Alone()
    node.lead()
    latest = go_on(node)
    last = node.machine.log.last_index
    contrary = mark(latest.sample.index, WRONG)
    reply = AppendReply(node.machine.term, True, last, 0, latest.stamp, True, contrary)
    node.hear("b", reply)
    assert isinstance(raises(lambda: node.hear("c", reply)), Diverged)


# The digest of a state


def test_the_kept_content_is_what_the_records_amount_to() -> None:
    store = MemoryStore()
    machine = StateMachine(store)
    batches = [put(b"a", b"1"), put(b"b", b"2"), Batch(deletes=(b"a", b"x")), put(b"b", b"3", revision=1)]
    machine.apply(entries_of(machine.applied, *batches, term=1))
    read = Scrub(machine, Timing(), 0.0)
    read.step(0.0)
    assert read.scrubbed_index == 4
    again = StateMachine(MemoryStore())
    again.apply(entries_of(again.applied, *batches[:2], term=1))
    assert again.content != machine.content


def test_digests_are_remembered_for_the_latest_entries() -> None:
    machine = StateMachine(MemoryStore())
    entries = entries_of(machine.applied, *[Batch()] * (DIGESTS_KEPT + 10), term=1)
    machine.apply(entries)
    assert machine.digest_at(DIGESTS_KEPT + 10) == machine.state_digest
    assert machine.digest_at(11) is not None
    assert machine.digest_at(10) is None


# Reading the records again


def filled(count: int, size: int = 100) -> tuple[MemoryStore, StateMachine]:
    store = MemoryStore()
    machine = StateMachine(store)
    machine.apply(entries_of(machine.applied, *[put(b"k%04d" % n, bytes(size)) for n in range(count)], term=1))
    return store, machine


@pytest.mark.parametrize("damage", ["altered", "lost", "added", "moved"])
def test_a_pass_finds_what_was_changed_where_it_lies(damage: str) -> None:
    store, machine = filled(40)
    stored = store.get(DATA + b"k0007")
    assert stored is not None
    if damage == "altered":
        store.write([(DATA + b"k0007", stored[:-1] + b"\x01")])
    elif damage == "lost":
        store.write([], [DATA + b"k0007"])
    elif damage == "added":
        store.write([(DATA + b"k9999", stored)])
    else:
        other = store.get(DATA + b"k0008")
        assert other is not None
        store.write([(DATA + b"k0007", other), (DATA + b"k0008", stored)])
    with pytest.raises(Corruption, match="were altered"):
        Scrub(machine, Timing(), 0.0).step(0.0)


def test_a_pass_goes_step_by_step_and_no_faster_than_the_rate_while_writes_go_on() -> None:
    _, machine = filled(2000)
    scrub = Scrub(machine, Timing(scrub_bytes_per_s=STEP_BYTES), 0.0)
    now_s, steps = 0.0, 0
    while not scrub.scrubbed_index:
        before = scrub._budget_bytes
        scrub.step(now_s)
        steps += scrub._budget_bytes < before
        machine.apply(entries_of(machine.applied, put(b"k0001", b"new"), term=1))
        now_s += 0.1
    assert scrub.scrubbed_index == 2000, "the state of one moment is read"
    read_bytes = 2000 * (5 + 108 + 256)
    assert steps == read_bytes // STEP_BYTES
    assert now_s > read_bytes / STEP_BYTES - 2


def test_passes_follow_at_an_interval_or_when_there_is_doubt() -> None:
    store, machine = filled(3)
    scrub = Scrub(machine, Timing(), 0.0)
    scrub.step(0.0)
    store.write([(DATA + b"k0001", b"altered-record")])
    scrub.step(80_000.0)
    scrub.hasten(80_000.0)
    with pytest.raises(Corruption):
        scrub.step(80_001.0)
    later = Scrub(machine, Timing(), 0.0)
    later._due_s = 100.0
    later.step(99.0)
    with pytest.raises(Corruption):
        later.step(100.0)


def test_a_pass_that_was_abandoned_begins_anew() -> None:
    _, machine = filled(2000)
    scrub = Scrub(machine, Timing(), 0.0)
    scrub.step(0.0)
    store, _ = filled(3)
    scrub.abandon()
    machine.adopt(store)
    scrub.step(10.0)
    assert scrub.scrubbed_index == 3
