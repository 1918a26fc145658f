"""Directed tests, one for each step of pysyncobj that is overridden for safety's sake."""

import pytest
from support.raft_rig import Alone, entries_of, member, members, noop, put, raises

from holdfast.cluster.raft import membership
from holdfast.cluster.raft.admission import admit
from holdfast.cluster.raft.consensus import Applied, Conflicted, Duplicate, Role
from holdfast.cluster.raft.entries import Kind, Position, follow
from holdfast.cluster.raft.messages import (
    Append,
    AppendReply,
    Commit,
    MalformedMessage,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    TimeoutNow,
    Vote,
    VoteReply,
    encode,
)
from holdfast.proto.errors import Conflict, Corruption, Diverged, FailedPrecondition, NotLeader, OutcomeUnknown

BATCHES = [put(b"k%d" % n, b"v%d" % n) for n in range(6)]


def follower_with(count: int, *, term: int = 1, commit: int = 0, **options: bool) -> Alone:
    """A follower of b whose log holds entry 1 and `count` more."""
    node = Alone(**options)
    first = node.machine.log.last
    node.append(entries_of(first, *BATCHES[:count], term=term), previous=first, term=term, commit=commit)
    node.prove_contact()
    return node


# AppendEntries


def test_entries_that_match_are_never_truncated_by_an_older_append() -> None:
    node = follower_with(4)
    log = node.machine.log
    before = [log.entry(index) for index in range(1, 6)]
    node.append([log.entry(2)], previous=log.entry(1), term=1)
    node.append([], previous=log.entry(1), term=1)
    assert [log.entry(index) for index in range(1, 6)] == before
    assert node.take(AppendReply)[-1].accepted


def test_a_conflict_of_terms_truncates_from_there_on() -> None:
    node = follower_with(4, commit=3)
    log = node.machine.log
    other = noop(log.entry(4), term=2)
    node.append([other], previous=log.entry(4), term=2)
    assert (log.last_index, log.last.term) == (5, 2)
    assert node.take(AppendReply)[-1] == AppendReply(2, True, 5, 0, 1, True)


def test_a_conflict_with_a_committed_entry_stops_the_node() -> None:
    node = follower_with(3, commit=3)
    log = node.machine.log
    assert isinstance(
        raises(lambda: node.append([noop(log.entry(2), term=2)], previous=log.entry(2), term=2)), Diverged
    )
    assert log.last_index == 4


def test_commit_never_passes_the_last_index_that_was_compared() -> None:
    node = follower_with(4)
    log = node.machine.log
    node.append([], previous=log.entry(2), term=1, commit=5)
    assert node.machine.commit == 2


def test_a_different_digest_at_the_same_index_and_term_is_divergence() -> None:
    node = follower_with(2)
    at = node.machine.log.entry(3)
    foreign = Position(at.index, at.term, at.cluster_time_ms, b"\x01" * 16)
    error = raises(lambda: node.append([], previous=foreign, term=1))
    assert isinstance(error, Diverged)
    assert "rebuild" in error.message


def test_nodes_with_different_initial_members_find_out_with_the_first_append() -> None:
    node = Alone("abc")
    foreign = Alone("abd", node_id="d").machine.log
    error = raises(lambda: node.append([foreign.entry(1)], previous=Position(), term=1, sender="d"))
    assert isinstance(error, Diverged)
    assert "initial_members" in error.message


def test_entries_that_break_the_digest_chain_are_refused_before_anything_changes() -> None:
    node = follower_with(2)
    log = node.machine.log
    stranger = entries_of(Position(3, 1, 0, b"\x07" * 16), BATCHES[4], term=2)
    with pytest.raises(MalformedMessage):
        node.append(stranger, previous=log.entry(3), term=2)
    assert log.last_index == 3


def test_a_log_that_is_too_short_says_where_to_go_on() -> None:
    node = follower_with(1)
    node.take(AppendReply)
    node.append([], previous=Position(9, 1, 0, bytes(16)), term=1)
    assert node.only(AppendReply, "b") == AppendReply(1, False, 3, 9, 1, True)


def test_a_conflict_skips_the_whole_term_but_nothing_committed() -> None:
    node = follower_with(5, commit=3)
    node.take(AppendReply)
    node.append([], previous=Position(6, 2, 0, bytes(16)), term=2)
    assert node.only(AppendReply, "b") == AppendReply(2, False, 4, 6, 1, True)


