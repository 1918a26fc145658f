"""The asyncio driver of a node's consensus machine: ticks, the sync worker, futures for whoever waits.

Ticks are coalesced: whatever happens in one turn of the loop is followed by one tick, and a timer sees to the rest.
Syncs run one after another in one worker thread. The first Fatal ends everything: all waiters are told, the timer
stops, and `on_fatal` is called once.
"""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - for the type; the generator is passed in
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
import structlog

from holdfast.cluster.peer.links import Links
from holdfast.cluster.raft import membership
from holdfast.cluster.raft.admission import admit
from holdfast.cluster.raft.autopilot import AutopilotConfig, AutopilotState, checked
from holdfast.cluster.raft.consensus import ConsensusStatus, Listener, Member, Outcome, Role, RoleListener
from holdfast.cluster.raft.copying import CopiedState
from holdfast.cluster.raft.entries import Kind, Position
from holdfast.cluster.raft.hardened import HardenedRaft, no_leader
from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.leadership import Leadership
from holdfast.cluster.raft.lineage import Verdict, judge
from holdfast.cluster.raft.membership import Configuration
from holdfast.cluster.raft.messages import MalformedMessage
from holdfast.cluster.raft.outbox import Job, OnJobDone
from holdfast.cluster.raft.proposals import not_leader
from holdfast.cluster.raft.restoring import Restoration, decode
from holdfast.cluster.raft.statemachine import DATA, StateMachine
from holdfast.cluster.raft.status import status_of
from holdfast.cluster.raft.timing import Limits, Timing
from holdfast.cluster.raft.transport import LinksTransport
from holdfast.proto.errors import (
    AlreadyExists,
    Diverged,
    FailedPrecondition,
    Fatal,
    HoldfastError,
    InvalidArgument,
    NoLeader,
    NotFound,
    OutcomeUnknown,
    StorageFailed,
    Unavailable,
)
from holdfast.storage.batch import Batch, Record
from holdfast.storage.home import Reception, StateCopy, StateHome
from holdfast.storage.listing import children
from holdfast.storage.store import Store

T = TypeVar("T")
_log = structlog.get_logger(__name__)

_APART = (
    "the peer belongs to a membership that was recovered from a lost quorum without this node, and this node to one "
    "that is alive: there are two clusters. See docs/operations.md, 'A quorum that is lost for good'"
)


