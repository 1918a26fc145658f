"""Autopilot: who is healthy, who may vote, and who is removed, in the machine alone and in a leader."""

import dataclasses

import msgspec
import pytest
from support.raft_rig import Alone, member, raises

from holdfast.cluster.raft.autopilot import Autopilot, AutopilotConfig, ServerView, checked
from holdfast.cluster.raft.messages import Append, AppendReply, PreVote, PreVoteReply, Vote, VoteReply
from holdfast.proto.errors import InvalidArgument

CLEANUP = AutopilotConfig(cleanup_dead_servers=True, min_quorum=3, dead_server_last_contact_threshold_s=60.0)
DAY_S = 86_400.0


def views(
    living: str, dead: str = "", *, learners: str = "", heard_s: float = 1000.0, now_s: float = 1000.0
) -> dict[str, ServerView]:
    """Members by letter: those that live were heard now, the dead at `heard_s`."""
    alive = {name: ServerView(name not in learners, connected=True, contact_s=now_s, last_index=50) for name in living}
    gone = {name: ServerView(name not in learners, connected=False, contact_s=heard_s, last_index=50) for name in dead}
    return alive | gone


def piloted(
    config: AutopilotConfig, seen: dict[str, ServerView], now_s: float = 1000.0, began_s: float = 0.0
) -> Autopilot:
    pilot = Autopilot("a", began_s)
    pilot.observe(now_s, config, seen, last_index=50)
    return pilot


@pytest.mark.parametrize(
    ("change", "healthy"),
    [({}, True), ({"connected": False}, False), ({"contact_s": 989.0}, False), ({"lost": True}, False),
     ({"last_index": -951}, False), ({"last_index": -950}, True)],
)  # fmt: skip
def test_a_member_is_healthy_that_was_heard_and_keeps_up(change: dict[str, object], healthy: bool) -> None:
    seen = views("abc")
    seen["b"] = dataclasses.replace(seen["b"], **change)
    assert piloted(AutopilotConfig(), seen).healthy("b") is healthy


def test_failure_tolerance_counts_healthy_voters() -> None:
    assert piloted(AutopilotConfig(), views("abcde")).failure_tolerance("abcde") == 2
    assert piloted(AutopilotConfig(), views("abc", "de")).failure_tolerance("abcde") == 0
    assert piloted(AutopilotConfig(), views("ab", "cde")).failure_tolerance("abcde") == 0
    assert piloted(AutopilotConfig(), views("a")).failure_tolerance("a") == 0


def test_a_learner_may_vote_when_it_has_been_healthy_for_the_stabilization_time() -> None:
    config, pilot = AutopilotConfig(server_stabilization_time_s=10.0), Autopilot("a", 0.0)
    pilot.observe(100.0, config, views("abcd", now_s=100.0), 50)
    assert not pilot.may_vote("d", 109.9, config)
    assert pilot.may_vote("d", 110.0, config)
    pilot.observe(111.0, config, views("abc", "d", now_s=111.0), 50)
    pilot.observe(112.0, config, views("abcd", now_s=112.0), 50)
    assert not pilot.may_vote("d", 121.9, config), "a lapse begins it anew"
    assert pilot.may_vote("d", 122.0, config)


def test_the_longest_dead_is_removed_first_and_only_when_it_was_dead_for_long() -> None:
    seen = views("abc", "d", heard_s=940.0) | views("", "e", heard_s=900.0)
    assert piloted(CLEANUP, seen).to_remove(1000.0, CLEANUP, seen) == "e"
    del seen["e"]
    assert piloted(CLEANUP, seen).to_remove(1000.0, CLEANUP, seen) == "d"
    assert piloted(CLEANUP, seen).to_remove(999.9, CLEANUP, seen) is None


def test_nobody_is_removed_unless_it_is_switched_on() -> None:
    seen = views("abc", "d", heard_s=0.0)
    assert piloted(AutopilotConfig(), seen, now_s=1000 * DAY_S).to_remove(1000 * DAY_S, AutopilotConfig(), seen) is None


def test_a_new_leader_counts_from_its_own_beginning() -> None:
    seen = views("abc", "d", heard_s=0.0)
    assert piloted(CLEANUP, seen, began_s=950.0).to_remove(1000.0, CLEANUP, seen) is None
    assert piloted(CLEANUP, seen, began_s=940.0).to_remove(1000.0, CLEANUP, seen) == "d"