def test_an_append_that_begins_below_the_base_is_about_what_is_committed() -> None:
    """Everything below the base is committed, so every leader has it: there is nothing to compare or to take."""
    node = follower_with(4, commit=5)
    entries = [node.machine.log.entry(index) for index in range(1, 6)]
    node.machine.machine.sync()
    node.machine.log.compact(4)
    node.take(AppendReply)
    node.append([], previous=entries[1], term=1, commit=5)
    assert (node.only(AppendReply, "b").index, node.machine.log.last_index) == (4, 5)
    node.append(entries[2:3], previous=entries[1], term=1, commit=5)
    assert (node.only(AppendReply, "b").index, node.machine.log.last_index) == (4, 5)
    more = entries_of(entries[4], BATCHES[5], term=1)
    node.append([*entries[2:], *more], previous=entries[1], term=1, commit=6)
    reply = node.only(AppendReply, "b")
    assert (reply.accepted, reply.index) == (True, 6)
    assert node.machine.machine.get(b"k5") is not None
    assert node.machine.log.base.index == 4


def test_the_base_itself_is_compared() -> None:
    node = follower_with(4, commit=5)
    node.machine.machine.sync()
    node.machine.log.compact(4)
    before = node.machine.log.base
    forged = Position(4, before.term, 0, bytes(16))
    assert isinstance(raises(lambda: node.append([], previous=forged, term=1)), Diverged)


def test_an_acknowledgement_leaves_only_after_the_sync() -> None:
    node = Alone(auto_sync=False)
    node.sync()
    first = node.machine.log.last
    node.append(entries_of(first, BATCHES[0], term=0), previous=first, term=0)
    assert node.take(AppendReply) == []
    node.sync()
    assert node.only(AppendReply, "b").index == 2


def test_a_term_is_durable_before_anything_is_answered_in_it() -> None:
    node = Alone(auto_sync=False)
    node.sync()
    node.append([], previous=node.machine.log.last, term=7)
    assert node.take(AppendReply) == []
    node.sync()
    assert node.only(AppendReply, "b").accepted
    assert node.restarted().machine.term == 7


def test_an_acknowledgement_of_an_earlier_term_never_leaves_after_a_later_term_was_adopted() -> None:
    node = Alone(auto_sync=False)
    node.sync()
    first = node.machine.log.last
    node.append(entries_of(first, BATCHES[0], term=1), previous=first, term=1)
    node.append([noop(first, term=2)], previous=first, term=2, sender="c")
    node.sync()
    node.tick()
    node.sync()
    node.tick()
    assert [reply.term for reply in node.take(AppendReply)] == [2]


def test_nothing_is_applied_that_is_not_durable_here() -> None:
    node = Alone(auto_sync=False)
    node.sync()
    first = node.machine.log.last
    node.append(entries_of(first, BATCHES[0], term=1), previous=first, term=1, commit=2)
    assert (node.machine.commit, node.machine.applied) == (2, 1)
    node.sync()
    node.tick()
    node.sync()
    node.tick()
    assert node.machine.applied == 2


def test_an_append_of_an_earlier_term_is_answered_with_the_term_and_changes_nothing() -> None:
    node = follower_with(2, term=3)
    node.take(AppendReply)
    first = node.machine.log.entry(1)
    node.append([noop(first, term=2)], previous=first, term=2, sender="c")
    assert node.only(AppendReply, "c") == AppendReply(3, False, 0, 0, 0, True)
    assert node.machine.log.last_index == 3


def test_a_commit_message_counts_only_for_an_entry_of_that_term_from_the_leader() -> None:
    node = follower_with(3)
    node.hear("c", Commit(1, 4, 1))
    node.hear("b", Commit(1, 4, 9))
    node.hear("b", Commit(1, 9, 1))
    assert node.machine.commit == 0
    node.hear("b", Commit(1, 3, 1))
    assert node.machine.commit == 3


# Counting


def test_a_leader_commits_by_counting_only_entries_of_its_own_term() -> None:
    """Figure 8 of the Raft paper: an entry of an earlier term on a majority may still be overwritten."""
    node = follower_with(2)
    node.become_leader()
    assert node.machine.log.last_index == 4
    node.acknowledge("b", index=3)
    assert node.machine.commit == 0
    node.acknowledge("b", index=4)
    assert node.machine.commit == 4


def test_a_leader_counts_itself_only_as_far_as_it_has_synced() -> None:
    node = Alone(auto_sync=False)
    node.sync()
    node.become_leader()
    node.sync()
    node.acknowledge("b")
    results = node.propose(BATCHES[0])
    append = node.take(Append, "b")[-1]
    index = node.machine.log.last_index
    node.hear("b", AppendReply(node.machine.term, True, index, 0, append.stamp, True))
    assert node.machine.commit == index - 1
    assert results == []
    node.sync()
    node.tick()
    assert node.machine.commit == index
    assert results == [Applied(index)]


