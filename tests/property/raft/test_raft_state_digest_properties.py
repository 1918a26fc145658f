"""The digest of a state: kept along the way, it is what the records give; and it depends on nothing but the history."""

from hypothesis import given
from hypothesis import strategies as st
from support.raft_rig import entries_of

from holdfast.cluster.raft.scrub import verify
from holdfast.cluster.raft.statedigest import Content
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.storage.batch import Batch, Precondition, Put
from holdfast.storage.memory import MemoryStore

KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
BATCHES = st.builds(
    lambda puts, deletes, wanted: Batch(
        puts=tuple(Put(key, value) for key, value in puts.items()),
        deletes=tuple(deletes - puts.keys()),
        preconditions=tuple(Precondition(key, revision) for key, revision in wanted.items()),
    ),
    st.dictionaries(KEYS, st.binary(max_size=4)),
    st.frozensets(KEYS),
    st.dictionaries(KEYS, st.integers(0, 6), max_size=1),
)


@given(st.lists(BATCHES, max_size=12), st.lists(st.integers(1, 4)), st.integers(0, 12))
def test_kept_and_worked_out_anew_are_the_same(batches: list[Batch], cuts: list[int], restart: int) -> None:
    store = MemoryStore()
    whole, machine = StateMachine(MemoryStore()), StateMachine(store)
    entries = list(entries_of(whole.applied, *batches, term=1))
    digests = {}
    for entry in entries:
        whole.apply([entry])
        digests[entry.index] = whole.state_digest
    while entries:
        count = cuts.pop() if cuts else len(entries)
        machine.apply(entries[:count])
        entries = entries[count:]
        if machine.applied.index > restart:
            machine = StateMachine(store)
        found = Content()
        found.add_all(machine.records())
        verify(found, machine.content)
        for index in digests:
            assert machine.digest_at(index) in (None, digests[index])
    assert machine.state_digest == whole.state_digest
