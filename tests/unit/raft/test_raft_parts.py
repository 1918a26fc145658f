"""The small parts of consensus, each by itself: entries, messages, progress, proposals, reads, elections, quorums."""

import msgspec
import pytest
from support.raft_rig import entries_of, member, members, noop, put

from holdfast.cluster.raft import membership, messages
from holdfast.cluster.raft.consensus import Applied
from holdfast.cluster.raft.elections import Campaign, Phase, grants_pre_vote, grants_vote, log_is_up_to_date
from holdfast.cluster.raft.entries import Entry, Position, follows
from holdfast.cluster.raft.membership import Configuration, ConfigurationHistory, Step
from holdfast.cluster.raft.messages import Append, MalformedMessage, ReadIndexReply, Vote
from holdfast.cluster.raft.progress import Mode, Progress
from holdfast.cluster.raft.proposals import Proposals
from holdfast.cluster.raft.quorum import is_majority, reached_by_majority
from holdfast.cluster.raft.reads import Barriers, ReadRounds
from holdfast.proto.errors import NotLeader, OutcomeUnknown, Overloaded, Unavailable

# Quorums


def test_a_majority_is_more_than_half() -> None:
    assert [is_majority(count, 3) for count in range(4)] == [False, False, True, True]
    assert [is_majority(count, 4) for count in range(5)] == [False, False, False, True, True]
    assert not is_majority(0, 0)


@pytest.mark.parametrize(
    ("values", "reached"), [([5], 5), ([5, 3], 3), ([5, 3, 1], 3), ([5, 4, 3, 1], 3), ([1, 9, 9, 9, 1], 9)]
)
def test_what_a_majority_has_reached(values: list[int], reached: int) -> None:
    assert reached_by_majority(values) == reached


# Entries


def test_the_digest_covers_every_field_and_everything_before() -> None:
    (entry,) = entries_of(Position(), put(b"k", b"v"), term=3, time_ms=7)
    assert follows(Position(), entry)
    for changed in (
        msgspec.structs.replace(entry, term=4),
        msgspec.structs.replace(entry, cluster_time_ms=8),
        msgspec.structs.replace(entry, payload=entry.payload + b"x"),
        msgspec.structs.replace(entry, index=2),
        msgspec.structs.replace(entry, digest=bytes(16)),
    ):
        assert not follows(Position(), changed)
    assert not follows(Position(digest=b"\x01" * 16), entry)


def test_terms_and_cluster_time_never_step_back() -> None:
    (entry,) = entries_of(Position(), put(b"k", b"v"), term=3, time_ms=7)
    assert not follows(Position(term=4), entry)
    assert not follows(Position(cluster_time_ms=8), entry)


# Messages


def test_messages_survive_the_wire() -> None:
    made = entries_of(Position(), put(b"k", b"v"), put(b"l", b"w"), term=1)
    for message in (
        Append(2, 0, 0, bytes(16), 1, 5, 0, 0, made, (("a", "a:1"),)),
        Vote(2, 1, 1, transfer=True),
        ReadIndexReply(2, 2**62, None),
    ):
        assert messages.decode(messages.encode(message)) == message


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x00", b"\xc1", msgspec.msgpack.encode([99, 1]), msgspec.msgpack.encode([3, -1, 0, 0, False]),
     msgspec.msgpack.encode([3, "1", 0, 0, False]), msgspec.msgpack.encode([5, 1, 0, 0, b"short", 0, 0, 0, 0]),
     b"\x91" * 5000, bytes(messages.MESSAGE_BYTES_MAX + 1)],
)  # fmt: skip
def test_bytes_that_are_no_message_are_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedMessage):
        messages.decode(payload)


def test_entries_that_do_not_follow_each_other_are_malformed() -> None:
    made = entries_of(Position(), put(b"k", b"v"), put(b"l", b"w"), term=2)
    for prev_index, term, entries in ((0, 2, made[::-1]), (1, 2, made), (0, 1, made)):
        append = Append(term, prev_index, 0, bytes(16), 0, 0, 0, 0, entries)
        with pytest.raises(MalformedMessage):
            messages.decode(messages.encode(append))


# Progress


def test_entries_are_sent_only_inside_the_window_and_when_the_match_is_known() -> None:
    progress = Progress(next=5)
    assert not progress.has_room(window_bytes=100, window_messages=2)
    progress.acknowledged(4, 1)
    assert progress.has_room(window_bytes=100, window_messages=2)
    progress.sent(6, 60)
    progress.sent(7, 60)
    assert not progress.has_room(window_bytes=100, window_messages=9)
    progress.acknowledged(6, 2)
    assert progress.has_room(window_bytes=100, window_messages=2)
    progress.acknowledged(4, 3)
    assert (progress.match, progress.next) == (6, 8)