def test_a_stale_terms_acknowledgement_does_not_count() -> None:
    node = follower_with(2, term=3)
    node.become_leader()
    term = node.machine.term
    node.hear("b", AppendReply(term - 1, True, node.machine.log.last_index, 0, 0, True))
    assert node.machine.commit == 0
    assert node.machine.leadership is not None
    assert node.machine.leadership.progress["b"].match == 0


def test_an_acknowledgement_of_something_never_sent_is_malformed() -> None:
    node = Alone()
    node.become_leader()
    with pytest.raises(MalformedMessage):
        node.hear("b", AppendReply(node.machine.term, True, 99, 0, 0, True))
    with pytest.raises(MalformedMessage):  # a round to come would confirm reads that nobody confirmed
        node.hear("b", AppendReply(node.machine.term, True, 1, 0, 10**15, True))


def test_next_never_falls_to_or_below_what_is_known_to_match() -> None:
    node = follower_with(3)
    node.lead()
    assert node.machine.leadership is not None
    progress = node.machine.leadership.progress["b"]
    match = progress.match
    node.hear("b", AppendReply(node.machine.term, False, 1, match, 0, True))
    node.hear("b", AppendReply(node.machine.term, False, 1, match + 1, 0, True))
    assert progress.match == match
    assert progress.next > match


def test_a_member_that_lost_acknowledged_entries_is_not_answered_in_a_loop() -> None:
    node = follower_with(3)
    node.lead()
    assert node.machine.leadership is not None
    node.transport.disconnected("b")
    node.transport.connected("b")
    node.advance(0.05)
    append = node.take(Append, "b")[-1]
    node.hear("b", AppendReply(node.machine.term, False, 1, append.prev_index, append.stamp, True))
    assert node.machine.leadership.progress["b"].lost_entries
    assert node.take(Append, "b") == []
    assert "b" not in node.machine.leadership.successors()


def test_a_heartbeat_that_overtook_its_entries_does_not_look_like_a_lost_disk() -> None:
    """The links keep the order within a session; that a member is written off must not rest on it."""
    node = follower_with(3)
    node.lead()
    assert node.machine.leadership is not None
    progress = node.machine.leadership.progress["b"]
    node.machine.propose(admit(put(b"k", b"v")), lambda _: None)
    node.tick()
    sent = next(append for append in node.take(Append, "b") if append.entries)
    node.advance(0.05)
    overtaking = node.take(Append, "b")[-1]
    last = overtaking.prev_index
    assert last == sent.entries[-1].index
    node.hear("b", AppendReply(node.machine.term, True, last, 0, sent.stamp, True))
    node.hear("b", AppendReply(node.machine.term, False, last - 1, last, overtaking.stamp, True))
    assert (progress.match, progress.lost_entries) == (last, False)
    node.advance(0.05)
    later = node.take(Append, "b")[-1]
    node.hear("b", AppendReply(node.machine.term, False, last - 1, last, later.stamp, True))
    assert progress.lost_entries


def test_any_reply_with_a_higher_term_ends_leadership() -> None:
    node = Alone()
    node.lead()
    results = node.propose(BATCHES[0])
    node.hear("c", AppendReply(node.machine.term + 5, False, 0, 0, 0, True))
    assert node.machine.role is Role.FOLLOWER
    assert isinstance(results[0], OutcomeUnknown)


# Elections


def test_no_vote_for_a_log_that_lacks_what_this_one_has() -> None:
    node = follower_with(2, term=3)
    node.advance(5.0)
    node.links.sent.clear()
    node.hear("c", Vote(9, 99, 2, transfer=False))
    node.hear("c", Vote(9, 2, 3, transfer=False))
    assert [reply.granted for reply in node.take(VoteReply, "c")] == [False, False]
    node.hear("c", Vote(9, 3, 3, transfer=False))
    assert node.only(VoteReply, "c").granted


def test_one_vote_in_a_term_even_over_a_restart() -> None:
    node = Alone()
    node.hear("b", Vote(4, 9, 0, transfer=False))
    assert node.only(VoteReply, "b").granted
    node.hear("c", Vote(4, 9, 0, transfer=False))
    assert not node.only(VoteReply, "c").granted
    again = node.restarted()
    again.hear("c", Vote(4, 9, 0, transfer=False))
    assert not again.only(VoteReply, "c").granted
    again.hear("b", Vote(4, 9, 0, transfer=False))
    assert again.only(VoteReply, "b").granted


