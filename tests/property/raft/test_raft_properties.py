"""Properties of consensus' codecs and of its state machines, each against a second version as simple as it can be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raft_rig import entries_of, members, noop, put

from holdfast.cluster.raft import membership, messages
from holdfast.cluster.raft.entries import Entry, Position
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.messages import Append, MalformedMessage
from holdfast.cluster.raft.replica import accept
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.proto.errors import Diverged
from holdfast.storage.batch import Batch, Precondition, Put, RequestRecord
from holdfast.storage.memory import MemoryStore

INITIAL = membership.initial(members("abc"))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_decode_or_are_malformed(payload: bytes) -> None:
    try:
        message = messages.decode(payload)
    except MalformedMessage:
        return
    assert messages.decode(messages.encode(message)) == message


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_one_changed_byte_of_an_append_is_noticed_or_harmless(data: st.DataObject) -> None:
    """What decodes in spite of a change never gets an entry into a log that the leader's log does not have."""
    journal = Journal(MemoryStore(), initial=INITIAL)
    first = journal.last
    entries = entries_of(first, put(b"k", b"v"), put(b"l", b"w"), term=1)
    append = Append(1, 1, 0, first.digest, 0, 1, 0, 0, entries)
    wire = bytearray(messages.encode(append))
    wire[data.draw(st.integers(0, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        message = messages.decode(bytes(wire))
        if isinstance(message, Append):
            accept(journal, 0, message)
    except (MalformedMessage, Diverged):
        return
    for index in range(2, journal.last_index + 1):
        assert journal.entry(index) == entries[index - 2]


KEYS = st.sampled_from([b"a", b"b", b"c"])
BATCH = st.builds(
    Batch,
    puts=st.lists(st.builds(Put, KEYS, st.binary(max_size=3)), max_size=2, unique_by=lambda p: p.key).map(tuple),
    preconditions=st.lists(st.builds(Precondition, KEYS, st.integers(0, 6)), max_size=2).map(tuple),
    request=st.none() | st.builds(RequestRecord, st.sampled_from([b"r", b"s"]), st.binary(max_size=2)),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(BATCH, min_size=1, max_size=12), st.lists(st.integers(1, 4), min_size=12, max_size=12))
def test_the_outcomes_do_not_depend_on_chunks_or_crashes(batches: list[Batch], cuts: list[int]) -> None:
    whole = StateMachine(MemoryStore())
    entries = entries_of(whole.applied, *batches, term=1)
    expected = whole.apply(entries)
    store = MemoryStore()
    for cut in cuts:
        machine = StateMachine(store)
        rest = entries[machine.applied.index :]
        if rest:
            at = machine.applied.index
            assert machine.apply(rest[:cut]).outcomes == expected.outcomes[at : at + cut]
            store = store.crash(unsynced_kept=store.unsynced_writes if cut % 2 else 0)
    machine = StateMachine(store)
    if rest := entries[machine.applied.index :]:
        machine.apply(rest)
    assert machine.state_digest == whole.state_digest
    assert [machine.get(key) for key in (b"a", b"b", b"c")] == [whole.get(key) for key in (b"a", b"b", b"c")]


STEP = st.tuples(
    st.sampled_from(["append", "truncate", "compact", "sync", "begin", "end", "crash", "term"]), st.integers(0, 9)
)


@settings(deadline=None, max_examples=200)
@given(st.lists(STEP, max_size=40))
def test_the_journal_behaves_as_a_list_of_which_a_crash_keeps_what_was_synced(steps: list[tuple[str, int]]) -> None:
    store = MemoryStore()
    journal = Journal(store, initial=INITIAL)
    model: list[Entry | Position] = [Position(), journal.entry(1)]
    term, job = 0, None
    durable: tuple[list[Entry | Position], int] = (list(model), 0)
    in_flight = durable
    for step, number in steps:
        base, last = model[0].index, model[-1].index
        if step == "append":
            entry = noop(model[-1], term=term)
            journal.append(entry)
            model.append(entry)
        elif step == "truncate" and last > base:
            at = base + 1 + number % (last - base)
            journal.truncate(at)
            del model[at - base :]
        elif step == "compact" and journal.synced > base:
            to = base + 1 + number % (journal.synced - base)
            journal.compact(to)
            trimmed = model[to - base]
            model = [
                Position(trimmed.index, trimmed.term, trimmed.cluster_time_ms, trimmed.digest),
                *model[to - base + 1 :],
            ]
        elif step == "term":
            term += 1
            journal.setCurrentTerm(term, None)
        elif step == "begin" and job is None:
            job, in_flight = journal.begin_sync(), (list(model), term)
        elif step in ("end", "sync") and job is not None:
            job()
            journal.end_sync()
            job, durable = None, in_flight
        elif step == "sync":
            journal.sync()
            durable = (list(model), term)
        elif step == "crash":
            store = store.crash()
            journal, job = Journal(store, initial=INITIAL), None
            model, term = list(durable[0]), max(durable[1], durable[0][-1].term)
        assert journal.base == model[0]
        assert [journal.entry(index) for index in range(journal.base.index + 1, journal.last_index + 1)] == model[1:]
        assert journal.synced <= journal.last_index


@pytest.mark.parametrize("kind", ["short", "equal", "conflicting"])
def test_accept_makes_the_follower_equal_to_the_leader(kind: str) -> None:
    leader = Journal(MemoryStore(), initial=INITIAL)
    for entry in entries_of(leader.last, *[put(b"k%d" % n, b"v") for n in range(5)], term=3):
        leader.append(entry)
    follower = Journal(MemoryStore(), initial=INITIAL)
    if kind == "equal":
        for index in range(2, 7):
            follower.append(leader.entry(index))
    elif kind == "conflicting":
        for entry in entries_of(follower.last, *[put(b"x%d" % n, b"v") for n in range(9)], term=2):
            follower.append(entry)
    next_index = leader.last_index + 1
    for _ in range(10):
        previous = leader.at(next_index - 1)
        assert previous is not None
        entries = leader.between(next_index, count=9, bytes_max=10_000)
        append = Append(3, previous.index, previous.term, previous.digest, 0, 1, 0, 0, entries)
        verdict = accept(follower, 0, append)
        if verdict.accepted:
            break
        assert verdict.index < next_index, "every rejection makes progress"
        next_index = verdict.index
    assert follower.last == leader.last