def test_a_rejection_probes_again_and_an_old_one_changes_nothing() -> None:
    progress = Progress(next=10)
    progress.rejected(9, 4, 1)
    assert (progress.next, progress.mode) == (4, Mode.PROBE)
    progress.acknowledged(6, 3)
    progress.rejected(5, 2, 2)
    assert (progress.match, progress.next, progress.mode, progress.lost_entries) == (6, 7, Mode.PIPELINE, False)
    progress.rejected(6, 2, 4)
    assert progress.lost_entries


# Proposals


def queue(**limits: int) -> Proposals:
    defaults = {"queue_count": 10, "queue_bytes": 100, "group_count": 3, "group_bytes": 50}
    return Proposals(**{**defaults, **limits})


def test_proposals_share_an_entry_up_to_its_count_and_bytes() -> None:
    proposals = queue()
    for size in (10, 10, 10, 30, 25, 1):
        proposals.add(bytes(size), lambda _: None)
    groups = [[len(p.encoded) for p in proposals.take_group()] for _ in range(3)]
    assert groups == [[10, 10, 10], [30], [25, 1]]


def test_one_proposal_may_exceed_the_group_alone() -> None:
    proposals = queue()
    proposals.add(bytes(99), lambda _: None)
    assert len(proposals.take_group()) == 1


def test_a_full_queue_refuses() -> None:
    proposals = queue(queue_count=2)
    proposals.add(b"x", lambda _: None)
    proposals.add(b"x", lambda _: None)
    with pytest.raises(Overloaded):
        proposals.add(b"x", lambda _: None)
    proposals = queue(queue_bytes=10)
    proposals.add(bytes(9), lambda _: None)
    with pytest.raises(Overloaded):
        proposals.add(bytes(2), lambda _: None)


def test_an_abandoned_proposal_is_not_appended() -> None:
    proposals = queue()
    results: list[object] = []
    proposals.add(b"x", results.append).abandon()
    assert proposals.take_group() == []
    assert len(results) == 1


def test_lost_leadership_tells_the_queued_and_the_appended_apart() -> None:
    proposals = queue()
    appended: list[object] = []
    queued: list[object] = []
    proposals.add(b"x", appended.append)
    proposals.appended(7, 2, proposals.take_group())
    proposals.add(b"y", queued.append)
    assert proposals.uncommitted_bytes == 1
    proposals.leadership_lost("b")
    assert isinstance(appended[0], OutcomeUnknown)
    assert isinstance(queued[0], NotLeader)
    assert queued[0].details == {"leader_id": "b"}
    assert proposals.uncommitted_bytes == 0


def test_an_entry_of_another_term_at_the_index_is_not_ours() -> None:
    proposals = queue()
    results: list[object] = []
    proposals.add(b"x", results.append)
    proposals.appended(7, 2, proposals.take_group())
    proposals.applied(7, 3, [Applied(7)])
    assert isinstance(results[0], OutcomeUnknown)


# Reads


def test_a_round_answers_what_was_asked_before_it_and_nothing_later() -> None:
    rounds, answers = ReadRounds(), []  # type: ignore[var-annotated]
    rounds.ask(("b", 1), lambda index: answers.append(("first", index)))
    rounds.begin(10, 5)
    rounds.ask(("b", 2), lambda index: answers.append(("second", index)))
    rounds.echoed(10)
    assert answers == [("first", 5)]
    rounds.begin(11, 6)
    rounds.echoed(10)
    rounds.abandon()
    assert answers == [("first", 5), ("second", None)]


def test_barriers_wait_for_the_answer_and_then_for_the_state() -> None:
    barriers = Barriers(count_max=2, first_question=40)
    results: list[object] = []
    barriers.add(results.append)
    question = barriers.ask("b", 1.0)
    assert question == 41
    assert barriers.ask("b", 1.0) is None
    barriers.answer(99, 1)
    barriers.answer(question, 8)
    barriers.applied(7)
    assert results == []
    barriers.applied(8)
    assert results == [8]