def test_a_vote_is_durable_before_it_is_sent() -> None:
    node = Alone(auto_sync=False)
    node.sync()
    node.hear("b", Vote(4, 9, 0, transfer=False))
    assert node.take(VoteReply) == []
    assert node.restarted().machine.term == 0
    node = Alone(auto_sync=False)
    node.sync()
    node.hear("b", Vote(4, 9, 0, transfer=False))
    node.sync()
    assert node.only(VoteReply, "b").granted
    assert node.restarted().machine.voted_for == "b"


def test_a_candidates_own_vote_counts_only_when_it_is_durable() -> None:
    node = Alone("a", auto_sync=False)
    node.tick()
    assert node.machine.role is Role.CANDIDATE
    node.tick()
    assert node.machine.role is Role.CANDIDATE
    node.sync()
    assert node.machine.role is Role.LEADER


def test_a_pre_vote_changes_nothing_and_a_rejection_carries_the_term() -> None:
    node = follower_with(2, term=3)
    node.links.sent.clear()
    node.hear("c", PreVote(8, 99, 99))
    reply = node.only(PreVoteReply, "c")
    assert (reply.term, reply.asked_term, reply.granted) == (3, 8, False)
    assert (node.machine.term, node.machine.leader_id) == (3, "b")
    node.advance(5.0)
    node.links.sent.clear()
    node.hear("c", PreVote(8, 99, 99))
    assert node.only(PreVoteReply, "c").granted
    assert node.machine.term == 3


def test_a_rejected_node_learns_of_members_that_its_log_does_not_name() -> None:
    """The leader may have joined while this node was away; until it knows the leader, it refuses its sessions."""
    node = Alone()
    node.advance(2.0)
    asked = node.take(PreVote, "b")[-1].term
    contacts = tuple((name, f"{name}.test:8201") for name in "abde")
    node.hear("b", PreVoteReply(3, asked, granted=False, contacts=contacts))
    assert set(node.links.dialled) == {"b", "c", "d", "e"}
    assert node.machine.term == 3


def test_a_learner_asks_for_the_members_too_but_never_campaigns() -> None:
    node = Alone("abc", node_id="a")
    first = node.machine.log.last
    payload = membership.encode(membership.initial([*members("bc"), member("a", voter=False)]))
    node.append(
        [follow(first, term=1, cluster_time_ms=0, kind=Kind.MEMBERSHIP, payload=payload)], previous=first, term=1
    )
    node.advance(5.0)
    assert node.take(PreVote, "c")[-1] == PreVote(0, 0, 0)
    for peer in "bc":
        node.hear(peer, PreVoteReply(1, 0, granted=True))
    assert node.machine.role is Role.FOLLOWER


def test_a_node_that_hears_no_leader_follows_one_that_its_log_does_not_name() -> None:
    """All members that it knew may have been replaced while it was away."""
    node = Alone()
    node.advance(2.0)
    contacts = tuple((name, f"{name}.test:8201") for name in "ade")
    first = node.machine.log.last
    node.hear("d", Append(3, 1, 0, first.digest, 1, 1, 0, 0, (noop(first, term=3),), contacts))
    assert (node.machine.leader_id, node.machine.log.last_index) == ("d", 2)
    assert {"d", "e"} <= set(node.links.dialled)
    assert set(node.links.guests) == {"d", "e"}


def test_a_candidate_that_the_log_does_not_name_is_answered_where_it_says() -> None:
    node = Alone()
    node.advance(2.0)
    node.links.up.add("d")
    node.hear("d", PreVote(7, 99, 6, "d.test:1"))
    assert (node.links.dialled["d"], set(node.links.guests)) == ("d.test:1", {"d"})
    assert node.only(PreVoteReply, "d").granted
    node.hear("d", Vote(7, 99, 6, False, "d.test:1"))
    assert node.only(VoteReply, "d") == VoteReply(7, granted=True)
    node.append([], previous=node.machine.log.last, term=7)
    assert set(node.links.dialled) == {"b", "c"}


def test_while_a_leader_is_heard_nobody_else_than_the_members_is_listened_to() -> None:
    follower = follower_with(2, term=3)
    assert not follower.machine.hears_no_leader
    leader = Alone()
    leader.lead()
    for node in (follower, leader):
        before = (node.machine.term, node.machine.role, node.machine.leader_id)
        node.links.up.add("d")
        node.links.sent.clear()
        last = node.machine.log.last
        for message in (
            Append(9, last.index, last.term, last.digest, 0, 1, 0, 0),
            Vote(9, 99, 8, True, "d.test:1"), PreVote(9, 99, 8, "d.test:1"), PreVoteReply(9, 9, False),
            VoteReply(9, granted=False), AppendReply(9, False, 0, 0, 0, False), TimeoutNow(9), ReadIndex(9, 1),
        ):  # fmt: skip
            node.transport.receive("d", encode(message))
        assert (node.machine.term, node.machine.role, node.machine.leader_id) == before
        assert "d" not in node.links.dialled
        assert not [to for to, _ in node.links.sent if to == "d"]


