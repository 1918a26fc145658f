"""The one request path. Every front end ends here, and so does a request that another node forwarded.

    gate -> leader (writes) or read barrier (reads) -> token -> policy -> audit -> engine in a transaction
         -> propose (writes) -> audit -> response

Nothing here knows an engine, a wire or a disk. Everything decrypted belongs to one request, but for the mount table.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from holdfast.cluster.raft.consensus import Applied, Conflicted, Consensus, Duplicate, Outcome, Role
from holdfast.core import audit, idempotency, tokens
from holdfast.core.audit import AuditSource, AuditTrail
from holdfast.core.call import Admitted, Call, Forwarder, Grant, Limits
from holdfast.core.deadline import Deadline
from holdfast.core.locks import KeyedLocks
from holdfast.core.mounts import MOUNTS_PATH, MountCache, MountTable, new_mount
from holdfast.core.paths import split
from holdfast.core.plugin import Caller, Engine, HandlerContext, StorageView, jsondata
from holdfast.core.plugin.times import rfc3339
from holdfast.core.policy import Policy
from holdfast.core.policy.acl import Asked, Decision
from holdfast.core.policy.engine import policy_mounts
from holdfast.core.policy.rules import Capability
from holdfast.core.policy.store import StoredPolicies
from holdfast.core.request import DATA_BYTES_MAX, Consistency, Operation, Request, Response
from holdfast.core.router import Route, Router, SystemMount
from holdfast.core.system import system_mounts
from holdfast.core.tokens import Known, TokenEntry
from holdfast.proto.errors import (
    AuditFailed,
    Conflict,
    Fatal,
    HoldfastError,
    NoLeader,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    PermissionDenied,
    Sealed,
    Unavailable,
)
from holdfast.storage.barrier import Barrier
from holdfast.storage.batch import Batch
from holdfast.storage.transaction import Transaction

T = TypeVar("T")

_ENVELOPE_BYTES = 64 * 1024
"""What a request may hold beside the data that an engine stores (options, wrapping), in bytes of JSON."""

_ENVELOPE_DEPTH = 4

_UNDELIVERED = (NotLeader, NoLeader, Unavailable)
"""What a forwarded request comes back with, exactly of these classes, when certainly nothing was appended and a new
try may find the leader."""


class _TakesAUse(Exception):
    """A read by a token with a limited number of uses: counting one is a write, so the read becomes one."""


class Core:
    """See the module. barrier: the open barrier; raises Uninitialized or Sealed. system: mounts beside `sys/`.
    wall_clock: Unix time in seconds. random_bytes: cryptographically secure."""

    def __init__(
        self,
        *,
        node_id: str,
        consensus: Consensus,
        barrier: Callable[[], Barrier],
        engines: Mapping[str, Engine],
        forwarder: Forwarder,
        audit: AuditSource,
        system: Sequence[SystemMount] = (),
        wall_clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        policy: Policy | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._node_id = node_id
        self._consensus = consensus
        self._barrier = barrier
        policies = StoredPolicies()
        self._router = Router(engines, [*system_mounts(engines), *policy_mounts(policies), *system])
        self._forwarder = forwarder
        self._audit = audit
        self._wall_clock = wall_clock
        self._random_bytes = random_bytes
        self._policy = policy or policies
        self._limits = limits or Limits()
        self._locks = KeyedLocks(waiters_max=self._limits.waiters_max, total_max=self._limits.writes_max)
        self._mounts = MountCache()
        self._in_flight = 0

    async def handle(self, request: Request) -> Response:
        """Serve a request; returns within its timeout plus the deadline of the audit devices.

        Raises any HoldfastError but Fatal as the request's own; Fatal means that the node must stop. A write that
        raises anything but OutcomeUnknown has not taken effect; after OutcomeUnknown it has, or may have, or will, and
        a retry under the same request id takes effect once."""
        call = self._accept(request)
        if self._in_flight >= self._limits.in_flight_max:
            raise Overloaded("this node handles as many requests as it may: use another node or back off")
        self._in_flight += 1
        try:
            self._gate()
            if request.operation.writes:
                return await self._write(call)
            try:
                return await self._read(call)
            except _TakesAUse:
                return await self._write(call)
        finally:
            self._in_flight -= 1

    async def serve_open(self, request: Request) -> Response:
        """Serve a write whose credential is in its data, where the handler of its path checks it: no token and no
        policy stand before it. For the server's own use; it bounds how often strangers may ask. On the leader only.

        Raises as `handle`, and NotLeader."""
        call = self._accept(request)
        call.open = True
        self._gate()
        status = self._consensus.status()
        if status.role is not Role.LEADER:
            raise NotLeader("this node does not lead (any more)", details={"leader_id": status.leader_id})
        if not status.ready:
            await self._consensus.read_barrier(timeout_s=call.deadline.remaining_s())
        return await self._audited(call, self._commit(call))

    async def authorize(self, request: Request) -> Grant:
        """Leave for an operation that the server does itself (seal, step-down, membership): gate, token, policy with
        `sudo`, audit; nothing is routed. STALE decides on what this node knows, so that a node cut off from the others
        can still be sealed. Raises as `handle`."""
        call = self._accept(request)
        self._gate()
        await self._catch_up(call)
        token = await self._audited(call, self._current(call, self._decide))
        caller = _caller(token)
        return Grant(caller, call.trail)

    async def witness(self, request: Request) -> Grant:
        """As `authorize`, for an operation that needs no token because shares of the root key protect it: what it is
        and how it ended is audited all the same."""
        call = self._accept(request)
        self._gate()
        await call.trail.prepare(self._transaction())
        await call.trail.decision()
        return Grant(Caller(accessor="", display_name="", policies=()), call.trail)

    async def create_root_token(self, txn: Transaction) -> str:
        """Have a new root token stored; returns it. For a ceremony of share holders."""
        return await tokens.create_root(
            txn.view(tokens.TOKENS_PREFIX), now=self._now(), random_bytes=self._random_bytes
        )

    async def bootstrap(self, txn: Transaction) -> str:
        """Make what a new cluster starts with: the mount `secret/`, the token salt, the audit key and a root token.
        Returns the token; it is nowhere else."""
        now = self._now()
        kv = new_mount(
            engine="kv",
            created=rfc3339(now),
            options={"version": "2"},
            description="versioned secrets",
            random_bytes=self._random_bytes,
        )
        txn.put(MOUNTS_PATH, MountTable({"secret/": kv}).encode())
        audit.create_key(txn.view(audit.AUDIT_PREFIX), self._random_bytes)
        store = txn.view(tokens.TOKENS_PREFIX)
        tokens.create_salt(store, self._random_bytes)
        return await tokens.create_root(store, now=now, random_bytes=self._random_bytes)

    def forget(self) -> None:
        """Drop everything decrypted that outlives a request. To be called when the node is sealed."""
        self._mounts.forget()
        self._policy.forget()

    # --- the way in

    def _accept(self, request: Request) -> Call:
        """Refuse what is malformed, before anything is asked of anybody."""
        split(request.path, request.operation)
        jsondata.encode(
            request.data,
            field="data",
            bytes_max=DATA_BYTES_MAX + _ENVELOPE_BYTES,
            depth_max=jsondata.DEPTH_MAX + _ENVELOPE_DEPTH,
        )
        timeout_s, print_ = request.timeout_s, None
        if request.request_id is not None and request.operation.writes:
            idempotency.check(request.request_id)
            print_ = idempotency.fingerprint(request)
            timeout_s = min(timeout_s, (idempotency.PROPOSE_AGE_MS_MAX - request.request_id.age_ms) / 1000)
        return Call(request, Deadline(timeout_s), AuditTrail(self._audit, request, self._now, self._node_id), print_)

    def _gate(self) -> Barrier:
        """The open barrier. Raises Uninitialized or Sealed."""
        try:
            return self._barrier()
        except Unavailable:
            self.forget()
            raise

    # --- reads

    async def _read(self, call: Call) -> Response:
        """On any node, from its own state, once that is known to be current."""
        await self._catch_up(call)
        return await self._audited(call, self._current(call, self._answer))

    async def _catch_up(self, call: Call) -> None:
        if call.request.consistency is not Consistency.STALE:
            await self._consensus.read_barrier(timeout_s=call.deadline.remaining_s())

    async def _answer(self, call: Call, txn: Transaction) -> Response:
        known = await self._identify(call, txn)
        if known.entry.num_uses:
            raise _TakesAUse
        admitted = await self._route(call, txn, known)
        await call.trail.decision()
        response = await self._run(txn, admitted)
        assert not txn.writes, "a handler of a read has written"
        return response

    async def _current(self, call: Call, evaluate: Callable[[Call, Transaction], Awaitable[T]]) -> T:
        """Evaluate until everything that was read was true at one moment: neither an answer nor an error counts that
        mixes the state before a write with the state after it."""
        for attempt in range(self._limits.attempts_max):
            if attempt:
                await self._pause(call, attempt)
            txn = self._transaction()
            try:
                result = await evaluate(call, txn)
            except HoldfastError:
                if await txn.unchanged():
                    raise
                continue
            if await txn.unchanged():
                self._gate()
                return result
        raise Conflict("what the request reads kept changing while it was read: try again")

    # --- writes

    async def _write(self, call: Call) -> Response:
        """On the leader: here, or forwarded there once. Tried again within the deadline while nothing was appended."""
        clock = asyncio.get_running_loop().time
        handed_over_at = clock() + self._limits.hand_over_s
        for attempt in itertools.count():
            status = self._consensus.status()
            if status.role is Role.LEADER:
                try:
                    if not status.ready:
                        await self._consensus.read_barrier(timeout_s=call.deadline.remaining_s())
                    return await self._audited(call, self._commit(call))
                except NotLeader:
                    pass
            elif call.request.forwarded_by:
                raise NotLeader("this node does not lead (any more)", details={"leader_id": status.leader_id})
            elif not status.leader_id:
                raise NoLeader("no leader is known: an election is under way or quorum is lost; try again")
            else:
                try:
                    return await self._forwarder.forward(status.leader_id, self._forwarded(call))
                except Unavailable as error:
                    # A leader without keys changes nothing, and hands leadership on to a node that has them.
                    handing_over = isinstance(error, Sealed) and clock() < handed_over_at
                    if type(error) not in _UNDELIVERED and not handing_over:
                        raise
            await self._pause(call, attempt)
            self._gate()
        raise AssertionError("the loop ends by its deadline")

    def _forwarded(self, call: Call) -> Request:
        return msgspec.structs.replace(call.request, forwarded_by=self._node_id, timeout_s=call.deadline.remaining_s())

    async def _commit(self, call: Call) -> Response:
        """Commit what the request does. A refusal takes a use of a token that has a limited number of them, as well."""
        try:
            return await self._evaluated(call)
        except (Unavailable, OutcomeUnknown, Fatal):
            raise
        except HoldfastError:
            if call.trail.token is not None and call.trail.token.num_uses:
                await self._take_a_use(call)
            raise

    async def _take_a_use(self, call: Call) -> None:
        for attempt in range(self._limits.attempts_max):
            if attempt:
                await self._pause(call, attempt)
            txn = self._transaction()
            known = await self._identify(call, txn)
            await tokens.use(txn.view(tokens.TOKENS_PREFIX), known)
            if not isinstance(await self._propose(call, txn.batch()), Conflicted):
                return
        raise Conflict("concurrent uses of the token kept winning: try again")

    async def _evaluated(self, call: Call) -> Response:
        """Decide, then evaluate and propose until a proposal does not conflict."""
        _, admitted = await self._believed(call, self._admit)
        await call.trail.decision()
        async with self._locks.hold(admitted.route.object_key):
            for attempt in range(self._limits.attempts_max):
                if attempt:
                    await self._pause(call, attempt)
                response = await self._attempt(call)
                if response is not None:
                    return response
        raise Conflict("concurrent writes kept winning: try again, or write to this object from fewer places at once")

    async def _attempt(self, call: Call) -> Response | None:
        """One evaluation and its proposal; None when another write came in between.

        A write that changes nothing is proposed as well: only that proves that what it saw was current."""
        recorder = call.recorder(self._gate())
        if recorder is not None and (known := await self._consensus.duplicate_of(recorder.key)) is not None:
            return await recorder.open(known)
        txn, response = await self._believed(call, self._evaluate)
        batch = txn.batch(None if recorder is None else recorder.record(response))
        self._gate()
        match await self._propose(call, batch):
            case Applied():
                return response
            case Duplicate(recorded):
                assert recorder is not None, "only a request with an id has a duplicate"
                return await recorder.open(recorded)
            case Conflicted():
                return None

    async def _evaluate(self, call: Call, txn: Transaction) -> Response:
        # Token and policy again, now in the write's own transaction: a token revoked meanwhile makes it conflict.
        admitted = await self._admit(call, txn)
        response = await self._run(txn, admitted)
        if admitted.known.entry.num_uses:
            await tokens.use(txn.view(tokens.TOKENS_PREFIX), admitted.known)
        return response

    async def _believed(
        self, call: Call, evaluate: Callable[[Call, Transaction], Awaitable[T]]
    ) -> tuple[Transaction, T]:
        """Evaluate a write's step on the local state. A success proves itself when it is proposed. An error counts only
        on a state that is shown to be current: this node may lead no more without knowing it."""
        txn = self._transaction()
        try:
            return txn, await evaluate(call, txn)
        except Unavailable:
            raise
        except HoldfastError:
            await self._consensus.read_barrier(timeout_s=call.deadline.remaining_s())

        async def again(call: Call, txn: Transaction) -> tuple[Transaction, T]:
            return txn, await evaluate(call, txn)

        return await self._current(call, again)

    async def _propose(self, call: Call, batch: Batch) -> Outcome:
        timeout_s = call.deadline.remaining_s()
        call.deadline.sent = True
        try:
            outcome = await self._consensus.propose(batch, timeout_s=timeout_s)
        except OutcomeUnknown:
            raise
        except HoldfastError:
            call.deadline.sent = False
            raise
        call.deadline.sent = False
        call.committed = not isinstance(outcome, Conflicted)
        return outcome

    # --- what reads and writes share

    async def _decide(self, call: Call, txn: Transaction) -> TokenEntry:
        known = await self._identify(call, txn)
        if known.entry.num_uses:
            raise PermissionDenied("a token with a limited number of uses is no token for operating nodes")
        await self._permit(txn, known.entry, _asked(call.request, call.request.operation, sudo=True))
        await call.trail.decision()
        return known.entry

    async def _identify(self, call: Call, txn: Transaction) -> Known:
        """Who asks. Raises Unauthenticated."""
        await call.trail.prepare(txn)
        if call.open:
            return tokens.NOBODY
        request = call.request
        known = await tokens.lookup(
            txn.view(tokens.TOKENS_PREFIX), request.token, now=self._now(), remote_address=request.remote_address
        )
        call.trail.token = known.entry
        return known

    async def _permit(self, txn: Transaction, token: TokenEntry, asked: Asked) -> Decision:
        """Raises PermissionDenied unless the token's policies allow what is asked."""
        decision = await self._policy.decide(txn, token, asked)
        if not decision.allowed:
            raise PermissionDenied(
                "permission denied: the token's policies do not allow this. Ask for a policy that does; who may use"
                " sys/why-denied can see which rule decided, by `holdfast policy why-denied`"
            )
        return decision

    async def _admit(self, call: Call, txn: Transaction) -> Admitted:
        return await self._route(call, txn, await self._identify(call, txn))

    async def _route(self, call: Call, txn: Transaction, known: Known) -> Admitted:
        """Policy and route. Who may not do this learns nothing of the mounts."""
        request, token = call.request, known.entry
        try:
            route = self._router.route(await self._mounts.table(txn), request)
        except Fatal:
            raise
        except HoldfastError:
            if not call.open:
                await self._permit(txn, token, _asked(request, request.operation))
            raise
        context = self._context(call, route, token)
        operation = request.operation
        if operation in (Operation.CREATE, Operation.UPDATE):  # what the caller calls it decides nothing
            exists = route.path_spec.exists
            there = exists is None or await exists(context, _view(txn, route))
            operation = Operation.UPDATE if there else Operation.CREATE
        if call.open:
            return Admitted(known, route, context)
        decision = await self._permit(txn, token, _asked(request, operation, sudo=route.path_spec.sudo))
        if decision.deciding is not None and Capability.SUDO in decision.deciding.capabilities:
            context = dataclasses.replace(context, caller=dataclasses.replace(context.caller, sudo=True))
        return Admitted(known, route, context)

    async def _run(self, txn: Transaction, admitted: Admitted) -> Response:
        return await admitted.route.spec.handler(admitted.context, _view(txn, admitted.route))

    def _context(self, call: Call, route: Route, token: TokenEntry) -> HandlerContext:
        return HandlerContext(
            operation=call.request.operation,
            path=route.path,
            fields=route.fields,
            data=call.request.data,
            now=self._now(),
            random_bytes=self._random_bytes,
            options=route.options,
            caller=_caller(token),
        )

    async def _audited(self, call: Call, work: Awaitable[T]) -> T:
        """Do the work within the deadline and record its outcome before anybody is told."""
        try:
            result = await self._in_time(call, work)
        except (AuditFailed, NotLeader):
            raise  # not an outcome: another node will decide, or nothing can be recorded
        except HoldfastError as error:
            try:
                await call.trail.outcome(error=error)
            except AuditFailed:
                if not isinstance(error, OutcomeUnknown | Fatal):
                    raise
            raise  # that a write may have happened, or that the node must stop, is never hidden by the audit
        if isinstance(result, Response):
            try:
                await call.trail.outcome(response=result)
            except AuditFailed:
                if not call.committed:
                    raise
                raise OutcomeUnknown(
                    "the write took effect and no audit device recorded its outcome: see to the audit devices, then "
                    "retry with the same request id for the answer"
                ) from None
        return result

    async def _in_time(self, call: Call, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout_at(call.deadline.at):
                return await work
        except TimeoutError:
            if call.deadline.sent:
                raise OutcomeUnknown(
                    "the deadline passed while the write was under way: retry with the same request id"
                ) from None
            raise Unavailable(
                "the deadline passed before anything was changed: try again, or allow more time"
            ) from None

    async def _pause(self, call: Call, attempt: int) -> None:
        """Exponential back-off with full jitter, never past the deadline."""
        ceiling = min(self._limits.pause_s_max, self._limits.pause_s_min * 2 ** min(attempt, 16))
        share = int.from_bytes(self._random_bytes(4), "big") / 2**32
        await asyncio.sleep(min(ceiling * share, call.deadline.remaining_s()))

    def _transaction(self) -> Transaction:
        return Transaction(self._consensus, self._gate())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall_clock(), UTC)

    def __repr__(self) -> str:
        return f"<Core {self._node_id}>"


def _caller(token: TokenEntry) -> Caller:
    return Caller(accessor=token.accessor, display_name=token.display_name, policies=token.policies)


def _asked(request: Request, operation: Operation, *, sudo: bool = False) -> Asked:
    """What the policies are asked. A list is one of a path that ends in "/", as Vault's are."""
    path = request.path.removesuffix("/") + "/" if operation is Operation.LIST else request.path
    return Asked(path, operation, request.data, sudo=sudo)


def _view(txn: Transaction, route: Route) -> StorageView:
    return txn.view(route.view_prefix) if route.view_prefix else txn
