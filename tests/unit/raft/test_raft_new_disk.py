"""What a node with a new log may say in elections: it may be founding a cluster, or its disk was replaced."""

from msgspec import structs
from structlog.testing import capture_logs
from support.raft_rig import Alone, entries_of, member, members, noop, put

from holdfast.cluster.raft import membership
from holdfast.cluster.raft.consensus import Role
from holdfast.cluster.raft.elections import may_stand, may_vote
from holdfast.cluster.raft.entries import Kind, Position, follow
from holdfast.cluster.raft.messages import Append, AppendReply, PreVote, PreVoteReply, TimeoutNow, Vote, VoteReply


def fresh(cluster: str = "abc") -> Alone:
    """A node whose log is new, and which has waited for a leader in vain. What it sent is forgotten."""
    node = Alone(cluster, fresh=True)
    node.advance(2.0)
    node.advance(0.1)  # past the moment in which it looks as if it had been stopped
    node.links.sent.clear()
    return node


def test_a_new_disk_gives_no_vote_to_a_candidate_that_knows_of_a_commit_not_even_after_a_restart() -> None:
    node = fresh()
    with capture_logs() as lines:
        for _ in range(2):
            node.hear("c", PreVote(8, 9, 7, "c.test:8201", founding=False))
            assert not node.only(PreVoteReply, "c").granted
            node.hear("c", Vote(8, 9, 7, False, "c.test:8201", founding=False))
            assert node.only(VoteReply, "c") == VoteReply(8, granted=False)
            node = node.restarted(fresh=True)
            node.advance(2.0)
            node.links.sent.clear()
    said = [line for line in lines if line["event"] == "new_disk_does_not_vote"]
    assert len(said) == 2
    assert "remove-peer" in said[0]["advice"]


def test_founding_nodes_vote_for_each_other_and_keep_to_it() -> None:
    node = fresh()
    node.hear("c", PreVote(8, 1, 0, "c.test:8201", founding=True))
    reply = node.only(PreVoteReply, "c")
    assert (reply.granted, reply.founded) == (True, False)
    assert not node.machine.log.vouched, "a pre-vote promises nothing"
    node.hear("c", Vote(8, 1, 0, False, "c.test:8201", founding=True))
    assert node.only(VoteReply, "c").granted
    again = node.restarted(fresh=True)
    assert again.machine.log.vouched
    again.advance(2.0)
    again.links.sent.clear()
    again.hear("c", Vote(9, 2, 8, False, "c.test:8201", founding=False))
    assert again.only(VoteReply, "c").granted


def test_a_founding_node_says_so_and_gives_up_when_a_voter_knows_of_a_commit() -> None:
    node = Alone(fresh=True)
    node.advance(2.0)
    asked = node.take(PreVote, "b")[-1]
    assert asked.founding
    node.take(PreVote)
    node.hear("c", PreVoteReply(0, asked.term, granted=False, founded=True))
    node.hear("b", PreVoteReply(0, asked.term, granted=True))
    assert node.machine.role is Role.FOLLOWER
    node.advance(2.0)
    assert {message.term for message in node.take(PreVote)} == {0}
    assert node.restarted(fresh=True).machine.log.founded


def test_a_new_disk_learns_from_a_leader_that_something_was_committed_before_it_has_it() -> None:
    node = fresh()
    first = node.machine.log.entry(1)
    heartbeat = Append(
        term=3, prev_index=9, prev_term=3, prev_digest=bytes(16), commit=1, stamp=1, trim=0, quorum_age_ms=0
    )  # fmt: skip
    node.hear("b", heartbeat)
    assert not node.machine.log.founded, "the founding entry alone says nothing"
    node.hear("b", structs.replace(heartbeat, commit=5))
    assert node.machine.log.founded
    assert (node.machine.commit, node.machine.log.last_index) == (0, first.index)