def test_a_node_that_hears_no_leader_takes_no_replies_from_those_it_does_not_know() -> None:
    node = Alone()
    node.advance(2.0)
    term = node.machine.term
    for message in (PreVoteReply(9, 9, False), VoteReply(9, granted=False), AppendReply(9, False, 0, 0, 0, False)):
        node.hear("d", message)
    assert node.machine.term == term


def test_the_leaders_addresses_beat_those_of_an_older_log_until_it_has_caught_up() -> None:
    node = Alone()
    first = node.machine.log.last
    moved = (("a", "a.test:8201"), ("b", "b.moved:1"), ("c", "c.test:8201"))
    new = noop(first, term=3)
    node.hear("b", Append(3, 1, 0, first.digest, 2, 1, 0, 0, (), moved))
    assert node.links.dialled == {"b": "b.moved:1", "c": "c.test:8201"}
    node.hear("b", Append(3, 1, 0, first.digest, 2, 2, 0, 0))
    assert node.links.dialled["b"] == "b.moved:1"
    node.hear("b", Append(3, 1, 0, first.digest, 2, 3, 0, 0, (new,)))
    assert node.links.dialled == {"b": "b.test:8201", "c": "c.test:8201"}


def test_a_learner_forgets_a_leader_that_it_no_longer_hears() -> None:
    node = Alone("abc", node_id="a")
    first = node.machine.log.last
    payload = membership.encode(membership.initial([*members("bc"), member("a", voter=False)]))
    node.append(
        [follow(first, term=1, cluster_time_ms=0, kind=Kind.MEMBERSHIP, payload=payload)], previous=first, term=1
    )
    assert node.machine.leader_id == "b"
    node.advance(5.0)
    assert node.machine.leader_id == ""


def test_a_node_whose_disk_hangs_forgets_a_leader_that_it_no_longer_hears() -> None:
    node = Alone(auto_sync=False)
    first = node.machine.log.last
    node.append([noop(first, term=3)], previous=first, term=3)
    node.advance(5.0)
    assert (node.machine.leader_id, node.machine.role) == ("", Role.FOLLOWER)
    assert node.take(PreVote) == []


def test_while_a_leader_is_alive_votes_are_ignored_unless_it_asked_for_the_election_itself() -> None:
    node = follower_with(2, term=3)
    node.hear("c", Vote(9, 99, 9, transfer=False))
    assert (node.machine.term, node.take(VoteReply)) == (3, [])
    node.hear("c", Vote(9, 99, 9, transfer=True))
    assert node.only(VoteReply, "c").granted


def test_only_the_current_leader_can_make_a_node_campaign_at_once() -> None:
    node = follower_with(2, term=3)
    node.hear("c", TimeoutNow(3))
    node.hear("b", TimeoutNow(2))
    assert node.machine.role is Role.FOLLOWER
    node.hear("b", TimeoutNow(3))
    assert node.machine.role is Role.CANDIDATE
    assert node.only(Vote, "c").transfer


def test_a_learner_does_not_take_leadership_over() -> None:
    node = Alone()
    first = node.machine.log.last
    payload = membership.encode(membership.initial([*members("bc"), member("a", voter=False)]))
    learner = follow(first, term=1, cluster_time_ms=0, kind=Kind.MEMBERSHIP, payload=payload)
    node.append([learner], previous=first, term=1)
    node.hear("b", TimeoutNow(1))
    assert (node.machine.role, node.machine.term) == (Role.FOLLOWER, 1)


def test_a_pre_vote_that_comes_after_a_leader_was_heard_does_not_depose_it() -> None:
    node = follower_with(2)
    node.advance(2.0)
    asked = node.take(PreVote, "c")[-1]
    node.append([], previous=node.machine.log.last, term=1)
    node.hear("c", PreVoteReply(1, asked.term, granted=True))
    assert (node.machine.role, node.machine.term, node.machine.leader_id) == (Role.FOLLOWER, 1, "b")


def test_late_foreign_and_repeated_votes_do_not_count() -> None:
    node = Alone("abcde")
    node.advance(2.0)
    term = node.take(PreVote, "b")[-1].term
    for peer in "bc":
        node.hear(peer, PreVoteReply(0, term, granted=True))
    assert node.machine.role is Role.CANDIDATE
    node.hear("b", VoteReply(term, granted=True))
    node.hear("b", VoteReply(term, granted=True))
    node.hear("x", VoteReply(term, granted=True))
    node.hear("c", VoteReply(term - 1, granted=True))
    assert node.machine.role is Role.CANDIDATE
    node.hear("c", VoteReply(term, granted=True))
    assert node.machine.role is Role.LEADER


