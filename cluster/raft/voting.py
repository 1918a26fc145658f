"""How a node comes to lead or to follow: campaigns, votes, stickiness, and the changes of role they end in.

Overrides 1-2 of pysyncobj's election: a pre-vote first, no vote while a leader is alive, a term on every reply, votes
and vote requests only after term and vote are durable, the own vote included.
"""

from __future__ import annotations

import random  # noqa: TID251 - for the type; the generator is passed in
from abc import ABC, abstractmethod
from collections.abc import Callable

import structlog

from holdfast.cluster.raft.chassis import Chassis
from holdfast.cluster.raft.consensus import Role
from holdfast.cluster.raft.contacts import Contacts
from holdfast.cluster.raft.elections import (
    Campaign,
    Phase,
    grants_pre_vote,
    grants_vote,
    log_is_up_to_date,
    may_stand,
    may_vote,
)
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.leadership import Leadership
from holdfast.cluster.raft.messages import Message, PreVote, PreVoteReply, TimeoutNow, Vote, VoteReply
from holdfast.cluster.raft.outbox import Outbox, RunJob
from holdfast.cluster.raft.timing import Limits, Timing
from holdfast.cluster.raft.transport import LinksTransport
from holdfast.proto.errors import Fatal, StorageFailed

_log = structlog.get_logger(__name__)