def test_what_is_left_has_min_quorum_voters_and_a_healthy_quorum() -> None:
    seen = views("ab", "c", heard_s=0.0)
    assert piloted(CLEANUP, seen).to_remove(1000.0, CLEANUP, seen) is None, "two would be left"
    seen = views("abc", "de", heard_s=0.0)
    assert piloted(CLEANUP, seen).to_remove(1000.0, CLEANUP, seen) == "d"
    seen = views("ab", "cde", heard_s=0.0)
    assert piloted(CLEANUP, seen).to_remove(1000.0, CLEANUP, seen) is None, "there is no quorum to decide it"
    seen = views("ab", "c", heard_s=0.0) | views("", "x", learners="x", heard_s=0.0)
    assert piloted(CLEANUP, seen).to_remove(1000.0, CLEANUP, seen) == "x", "who does not vote is no part of a quorum"


@pytest.mark.parametrize(
    ("change", "field"),
    [({"dead_server_last_contact_threshold_s": 59.9}, "dead_server_last_contact_threshold"),
     ({"cleanup_dead_servers": True}, "min_quorum"), ({"cleanup_dead_servers": True, "min_quorum": 2}, "min_quorum"),
     ({"last_contact_threshold_s": 0}, "last_contact_threshold"), ({"max_trailing_logs": 0}, "max_trailing_logs"),
     ({"min_quorum": 2**60}, "configuration"), ({"server_stabilization_time_s": -1.0}, "configuration")],
)  # fmt: skip
def test_a_configuration_that_makes_no_sense_is_refused(change: dict[str, object], field: str) -> None:
    error = raises(lambda: checked(msgspec.structs.replace(AutopilotConfig(), **change)))
    assert isinstance(error, InvalidArgument)
    assert error.field == field


# In a leader


def elect(node: Alone) -> None:
    """Win an election with everybody's vote."""
    peers = sorted(node.links.up)
    node.advance(2.0)
    asked = node.take(PreVote)[-1]
    for peer in peers:
        node.hear(peer, PreVoteReply(node.machine.term, asked.term, granted=True))
    vote = node.take(Vote)[-1]
    for peer in peers:
        node.hear(peer, VoteReply(vote.term, granted=True))
    live(node, 0.3)
    assert node.machine.ready


def live(node: Alone, seconds: float) -> None:
    """Time passes; whoever is connected acknowledges what it was sent."""
    for _ in range(round(seconds / 0.1)):
        node.advance(0.1)
        latest = {to: sent for to, sent in node.links.sent if isinstance(sent, Append)}
        node.links.sent.clear()
        for peer, append in latest.items():
            node.hear(peer, AppendReply(node.machine.term, True, node.machine.log.last_index, 0, append.stamp, True))


def configure(node: Alone, config: AutopilotConfig) -> None:
    """Set the configuration, as a change of the membership."""
    node.machine.change_members(lambda current: msgspec.structs.replace(current, autopilot=config), lambda _: None)
    live(node, 0.3)


def test_a_leader_removes_one_dead_member_at_a_time_and_keeps_its_configuration() -> None:
    node = Alone("abcde")
    elect(node)
    configure(node, CLEANUP)
    node.links.up -= {"d", "e"}
    for gone in "de":
        node.transport.disconnected(gone)
    live(node, 59.0)
    assert node.machine.log.configurations.voters == tuple("abcde")
    live(node, 5.0)
    assert node.machine.log.configurations.voters == tuple("abc")
    live(node, 70.0)
    assert node.machine.log.configurations.voters == tuple("abc")
    assert node.machine.piloting.config == CLEANUP
    assert node.restarted(cluster="abcde").machine.piloting.config == CLEANUP


def test_a_learner_is_promoted_after_the_stabilization_time() -> None:
    node = Alone("abc")
    elect(node)
    configure(node, AutopilotConfig(server_stabilization_time_s=5.0))
    node.links.up.add("d")
    node.machine.change_members(lambda current: current.with_learner(member("d")), lambda _: None)
    node.transport.connected("d")
    live(node, 4.5)
    assert "d" not in node.machine.log.configurations.voters
    live(node, 2.0)
    assert "d" in node.machine.log.configurations.voters
    state = node.machine.piloting.state(node.machine.leadership)  # type: ignore[arg-type]
    assert (state.healthy, state.failure_tolerance, state.leader) == (True, 1, "a")
    assert [server.last_term for server in state.servers] == [1, 1, 1, 1]