def test_votes_that_come_after_a_candidate_gave_way_do_not_count() -> None:
    for gives_way_to in (VoteReply(3, granted=False), None):
        node = Alone()
        node.advance(2.0)
        node.hear("b", PreVoteReply(0, 1, granted=True))
        assert node.machine.role is Role.CANDIDATE
        if gives_way_to is None:
            node.append([], previous=node.machine.log.last, term=1, sender="c")
        else:
            node.hear("c", gives_way_to)
        assert node.machine.role is Role.FOLLOWER
        node.hear("b", VoteReply(1, granted=True))
        assert node.machine.role is Role.FOLLOWER


def test_another_leader_of_the_same_term_stops_a_leader() -> None:
    """It cannot be, unless data folders were copied or restored: nobody knows which of the two histories is right."""
    node = Alone()
    node.lead()
    entry = node.machine.log.last
    error = raises(lambda: node.append([], previous=entry, term=node.machine.term))
    assert isinstance(error, Diverged)
    assert "data folders were copied or restored" in error.message


def test_a_leader_without_quorum_contact_steps_down_and_tells_its_writers() -> None:
    node = Alone()
    node.lead()
    appended = node.propose(BATCHES[0])
    node.machine.leadership.begin_transfer("b", node.now_s)  # type: ignore[union-attr]
    queued = node.propose(BATCHES[1])
    node.advance(0.4)
    assert node.machine.role is Role.FOLLOWER
    assert isinstance(appended[0], OutcomeUnknown)
    assert isinstance(queued[0], NotLeader)


def test_a_leader_that_was_stopped_serves_nothing_before_it_has_looked_at_its_contact() -> None:
    node = Alone()
    node.lead()
    results = node.read()
    stamp = node.take(Append, "b")[-1].stamp
    node.now_s += 30.0
    # The acknowledgement had waited in the socket while the process was stopped.
    node.hear("b", AppendReply(node.machine.term, True, node.machine.log.last_index, 0, stamp, True))
    assert node.machine.role is Role.FOLLOWER
    assert results == []
    node = Alone()
    node.lead()
    node.now_s += 30.0
    assert isinstance(raises(lambda: node.machine.propose(b"", lambda _: None)), NotLeader)


def test_an_ineligible_node_lets_eligible_ones_campaign_first() -> None:
    node = Alone()
    node.machine.set_eligible(eligible=False)
    node.append([], previous=node.machine.log.last, term=1)
    node.advance(0.61)
    assert node.take(PreVote) == []
    node.advance(0.6)
    assert len(node.take(PreVote)) == 2


def test_a_leader_whose_disk_hangs_steps_down_and_does_not_campaign() -> None:
    node = Alone(auto_sync=False)
    node.sync()
    node.lead()
    results = node.propose(BATCHES[0])
    for _ in range(60):
        node.now_s += 0.05
        for append in node.take(Append, "b")[-1:]:
            node.hear("b", AppendReply(node.machine.term, True, 2, 0, append.stamp, True))
        node.tick()
    assert node.machine.role is Role.FOLLOWER
    assert isinstance(results[0], OutcomeUnknown)
    node.links.sent.clear()
    node.advance(5.0)
    assert node.take(PreVote) == []
    node.sync()
    node.advance(5.0)
    assert node.take(PreVote) != []


def test_a_deposed_leader_remembers_when_it_was_last_in_contact() -> None:
    node = Alone()
    node.lead()
    for _ in range(100):
        node.now_s += 0.1
        node.acknowledge("b")
    node.hear("b", AppendReply(node.machine.term + 1, False, 0, 0, 0, True))
    assert node.machine.role is Role.FOLLOWER
    assert node.machine.quorum_contact_age_s() < 0.5


# Reads


def test_no_read_before_the_terms_no_op_is_committed() -> None:
    node = follower_with(2)
    node.become_leader()
    results = node.read()
    append = node.take(Append, "b")[-1]
    node.hear("b", AppendReply(node.machine.term, True, 3, 0, append.stamp, True))
    assert results == []
    node.acknowledge("b")
    node.acknowledge("b")
    assert results == [4]


def test_a_read_needs_a_round_that_began_after_it() -> None:
    node = Alone()
    node.lead()
    node.advance(0.05)
    before = node.take(Append, "b")[-1]
    results = node.read()
    during = node.take(Append, "b")[-1]
    last = node.machine.log.last_index
    node.hear("b", AppendReply(node.machine.term, True, last, 0, before.stamp, True))
    assert results == []
    node.hear("b", AppendReply(node.machine.term, True, last, 0, during.stamp, True))
    assert results == [last]