class VotingNode(Chassis, ABC):
    """A Raft node as far as elections go.

    clock: monotonic seconds. rng: for election timeouts. run_job: the worker for syncs. wake: asks for a tick soon.
    """

    def __init__(
        self,
        node_id: str,
        *,
        journal: Journal,
        transport: LinksTransport,
        timing: Timing,
        limits: Limits,
        clock: Callable[[], float],
        rng: random.Random,
        run_job: RunJob,
        wake: Callable[[], None],
    ) -> None:
        self.node_id = node_id
        self.failed: Fatal | None = None
        self.leadership: Leadership | None = None
        self.eligible = False
        self._timing = timing
        self._limits = limits
        self._clock = clock
        self._rng = rng
        self._wake = wake
        self._campaign = Campaign()
        self.leader_heard_s = float("-inf")
        self._votes_sent_s = float("-inf")
        self._stepped_s = clock()
        self._resumed_s = float("-inf")
        self._connected: set[str] = set()
        self._told_of_new_disk = False
        self._contacts = Contacts(
            node_id, journal.configurations, commit=lambda: self.commit, on_change=self._members_changed
        )
        self._outbox = Outbox(
            journal, run_job=run_job, clock=clock, deliver=self._deliver, on_synced=wake, on_failure=self._sync_failed
        )
        super().__init__(node_id, journal=journal, transport=transport, timing=timing)
        self._put_off_election(clock())

    # Sending

    def _send(self, node_id: str, message: Message) -> bool:
        sent: bool = self._links_transport.send(self._links_transport.node(node_id), message)
        return sent

    def _post(self, node_id: str, message: Message) -> None:
        """Send when everything the journal holds now is durable."""
        self._outbox.post(node_id, message)
        self._wake()

    def _deliver(self, node_id: str, message: Message) -> None:
        now_s = self._clock()
        if node_id != self.node_id:
            self._send(node_id, message)
            if isinstance(message, VoteReply) and message.granted and self.role is Role.FOLLOWER:
                self._put_off_election(now_s)  # the candidate has had its vote only now
        elif isinstance(message, VoteReply):
            # The votes were asked for only now. The others' disks may be as slow as this one's.
            self._votes_sent_s = now_s
            self._put_off_election(now_s + min(self._outbox.last_sync_s, self._timing.disk_stall_s))
            self._on_vote_reply(node_id, message)

    def _sync_failed(self, error: BaseException) -> None:
        if self.failed is None:
            self.failed = (
                error if isinstance(error, Fatal) else StorageFailed("the disk refused to make the log durable")
            )
            self.failed.__cause__ = error
        self._wake()

    # Roles

    @property
    def is_voter(self) -> bool:
        """Whether the configuration in effect lets this node vote and lead."""
        return self.node_id in self.log.configurations.voters

    def _put_off_election(self, now_s: float) -> None:
        self.election_deadline_s = now_s + self._SyncObj__generateRaftTimeout()

    def _SyncObj__generateRaftTimeout(self) -> float:  # noqa: N802
        """pysyncobj's election timeout, by the generator passed in. An ineligible node lets eligible ones go first."""
        spread = self._timing.election_max_s - self._timing.election_min_s
        timeout = self._timing.election_min_s + spread * self._rng.random()
        return timeout if self.eligible else timeout + self._timing.election_max_s

    def _note_step(self, now_s: float) -> None:
        """Called with every step: sees that the process was stopped for a while, so that what it reads now is old."""
        if now_s - self._stepped_s > self._timing.quorum_timeout_s:
            self._resumed_s = now_s
        self._stepped_s = now_s

    def _disk_is_stalled(self, now_s: float) -> bool:
        return self._outbox.busy_s(now_s) > self._timing.disk_stall_s

    def _leader_is_alive(self, now_s: float) -> bool:
        if self.role is Role.LEADER:
            return True
        return bool(self.leader_id) and now_s - self.leader_heard_s < self._timing.election_min_s

    @property
    def hears_no_leader(self) -> bool:
        """Whether this node neither leads nor has heard a leader within the shortest election timeout."""
        return not self._leader_is_alive(self._clock())

    def _follow(self, term: int, leader_id: str) -> None:
        """Become (or stay) a follower in `term`."""
        now_s = self._clock()
        if term > self.term:
            self.set_term(term, None)
        if self.role is not Role.FOLLOWER:
            self._campaign.end()
            self.set_role(Role.FOLLOWER)
            self._put_off_election(now_s)
        self.leader_id = leader_id
        if self.leadership is not None:
            ended, self.leadership = self.leadership, None
            self._leadership_ended(ended)

    def _lead(self) -> None:
        """Won the election: begin the term with a no-op (the term's guard for reads and membership changes)."""
        now_s = self._clock()
        self._campaign.end()
        self.leadership = Leadership(
            self_id=self.node_id, term=self.term, journal=self.log, timing=self._timing, limits=self._limits,
            now_s=now_s, send=self._send,
        )  # fmt: skip
        self.leadership.commit = self.commit
        self.log.stamp = lambda: self.leadership.cluster_time_ms(self._clock()) if self.leadership else 0
        self._leadership_began(self.leadership)
        self.transition("onBecomeLeader")

    @abstractmethod
    def _members_changed(self) -> None:
        """Another configuration is in effect, a change of it is committed, or this node was told of other nodes."""

    @abstractmethod
    def _leadership_began(self, leadership: Leadership) -> None:
        """This node has won an election; its no-op is not appended yet."""

    @abstractmethod
    def _leadership_ended(self, ended: Leadership) -> None:
        """This node leads no more: whatever waits for it is to be resolved."""

    # Campaigning

    def _election_due(self, now_s: float) -> None:
        """No leader was heard for an election timeout."""
        if not (self.log.settled or self._disk_is_stalled(now_s)):
            return  # a vote of this node is on its way to the disk: what it leads to is still to come
        self._put_off_election(now_s)
        self.leader_id = ""
        if self._disk_is_stalled(now_s):
            return
        if not self.is_voter:
            for voter in self._other_voters():
                self._send(voter, PreVote(0, 0, 0))
            return
        if self.role is Role.CANDIDATE:
            self.set_role(Role.FOLLOWER)
        if not self._may_stand:
            self._tell_of_new_disk()
            for voter in self._other_voters():
                self._send(voter, PreVote(0, 0, 0))
            return
        self._campaign.begin(Phase.PRE_VOTE, self.term + 1)
        last = self.log.last
        for voter in self._other_voters():
            self._send(voter, PreVote(self.term + 1, last.index, last.term, self._address, not self.log.founded))
        if self._campaign.granted(Phase.PRE_VOTE, self.term + 1, self.node_id, self.log.configurations.voters):
            self._stand(transfer=False)

    def _stand(self, *, transfer: bool) -> None:
        """Stand for election in a new term. The own vote counts when it is durable, like any other."""
        self._put_off_election(self._clock())
        self.leader_id = ""
        founding = not (self.log.founded or transfer)
        self.log.vouch()
        self.set_role(Role.CANDIDATE)
        self.set_term(self.term + 1, self.node_id)
        self._campaign.begin(Phase.VOTE, self.term)
        last = self.log.last
        for voter in self._other_voters():
            self._post(voter, Vote(self.term, last.index, last.term, transfer, self._address, founding))
        self._post(self.node_id, VoteReply(self.term, granted=True))

    def _drop_late_campaign(self) -> None:
        """After its deadline a campaign is over, whether or not a tick has seen that yet: the node may have been
        stopped since, and the votes may have waited in a socket."""
        if self._clock() >= self.election_deadline_s:
            self._campaign.end()

    @property
    def _may_stand(self) -> bool:
        log = self.log
        return may_stand(vouched=log.vouched, founded=log.founded, last_index=log.last_index)

    def _may_vote(self, message: PreVote | Vote) -> bool:
        log = self.log
        allowed = may_vote(
            vouched=log.vouched, founded=log.founded, last_index=log.last_index, founding=message.founding
        )
        if not allowed:
            self._tell_of_new_disk()
        return allowed

    def _tell_of_new_disk(self) -> None:
        if not self._told_of_new_disk:
            self._told_of_new_disk = True
            _log.error(
                "new_disk_does_not_vote",
                member=self.node_id,
                last_index=self.log.last_index,
                advice="the cluster has a history, and this data folder is new: it gives no vote until a leader has "
                "brought it up to date. If the folder of a member was replaced: remove this node from the cluster with "
                "`holdfast operator raft remove-peer` and join the machine under a new node id; while no leader is "
                "elected, start the other members first",
            )

    @property
    def _address(self) -> str:
        member = self.log.configurations.current.member(self.node_id)
        return "" if member is None else member.cluster_address

    def _other_voters(self) -> list[str]:
        return [voter for voter in self.log.configurations.voters if voter != self.node_id]

    def _has_log_of(self, message: PreVote | Vote) -> bool:
        last = self.log.last
        return log_is_up_to_date(
            candidate_term=message.last_term, candidate_index=message.last_index,
            last_term=last.term, last_index=last.index,
        )  # fmt: skip

    # Messages

    def _on_pre_vote(self, node_id: str, message: PreVote) -> None:
        self._contacts.call_back(node_id, message.address)
        granted = grants_pre_vote(
            asked_term=message.term,
            own_term=self.term,
            up_to_date=self._has_log_of(message) and self._may_vote(message),
            leader_alive=self._leader_is_alive(self._clock()),
        )
        contacts = () if granted else self.log.configurations.current.contacts
        self._send(node_id, PreVoteReply(self.term, message.term, granted, contacts, self.log.founded))

    def _on_pre_vote_reply(self, node_id: str, message: PreVoteReply) -> None:
        if message.founded:
            self.log.note_founded()
        if not message.granted:
            if message.term > self.term:
                self._follow(message.term, "")
            self._contacts.meet(dict(message.contacts))
            return
        self._drop_late_campaign()
        voters = self.log.configurations.voters
        if (
            message.asked_term == self.term + 1
            and self._may_stand
            and self._campaign.granted(Phase.PRE_VOTE, message.asked_term, node_id, voters)
        ):
            self._stand(transfer=False)

    def _on_vote(self, node_id: str, message: Vote) -> None:
        if not message.transfer and self._leader_is_alive(self._clock()):
            return
        self._contacts.call_back(node_id, message.address)
        if message.term > self.term:
            self._follow(message.term, "")
        granted = self.role is Role.FOLLOWER and grants_vote(
            asked_term=message.term,
            own_term=self.term,
            voted_for=self.voted_for,
            candidate=node_id,
            up_to_date=self._has_log_of(message) and self._may_vote(message),
        )
        if granted:
            self.log.vouch()
            self.set_term(self.term, node_id)
            self._campaign.end()
            self._put_off_election(self._clock())
        self._post(node_id, VoteReply(self.term, granted))

    def _on_vote_reply(self, node_id: str, message: VoteReply) -> None:
        if message.term > self.term:
            self._follow(message.term, "")
            return
        self._drop_late_campaign()
        voters = self.log.configurations.voters
        if message.granted and self._campaign.granted(Phase.VOTE, message.term, node_id, voters):
            assert self.role is Role.CANDIDATE, "only a candidate collects votes"
            assert message.term == self.term, "a candidate collects votes of its own term"
            self._lead()

    def _on_timeout_now(self, node_id: str, message: TimeoutNow) -> None:
        if message.term == self.term and node_id == self.leader_id and self.is_voter and self.log.vouched:
            now_s = self._clock()
            # A request that waited while this process was stopped is read in its first moments.
            if self._disk_is_stalled(now_s) or now_s - self._resumed_s < 2 * self._timing.heartbeat_s:
                _log.warning("leadership_not_taken_over", from_node=node_id, term=self.term)
                return
            _log.info("leadership_taken_over", from_node=node_id, term=self.term + 1)
            self._stand(transfer=True)
