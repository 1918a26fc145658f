"""The comparison of survivors against small histories of Raft, played by hand: what is chosen holds all that can be
held, and what is dropped was never committed."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from support.raft_rig import entries_of, members, put

from holdfast.cluster.raft import membership
from holdfast.cluster.raft.entries import Entry
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.recovery import Survivor, plan, survey
from holdfast.cluster.raft.statemachine import StateMachine
from holdfast.proto.errors import FailedPrecondition
from holdfast.storage.memory import MemoryStore


@dataclass
class History:
    """A cluster's logs and what was committed, one step after the other (Raft paper, figure 2, without the network)."""

    names: str
    journals: dict[str, Journal] = field(default_factory=dict)
    knows: dict[str, int] = field(default_factory=dict)
    committed: list[Entry] = field(default_factory=list)
    leader: str = ""
    term: int = 0
    written: int = 0

    def __post_init__(self) -> None:
        for name in self.names:
            journal = Journal(MemoryStore(), initial=membership.initial(members(self.names)))
            journal.vouch()
            journal.note_founded()
            self.journals[name], self.knows[name] = journal, 1

    def majority(self, names: set[str]) -> bool:
        return 2 * len(names) > len(self.names)

    def elect(self, candidate: str, voters: set[str]) -> None:
        rank = self._rank(candidate)
        voters = {voter for voter in voters if self._rank(voter) <= rank} | {candidate}
        if self.majority(voters):
            self.term += 1
            self.leader = candidate
            for voter in voters:
                self.journals[voter].setCurrentTerm(self.term, candidate)
            self.append()

    def _rank(self, name: str) -> tuple[int, int]:
        return self.journals[name].last.term, self.journals[name].last_index

    def append(self) -> None:
        if self.leader:
            self.written += 1
            log = self.journals[self.leader]
            log.append(entries_of(log.last, put(b"k", b"%d" % self.written), term=self.term)[0])

    def replicate(self, to: str, count: int) -> None:
        """The leader brings `to` up to `count` entries behind its own log's end; then it commits what it may."""
        if not self.leader or to == self.leader or self.journals[to].getCurrentTerm() > self.term:
            return
        log, other = self.journals[self.leader], self.journals[to]
        if other.getCurrentTerm() < self.term:
            other.setCurrentTerm(self.term, None)
        until = max(1, log.last_index - count)
        for index in range(2, until + 1):
            entry = log.entry(index)
            mine = other.at(index)
            if mine is not None and mine.term != entry.term:
                other.truncate(index)
            if index > other.last_index:
                other.append(entry)
        holders = {
            n
            for n, j in self.journals.items()
            if (at := j.at(until)) is not None and at.digest == log.entry(until).digest
        }
        if self.majority(holders) and log.entry(until).term == self.term and until > len(self.committed):
            self.committed = [log.entry(index) for index in range(1, until + 1)]

    def learn(self, name: str) -> None:
        """A node hears how far its log is committed."""
        log = self.journals[name]
        while self.knows[name] < min(len(self.committed), log.last_index):
            if log.entry(self.knows[name] + 1).digest != self.committed[self.knows[name]].digest:
                return
            self.knows[name] += 1

    def survivor(self, name: str) -> Survivor:
        journal = self.journals[name]
        journal.sync()
        machine = StateMachine(MemoryStore())
        machine.apply([journal.entry(index) for index in range(1, self.knows[name] + 1)])
        return survey(journal, machine, node_id=name, cluster_name="production")


@st.composite
def histories(draw: st.DrawFn) -> History:
    history = History("abcde"[: draw(st.integers(2, 5))])
    names = st.sampled_from(history.names)
    steps = st.one_of(
        st.tuples(st.just("elect"), names, st.sets(names)),
        st.tuples(st.just("append")),
        st.tuples(st.just("replicate"), names, st.integers(0, 3)),
        st.tuples(st.just("learn"), names),
    )
    for action, *arguments in draw(st.lists(steps, max_size=40)):
        getattr(history, action)(*arguments)
    return history


@given(histories(), st.data())
def test_the_chosen_log_holds_all_that_was_committed_and_survived(history: History, data: st.DataObject) -> None:
    left = data.draw(st.sets(st.sampled_from(history.names), min_size=1), label="survivors")
    survivors = [history.survivor(name) for name in sorted(left)]
    if 2 * len(left) > len(history.names):
        try:
            plan(survivors)
        except FailedPrecondition as error:
            assert "nothing is lost" in error.message  # noqa: PT017
            return
        raise AssertionError("a majority is there")
    made = plan(survivors)
    best = history.journals[made.best.node_id]
    kept = {best.entry(index).digest for index in range(1, best.last_index + 1)}
    somewhere = {j.entry(i).digest for n in left for j in [history.journals[n]] for i in range(1, j.last_index + 1)}
    committed = {entry.digest for entry in history.committed}
    assert committed & somewhere <= kept, "a committed entry that survived is kept"
    assert not (somewhere - kept) & committed, "what is dropped was never committed"
    assert {entry.digest for entry in history.committed[: made.committed]} <= kept
    if not made.may_lose:
        assert committed <= kept
    for standing in made.standings:
        log = history.journals[standing.survivor.node_id]
        own = {log.entry(index).digest for index in range(1, log.last_index + 1)}
        assert standing.shared_to is not None
        assert (standing.dropped, standing.missing) == (len(own - kept), len(kept - own))