def test_many_reads_share_one_round() -> None:
    node = Alone()
    node.lead()
    node.links.sent.clear()
    results: list[object] = []
    for _ in range(50):
        node.machine.read(results.append)
    node.tick()
    append = node.only(Append, "b")
    node.hear("b", AppendReply(node.machine.term, True, node.machine.log.last_index, 0, append.stamp, True))
    assert len(results) == 50


def test_a_follower_asks_the_leader_and_waits_until_it_has_applied_that_much() -> None:
    node = follower_with(2, commit=1)
    results = node.read()
    question = node.only(ReadIndex, "b").question
    node.hear("b", ReadIndexReply(1, question, 3))
    assert results == []
    node.hear("b", Commit(1, 3, 1))
    assert results == [3]


def test_an_answer_to_an_earlier_life_of_the_node_answers_nothing() -> None:
    node = follower_with(2, commit=1)
    results = node.read()
    question = node.only(ReadIndex, "b").question
    node.hear("b", ReadIndexReply(1, question - 1, 1))
    assert results == []
    assert question > 2**40


def test_reads_are_asked_again_of_a_new_leader() -> None:
    node = follower_with(2, commit=1)
    results = node.read()
    old = node.only(ReadIndex, "b").question
    node.append([], previous=node.machine.log.entry(3), term=2, commit=3, sender="c")
    node.advance(0.05)
    new = node.only(ReadIndex, "c").question
    node.hear("b", ReadIndexReply(1, old, 1))
    assert results == []
    node.hear("c", ReadIndexReply(2, new, 3))
    assert results == [3]


def test_a_node_that_does_not_lead_answers_that_it_cannot_tell() -> None:
    node = follower_with(2, commit=1)
    node.hear("c", ReadIndex(1, 7))
    assert node.only(ReadIndexReply, "c").index is None


def test_a_node_that_does_not_lead_is_not_asked_in_a_loop() -> None:
    node = follower_with(2, commit=1)
    node.read()
    node.hear("b", ReadIndexReply(1, node.only(ReadIndex, "b").question, None))
    assert node.take(ReadIndex) == []
    node.advance(0.05)
    assert len(node.take(ReadIndex)) == 1


# Preconditions, revisions, exactly once


def test_preconditions_see_what_earlier_batches_of_the_same_entry_and_chunk_did() -> None:
    node = Alone()
    node.lead()
    first, second, third = [], [], []  # type: ignore[var-annotated]
    for results, batch in (
        (first, put(b"k", b"1", revision=0)),
        (second, put(b"k", b"2", revision=0)),
        (third, put(b"other", b"3", revision=0)),
    ):
        node.machine.propose(admit(batch), results.append)
    node.tick()
    node.acknowledge("b")
    index = node.machine.log.last_index
    assert (first, second, third) == ([Applied(index)], [Conflicted(b"k")], [Applied(index)])
    record = node.machine.machine.get(b"k")
    assert record is not None
    assert (record.value, record.revision) == (b"1", index)


def test_cluster_time_is_time_spent_leading_and_goes_on_from_the_log() -> None:
    """It says for how long a request is remembered. Time without a leader and a node's own clock do not count."""
    node = follower_with(0)
    first = node.machine.log.last
    node.append(entries_of(first, BATCHES[0], term=1, time_ms=90_000), previous=first, term=1)
    node.advance(5000.0)
    node.become_leader()
    assert node.machine.log.last.cluster_time_ms == 90_000
    node.now_s += 0.25
    node.propose(BATCHES[1])
    assert node.machine.log.last.cluster_time_ms == pytest.approx(90_250, abs=1)


def test_a_request_takes_effect_once_however_often_it_is_sent() -> None:
    node = Alone()
    node.lead()
    results = [node.propose(put(b"k", b"%d" % n, request=b"r" * 16)) for n in range(3)]
    node.acknowledge("b")
    assert isinstance(results[0][0], Applied)
    assert results[1:] == [[Duplicate(b"response to " + b"r" * 16)]] * 2
    assert node.machine.machine.get(b"k").value == b"0"  # type: ignore[union-attr]


# Membership


def test_no_membership_change_before_the_terms_no_op_and_only_one_at_a_time() -> None:
    node = Alone()
    node.become_leader()
    results: list[object] = []
    change = node.machine.change_members
    assert isinstance(raises(lambda: change(lambda c: c.without("c"), results.append)), Conflict)
    node.acknowledge("b")
    change(lambda c: c.without("c"), results.append)
    assert isinstance(raises(lambda: change(lambda c: c.without("b"), results.append)), Conflict)
    assert node.machine.log.configurations.voters == ("a", "b")
    node.tick()
    node.acknowledge("b")
    assert results == [node.machine.log.last_index]
    change(lambda c: c.without("b"), results.append)