def test_unanswered_questions_are_asked_again_and_too_many_refused() -> None:
    barriers = Barriers(count_max=1, first_question=0)
    results: list[object] = []
    barriers.add(results.append)
    with pytest.raises(Overloaded):
        barriers.add(results.append)
    first = barriers.ask("b", 1.0)
    assert first is not None
    assert barriers.unanswered("b", now_s=1.2, patience_s=0.3) == []
    assert barriers.unanswered("b", now_s=1.4, patience_s=0.3) == [first]
    assert barriers.unanswered("b", now_s=1.5, patience_s=0.3) == []
    assert not barriers.has_open
    assert barriers.unanswered("c", now_s=1.5, patience_s=0.3) == []
    assert barriers.has_open
    barriers.answer(first, 3)
    second = barriers.ask("c", 2.0)
    barriers.answer(second or 0, 3)
    assert results == []
    barriers.fail(lambda: Unavailable("stopping"))
    assert isinstance(results[0], Unavailable)
    barriers.add(results.append)


# Elections


def test_a_log_is_compared_by_term_first() -> None:
    def newer(term: int, index: int) -> bool:
        return log_is_up_to_date(candidate_term=term, candidate_index=index, last_term=3, last_index=7)

    assert [newer(3, 7), newer(3, 8), newer(4, 1)] == [True, True, True]
    assert [newer(3, 6), newer(2, 99)] == [False, False]


def test_who_gets_a_vote() -> None:
    def vote(*, term: int = 4, voted: str | None = None, good: bool = True) -> bool:
        return grants_vote(asked_term=term, own_term=4, voted_for=voted, candidate="b", up_to_date=good)

    assert vote()
    assert vote(voted="b")
    assert not vote(voted="c")
    assert not vote(term=3)
    assert not vote(good=False)


def test_who_gets_a_pre_vote() -> None:
    def pre_vote(*, term: int = 5, good: bool = True, alive: bool = False) -> bool:
        return grants_pre_vote(asked_term=term, own_term=4, up_to_date=good, leader_alive=alive)

    assert pre_vote()
    assert not pre_vote(term=4)
    assert not pre_vote(good=False)
    assert not pre_vote(alive=True)


def test_a_campaign_counts_voters_once_and_reports_its_majority() -> None:
    campaign = Campaign()
    campaign.begin(Phase.VOTE, 4)
    voters = ("a", "b", "c")
    assert not campaign.granted(Phase.VOTE, 4, "a", voters)
    assert not campaign.granted(Phase.VOTE, 4, "a", voters)
    assert not campaign.granted(Phase.VOTE, 4, "x", voters)
    assert not campaign.granted(Phase.VOTE, 3, "b", voters)
    assert not campaign.granted(Phase.PRE_VOTE, 4, "b", voters)
    assert campaign.granted(Phase.VOTE, 4, "b", voters)


# Membership


def test_the_order_of_the_initial_members_does_not_matter_but_a_repeated_id_does() -> None:
    assert membership.initial(members("cab")) == membership.initial(members("abc"))
    with pytest.raises(ValueError, match="twice"):
        membership.initial(members("aa"))


def test_a_member_joins_as_a_learner_and_is_promoted_only_if_it_asked_to_vote() -> None:
    three = membership.initial(members("abc"))
    four = three.with_learner(member("d"))
    assert (four.voters, four.promoting) == (("a", "b", "c"), ("d",))
    assert four.promoted("d").voters == ("a", "b", "c", "d")
    assert four.promoted("d").promoting == ()
    assert three.with_learner(member("d", voter=False)).promoting == ()
    assert four.without("d") == three
    assert membership.decode(membership.encode(four)) == four


def test_configurations_follow_the_log_through_truncation_and_trimming() -> None:
    history = ConfigurationHistory(Step())
    configurations = [Configuration(members("abc"[:count])) for count in (1, 2, 3)]
    changes: list[tuple[str, ...]] = []
    history.on_change(lambda: changes.append(history.voters))
    for index, configuration in zip((1, 5, 9), configurations, strict=True):
        history.append(index, configuration)
    history.truncate(9)
    history.truncate(9)
    assert changes == [("a",), ("a", "b"), ("a", "b", "c"), ("a", "b")]
    assert history.at(4).configuration == configurations[0]
    history.compact(7)
    assert (history.index, history.current, history.previous) == (5, configurations[1], configurations[1])
    history.append(12, configurations[2])
    history.truncate(12)
    assert history.current == configurations[1]


def test_an_entry_has_no_readable_state_beyond_its_fields() -> None:
    assert isinstance(noop(Position(), term=1), Entry)
    assert noop(Position(), term=1).payload == b""