def test_a_candidate_that_learned_of_a_commit_in_its_pre_vote_no_longer_says_that_it_founds() -> None:
    node = fresh()
    node.hear("b", Vote(1, 1, 0, False, "", founding=True))
    node.advance(2.0)
    asked = node.take(PreVote, "b")[-1]
    assert asked.founding
    node.hear("b", PreVoteReply(1, asked.term, granted=True, founded=True))
    assert not node.only(Vote, "c").founding


def test_a_transfer_founds_nothing() -> None:
    node = fresh()
    first = node.machine.log.last
    node.append([noop(first, term=1)], previous=first, term=1)
    node.hear("b", TimeoutNow(1))
    vote = node.only(Vote, "c")
    assert vote.transfer
    assert not vote.founding


def test_a_new_disk_votes_once_it_holds_an_entry_of_its_leaders_own_term() -> None:
    node = fresh()
    first = node.machine.log.last
    (old,) = entries_of(first, put(b"k", b"v"), term=2)
    node.append([old], previous=first, term=3, commit=3)
    assert not node.machine.log.vouched
    node.hear("b", TimeoutNow(3))
    assert node.machine.role is Role.FOLLOWER
    assert node.only(AppendReply, "b").index == 2, "it acknowledges what it has"
    own = noop(old, term=3)
    node.append([own], previous=old, term=3, commit=3)
    assert node.machine.log.vouched
    again = node.restarted(fresh=True)
    assert again.machine.log.vouched
    again.advance(2.0)
    again.links.sent.clear()
    again.hear("c", Vote(3, 9, 3, False, "", founding=False))
    assert not again.only(VoteReply, "c").granted, "the disk before may have voted in the leader's term"
    again.hear("c", Vote(4, 9, 3, False, "", founding=False))
    assert again.only(VoteReply, "c").granted


def test_a_new_disk_that_is_behind_does_not_campaign() -> None:
    node = fresh()
    first = node.machine.log.last
    node.append(entries_of(first, put(b"k", b"v"), term=2), previous=first, term=3, commit=1)
    node.advance(2.0)
    assert {message.term for message in node.take(PreVote)} == {0}
    assert node.machine.role is Role.FOLLOWER


def test_a_node_with_an_empty_log_votes_for_nobody() -> None:
    node = Alone("bc", node_id="a", fresh=True)
    for founding in (False, True):
        node.hear("b", PreVote(8, 1, 0, "b.test:8201", founding))
        assert not node.only(PreVoteReply, "b").granted
        node.hear("b", Vote(8, 1, 0, False, "b.test:8201", founding))
        assert not node.only(VoteReply, "b").granted


def test_a_learner_is_vouched_for_before_it_can_be_promoted() -> None:
    """It is promoted when it holds what is committed, which is the leader's no-op at least."""
    node = Alone("bc", node_id="a", fresh=True)
    payload = membership.encode(membership.initial([*members("bc"), member("a", voter=False)]))
    first = follow(Position(), term=0, cluster_time_ms=0, kind=Kind.MEMBERSHIP, payload=payload)
    own = noop(first, term=1)
    node.hear("b", Append(1, 0, 0, Position().digest, 2, 1, 0, 0, (first, own)))
    assert node.machine.log.vouched


def test_a_leader_knows_of_its_first_commit() -> None:
    node = Alone(fresh=True)
    node.become_leader()
    assert not node.machine.log.founded
    node.acknowledge("b")
    assert node.machine.log.founded
    assert node.restarted(fresh=True).machine.log.founded


def test_the_rules() -> None:
    assert may_vote(vouched=True, founded=True, last_index=9, founding=False)
    assert may_vote(vouched=False, founded=False, last_index=1, founding=True)
    assert not may_vote(vouched=False, founded=False, last_index=1, founding=False)
    assert not may_vote(vouched=False, founded=True, last_index=1, founding=True)
    assert not may_vote(vouched=False, founded=False, last_index=0, founding=True)
    assert may_stand(vouched=True, founded=True, last_index=9)
    assert may_stand(vouched=False, founded=False, last_index=1)
    assert not may_stand(vouched=False, founded=True, last_index=1)
    assert not may_stand(vouched=False, founded=False, last_index=2)