def test_the_terms_no_op_guards_membership_even_when_the_change_before_is_committed() -> None:
    node = follower_with(2, commit=3)
    node.become_leader()
    assert node.machine.log.configurations.index <= node.machine.commit
    error = raises(lambda: node.machine.change_members(lambda c: c.without("c"), lambda _: None))
    assert isinstance(error, Conflict)


def test_no_voter_goes_when_the_rest_would_need_one_that_was_not_reached() -> None:
    node = Alone()
    node.become_leader()
    node.acknowledge("b")  # and not c, whose disk may be a new one
    for gone in ("a", "b"):
        error = raises(lambda gone=gone: node.machine.change_members(lambda c: c.without(gone), lambda _: None))
        assert isinstance(error, FailedPrecondition)
        assert "need c," in str(error)
    assert node.machine.log.configurations.voters == ("a", "b", "c")
    node.machine.change_members(lambda c: c.without("c"), lambda _: None)  # the others can do without


def test_no_learner_is_promoted_while_another_change_is_not_committed() -> None:
    node = Alone()
    node.lead()
    node.machine.change_members(lambda c: c.with_learner(member("d")), lambda _: None)
    node.tick()
    node.acknowledge("b")
    node.links.up.add("d")
    node.transport.connected("d")
    node.machine.change_members(lambda c: c.without("c"), lambda _: None)
    index = node.machine.log.last_index
    node.tick()
    node.acknowledge("d")  # it has everything, and b does not yet
    assert node.machine.log.configurations.index == index
    node.acknowledge("b")
    node.acknowledge("d")
    assert node.machine.log.configurations.voters == ("a", "b", "d")
    assert node.machine.log.configurations.index == index + 1


def test_successors_are_voters_that_are_connected_and_have_lost_nothing() -> None:
    node = Alone()
    node.lead()
    node.acknowledge("c")
    leadership = node.machine.leadership
    assert leadership is not None
    assert leadership.successors() == ["b", "c"]
    node.machine.change_members(lambda c: c.with_learner(member("d", voter=False)), lambda _: None)
    node.tick()
    node.links.up.add("d")
    node.transport.connected("d")
    node.acknowledge("d")
    assert leadership.progress["d"].match == node.machine.log.last_index
    assert "d" not in leadership.successors()
    leadership.progress["b"].lost_entries = True
    assert leadership.successors() == ["c"]
    node.transport.disconnected("c")
    assert leadership.successors() == []


def test_a_membership_change_that_is_truncated_goes_out_of_effect() -> None:
    node = Alone()
    node.lead()
    node.machine.change_members(lambda c: c.without("c"), lambda _: None)
    node.tick()
    log = node.machine.log
    at = log.entry(log.last_index - 1)
    assert log.configurations.voters == ("a", "b")
    node.append([noop(at, term=9)], previous=at, term=9, sender="c")
    assert log.configurations.voters == ("a", "b", "c")
    assert set(node.links.dialled) == {"b", "c"}


# Restart


def test_a_restart_after_power_loss_keeps_what_was_acknowledged_and_applies_it_again() -> None:
    node = follower_with(4, commit=5)
    assert node.machine.applied == 5
    again = node.restarted()
    assert (again.machine.applied, again.machine.log.last_index) == (0, 5)
    again.append([], previous=again.machine.log.entry(5), term=1, commit=5)
    assert again.machine.machine.state_digest == node.machine.machine.state_digest


def test_a_state_that_is_not_on_the_log_is_corruption() -> None:
    node = follower_with(4, commit=5)
    node.state_store.sync()
    other = follower_with(2)
    with pytest.raises(Corruption):
        Alone(journal_store=other.journal_store.crash(), state_store=node.state_store.crash())
    same_place = Alone()
    first = same_place.machine.log.entry(1)
    same_place.append(entries_of(first, *[put(b"other", b"v")] * 4, term=1), previous=first, term=1)
    assert same_place.machine.log.entry(5).term == node.machine.log.entry(5).term
    with pytest.raises(Corruption):
        Alone(journal_store=same_place.journal_store.crash(), state_store=node.state_store.crash())


def test_members_of_the_log_not_of_the_configuration_count_after_a_restart() -> None:
    node = Alone()
    node.lead()
    node.machine.change_members(lambda c: c.without("c"), lambda _: None)
    node.tick()
    node.acknowledge("b")
    assert node.restarted().machine.log.configurations.voters == ("a", "b")
    assert members("ab")[0].node_id == "a"