class RaftNode:
    """One member of the cluster: `Consensus`, driven by asyncio.

    initial_members: of a new cluster, the same on every node. A node that is not among them (or is given none) starts
        outside the cluster and waits to be contacted. Not looked at when the journal holds a log.
    clock: monotonic seconds. rng: for election timeouts. on_fatal: must end the process.
    on_left_behind: told the lineage of a recovery in which this node was given up, before the node ends; must see to it
        that it is never started again with this data.
    """

    def __init__(
        self,
        *,
        member: Member,
        initial_members: Sequence[Member],
        journal_store: Store,
        state: StateHome,
        links: Links,
        clock: Callable[[], float],
        rng: random.Random,
        on_fatal: Callable[[Fatal], None],
        on_left_behind: Callable[[bytes], None] = lambda _lineage: None,
        timing: Timing | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._member = member
        self._initial_members = initial_members
        self._journal_store = journal_store
        self._state = state
        self._links = links
        self._clock = clock
        self._rng = rng
        self._on_fatal = on_fatal
        self._on_left_behind = on_left_behind
        self._timing = timing or Timing()
        self._limits = limits or Limits()
        self._eligible = False
        self._has_led = False
        self._strange_lineage = b""
        self._stopped = False
        self._fatal: Fatal | None = None
        self._tick_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._listeners: list[Listener] = []
        self._role_listeners: list[RoleListener] = []
        self._replaced_listeners: list[Callable[[bool], None]] = []
        self.on_content_wanted: Callable[[bytes], None] = lambda _sha256: None
        """Told the SHA-256 of the snapshot file that this node needs to go on: it has come to the entry of a restore.
        Set before `start`; answered by `prepare_content`."""
        self._announced: tuple[Role, int, str, bool] | None = None
        self._machine: HardenedRaft | None = None
        self._transfers: set[asyncio.Future[str]] = set()
        self._jobs: set[asyncio.Future[None]] = set()

    # Life

    async def start(self) -> None:
        """Read what is stored and take part. Raises Fatal (Corruption, ChassisMismatch) when that is impossible."""
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="raft-sync")
        transport = LinksTransport(self._links)
        self._machine = HardenedRaft(
            self._member.node_id,
            journal=Journal(self._journal_store, initial=self._initial_configuration()),
            machine=StateMachine(self._state.store),
            home=self._state,
            transport=transport,
            clock=self._clock,
            rng=self._rng,
            run_job=self._run_job,
            wake=self._wake,
            on_applied=self._applied,
            timing=self._timing,
            limits=self._limits,
            on_content_wanted=lambda sha256: self.on_content_wanted(sha256),
            on_replaced=self._replaced,
        )
        self._machine.set_eligible(eligible=self._eligible)
        self._links.bind(
            on_message=lambda node_id, payload: self._guarded(lambda: transport.receive(node_id, payload)),
            on_connected=lambda node_id: self._guarded(lambda: transport.connected(node_id)),
            on_disconnected=lambda node_id: self._guarded(lambda: transport.disconnected(node_id)),
        )
        self._on_timer()

    def _initial_configuration(self) -> Configuration | None:
        if all(member.node_id != self._member.node_id for member in self._initial_members):
            return None
        return membership.initial(self._initial_members)

    async def stop(self) -> None:
        """Stop taking part. Everything that waits is resolved; the stores stay open and belong to the caller.
        Raises StorageFailed when a sync hangs for longer than `Timing.stop_s`; the process should be ended then."""
        if self._stopped:
            return
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._machine is not None:
            self._machine.fail_all(
                lambda: OutcomeUnknown(
                    "the node is stopping; retry the write at another node, with the same request id"
                ),
                reads=lambda: NoLeader("the node is stopping; read at another node"),
            )
            self._end_transfers(Unavailable("the node is stopping; look at another node who leads"))
            await self._end_worker()

    async def _end_worker(self) -> None:
        """Wait for the sync under way, but not for ever: a disk may hang. What it was to make durable was not
        acknowledged. Raises StorageFailed then; the stores must not be closed under a running sync."""
        self._worker.shutdown(wait=False)
        if self._jobs:
            _, hanging = await asyncio.wait(self._jobs, timeout=self._timing.stop_s)
            if hanging:
                raise StorageFailed("the disk did not finish a sync in time; end the process without closing the files")

    # Driving

    def _on_timer(self) -> None:
        if not self._ended:
            self._timer = self._loop.call_later(self._timing.tick_s, self._on_timer)
            self._tick()

    @property
    def _ended(self) -> bool:
        return self._stopped or self._fatal is not None

    def _wake(self) -> None:
        if not self._tick_scheduled and not self._ended:
            self._tick_scheduled = True
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._tick_scheduled = False
        machine = self._machine
        if machine is not None:
            self._guarded(machine.doTick)

    def _guarded(self, step: Callable[[], None]) -> None:
        """Run a step of the machine and tell who listens. A malformed message is the links' business; anything else
        that is raised ends the node: a machine that was interrupted in the middle of a step is in doubtful state."""
        if self._ended:
            return
        try:
            step()
            if not self._ended:
                self._announce()
        except MalformedMessage:
            raise
        except Fatal as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the node must not carry on
            fatal = Fatal("the consensus module failed in a way that was not foreseen; the node must stop")
            fatal.__cause__ = error
            self._fail(fatal)

    def _fail(self, error: Fatal) -> None:
        self._fatal = error
        _log.critical("consensus_failed", reason=error.reason, message=error.message)
        if self._timer is not None:
            self._timer.cancel()
        if self._machine is not None:
            self._machine.fail_all(lambda: error)
        self._end_transfers(error)
        self._on_fatal(error)

    def _run_job(self, job: Job, on_done: OnJobDone) -> None:
        def done(future: asyncio.Future[None]) -> None:
            self._jobs.discard(future)
            self._guarded(lambda: on_done(future.exception()))

        running = self._loop.run_in_executor(self._worker, job)
        self._jobs.add(running)
        running.add_done_callback(done)

    def _end_transfers(self, error: HoldfastError) -> None:
        for future in self._transfers:
            _settle(future, error)

    def _announce(self) -> None:
        machine = self._running()
        now = (machine.role, machine.term, machine.leader_id, machine.ready)
        if now == self._announced:
            return
        self._announced = now
        self._has_led |= machine.role is Role.LEADER
        _log.info("raft_state", role=now[0].value, term=now[1], leader=now[2], ready=now[3])
        status = self.status()
        for listener in list(self._role_listeners):
            listener(status)

    def _applied(self, index: int, changed: Sequence[bytes]) -> None:
        for listener in list(self._listeners):
            listener(index, changed)

    def _replaced(self, keys_replaced: bool) -> None:  # noqa: FBT001 - what it is called with
        for listener in list(self._replaced_listeners):
            listener(keys_replaced)

    def _running(self) -> HardenedRaft:
        """The machine. Raises the Fatal that ended it, or Unavailable when the node was not started or has stopped."""
        if self._fatal is not None:
            raise self._fatal
        if self._machine is None or self._stopped:
            raise Unavailable("consensus is not running on this node; use another node")
        return self._machine

    # Consensus

    async def propose(self, batch: Batch, *, timeout_s: float) -> Outcome:
        """See Consensus."""
        machine = self._running()
        encoded = admit(batch)
        future: asyncio.Future[Outcome] = self._loop.create_future()
        proposal = machine.propose(encoded, lambda result: _settle(future, result))
        return await self._within(future, timeout_s, proposal.abandon)

    async def read_barrier(self, *, timeout_s: float) -> int:
        """See Consensus."""
        machine = self._running()
        future: asyncio.Future[int] = self._loop.create_future()
        barrier = machine.read(lambda result: _settle(future, result))
        return await self._within(future, timeout_s, lambda: barrier.resolve(no_leader(machine.leader_id)))

    async def _within(self, future: asyncio.Future[T], timeout_s: float, give_up: Callable[[], None]) -> T:
        """Wait for the future; `give_up` settles it when the time is up or the waiter is cancelled."""
        timeout = self._loop.call_later(timeout_s, give_up)
        try:
            return await future
        except asyncio.CancelledError:
            give_up()
            raise
        finally:
            timeout.cancel()

    async def get(self, key: bytes) -> Record | None:
        """See Consensus."""
        return self._running().machine.get(key)

    async def children(self, prefix: bytes, after: bytes, limit: int) -> list[tuple[bytes, bool, bool]]:
        """See Consensus."""
        self._running()
        return children(self._state.store, DATA, prefix, after, limit)

    async def scan(self, after: bytes, limit: int) -> list[tuple[bytes, Record]]:
        """See Consensus."""
        return self._running().machine.scan(after, limit)

    async def duplicate_of(self, request_key: bytes) -> bytes | None:
        """See Consensus."""
        return self._running().machine.duplicate_of(request_key)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """See Consensus."""
        self._listeners.append(listener)
        return lambda: _remove(self._listeners, listener)

    def on_role_change(self, listener: RoleListener) -> Callable[[], None]:
        """See Consensus."""
        self._role_listeners.append(listener)
        return lambda: _remove(self._role_listeners, listener)

    def on_replaced(self, listener: Callable[[bool], None]) -> None:
        """Have a listener called whenever the whole state was replaced, by a restore or by a member's snapshot, before
        anybody can read the new one. It is told whether the cluster's keys are others than before."""
        self._replaced_listeners.append(listener)

    # Snapshot files

    async def copy_state(self) -> CopiedState:
        """A copy of the state as it stands on this node. Raises Conflict while another one is being made."""
        machine = self._running()
        future: asyncio.Future[CopiedState] = self._loop.create_future()

        def copied(at: Position, _digest: bytes, copy: StateCopy) -> None:
            if future.done():
                self._run_job(copy.discard, lambda _error: None)
            else:
                future.set_result(CopiedState(at, machine.log.configurations.at(at.index).configuration, copy))

        machine.copy_state(copied)
        return await future

    def stage_content(self) -> Reception:
        """A place beside the state to prepare a snapshot's content in. What was prepared before is given up."""
        self._running().restores.drop()
        return self._state.stage()

    def prepare_content(self, sha256: bytes, content: Reception) -> None:
        """The content of a snapshot file is prepared: filled, synced, closed."""
        machine = self._running()
        self._guarded(lambda: machine.prepare_content(sha256, content))

    def content_prepared(self, sha256: bytes) -> bool:
        """Whether the content of a snapshot file is prepared."""
        return self._running().restores.has(sha256)

    def give_up_content(self, sha256: bytes) -> Reception | None:
        """The prepared content of a file that no restore needs, to be discarded before anything else is staged."""
        restores = self._running().restores
        return restores.drop() if restores.has(sha256) and restores.wanted != sha256 else None

    def content_wanted(self) -> bytes:
        """The SHA-256 of the file that this node waits for; empty when it waits for none."""
        return self._running().restores.wanted

    def content_in_log(self, sha256: bytes) -> bool:
        """Whether a member that follows this node's log may come to a restore of this content."""
        log = self._running().log
        entries = log.between(log.base.index + 1, count=log.last_index, bytes_max=1 << 62)
        return any(entry.kind is Kind.RESTORE and decode(entry).sha256 == sha256 for entry in entries)

    async def restore(self, restoration: Restoration, *, timeout_s: float) -> int:
        """Replace the state of the cluster by prepared content. Returns the log index at which it was replaced. Raises
        NotLeader, Conflict or OutcomeUnknown."""
        future: asyncio.Future[int] = self._loop.create_future()
        self._running().restore(restoration, lambda result: _settle(future, result))
        late = OutcomeUnknown(
            "the restore was not confirmed in time and may still take effect; look before you repeat it"
        )
        return await self._within(future, timeout_s, lambda: _settle(future, late))

    def status(self) -> ConsensusStatus:
        """See Consensus. Raises Unavailable before `start`; works to the end after a Fatal."""
        if self._machine is None:
            raise Unavailable("consensus is not running on this node; use another node")
        return status_of(self._machine, self._clock())

    def hears_strangers(self) -> bool:
        """Whether this node listens to Raft messages of nodes that its log does not name: while it hears no leader."""
        return self._machine is not None and self._fatal is None and self._machine.hears_no_leader

    @property
    def lineage(self) -> bytes:
        """Which recoveries this node's membership descends from; told to every node that dials."""
        return b"" if self._machine is None else self._machine.log.configurations.current.lineage

    def judge(self, peer: str, lineage: bytes) -> bool:
        """Whether this node may speak to a peer that it has dialled. Ends the node when the peer shows that it was
        given up in a recovery."""
        machine = self._machine
        if machine is None or self._ended:
            return False
        verdict = judge(
            self.lineage,
            lineage,
            vouched=machine.log.vouched,
            has_led_or_heard=self._has_led or (machine.leader_heard_s > float("-inf") and machine.leader_id != peer),
        )
        if verdict is Verdict.FOUNDED:
            machine.log.note_founded()
            self._wake()
        elif verdict is Verdict.REFUSE and lineage != self._strange_lineage:
            self._strange_lineage = lineage
            _log.error("cluster_recovered_apart", peer=peer, advice=_APART)
        elif verdict is Verdict.LEFT_BEHIND:
            self._leave(lineage)
        return verdict in (Verdict.SPEAK, Verdict.FOUNDED)

    def _leave(self, lineage: bytes) -> None:
        try:
            self._on_left_behind(lineage)
        except Fatal as error:
            self._fail(error)
        else:
            self._fail(
                Diverged(
                    "the cluster was recovered from a lost quorum without this node, which is no member any more. Move "
                    "its data folder away, set initial_members: [], start it, and join it as a new node"
                )
            )

    def set_eligible(self, *, eligible: bool) -> None:
        """See Consensus."""
        self._eligible = eligible
        if self._machine is not None:
            self._machine.set_eligible(eligible=eligible)

    async def transfer_leadership(self, target: str = "", *, timeout_s: float) -> str:
        """See Consensus."""
        machine = self._running()
        if machine.leadership is None:
            raise not_leader(machine.leader_id)
        if target and machine.log.configurations.current.member(target) is None:
            raise FailedPrecondition("no member has this node id; see the list of peers")
        successors = machine.leadership.successors()
        eligible = [name for name in successors if machine.leadership.progress[name].eligible]
        chosen = target or next(iter(eligible or successors), "")
        if chosen == machine.node_id:
            return chosen
        if chosen not in successors:
            raise FailedPrecondition("no voter is connected and has caught up, so leadership cannot be handed over")
        future: asyncio.Future[str] = self._loop.create_future()

        def look(status: ConsensusStatus) -> None:
            if status.leader_id not in ("", machine.node_id) and not future.done():
                future.set_result(status.leader_id)

        unsubscribe = self.on_role_change(look)
        self._transfers.add(future)
        try:
            machine.transfer(chosen)
            asked = machine.leadership
            return await self._within(future, timeout_s, lambda: _settle(future, _late_transfer(asked)))
        finally:
            self._transfers.discard(future)
            unsubscribe()

    async def add_member(self, member: Member, *, timeout_s: float) -> int:
        """See Consensus. The member joins as a learner; one with `voter` set is promoted when it has caught up.
        It is sent a snapshot when the log no longer reaches back to its beginning."""

        def change(configuration: Configuration) -> Configuration:
            if configuration.member(member.node_id) is not None:
                raise AlreadyExists("a member of this node id exists; remove it first or choose another id")
            if len(configuration.members) >= membership.MEMBERS_MAX:
                raise FailedPrecondition(f"the cluster has {membership.MEMBERS_MAX} members, which is the most it can")
            return configuration.with_learner(member)

        if not (member.node_id and member.cluster_address):
            raise InvalidArgument("a member needs a node id and a cluster address", field="member")
        return await self._change_members(change, timeout_s)

    async def remove_member(self, node_id: str, *, timeout_s: float) -> int:
        """See Consensus. The leader may remove itself; it steps down when that is committed. Raises FailedPrecondition
        for the last voter."""

        def change(configuration: Configuration) -> Configuration:
            if configuration.member(node_id) is None:
                raise NotFound("no member has this node id; see the list of peers")
            if configuration.voters == (node_id,):
                raise FailedPrecondition("this is the last voter; a cluster cannot do without")
            return configuration.without(node_id)

        return await self._change_members(change, timeout_s)

    def autopilot_state(self) -> AutopilotState:
        """The members' health, as this leader sees it. Raises NotLeader."""
        machine = self._running()
        if machine.leadership is None:
            raise not_leader(machine.leader_id)
        return machine.piloting.state(machine.leadership)

    def autopilot_config(self) -> AutopilotConfig:
        """What autopilot may do."""
        return self._running().piloting.config

    async def set_autopilot(
        self, change: Callable[[AutopilotConfig], AutopilotConfig], *, timeout_s: float
    ) -> AutopilotConfig:
        """Change what autopilot may do; it is replicated as the membership is. Raises InvalidArgument, and as
        `add_member`."""
        config = checked(change(self.autopilot_config()))
        await self._change_members(
            lambda configuration: msgspec.structs.replace(configuration, autopilot=config), timeout_s
        )
        return config

    async def _change_members(self, change: Callable[[Configuration], Configuration], timeout_s: float) -> int:
        future: asyncio.Future[int] = self._loop.create_future()
        self._running().change_members(change, lambda result: _settle(future, result))
        late = OutcomeUnknown("the membership change was not confirmed in time; look at the list of peers")
        return await self._within(future, timeout_s, lambda: _settle(future, late))


def _late_transfer(leadership: Leadership | None) -> HoldfastError:
    """The error for a transfer that was not seen to end in time. Once the successor was asked, it may still come."""
    if leadership is None or leadership.successor_was_asked:
        return OutcomeUnknown(
            "leadership was not seen to change hands in time, and may still do so; look who leads before you try again"
        )
    return Unavailable("leadership was not handed over in time: the successor did not catch up; try again")


def _settle(future: asyncio.Future[T], result: T | HoldfastError) -> None:
    if future.done():
        return
    if isinstance(result, HoldfastError):
        future.set_exception(result)
    else:
        future.set_result(result)


def _remove(listeners: list[T], listener: T) -> None:
    if listener in listeners:
        listeners.remove(listener)
