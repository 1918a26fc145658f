"""The request path: gate, leader, forwarding, conflicts, limits, deadlines, and a seal that comes in between."""

import asyncio
import secrets
from typing import Any

import pytest
from support.core_node import CoreNode
from support.local_consensus import Fault, LocalConsensus

from holdfast.cluster.raft.consensus import Role
from holdfast.core.call import Limits
from holdfast.core.locks import KeyedLocks
from holdfast.core.plugin import HandlerContext, Operation, OperationSpec, PathSpec, Response, StorageView
from holdfast.core.request import Consistency, Request
from holdfast.proto.errors import (
    AuditFailed,
    Conflict,
    Corruption,
    HoldfastError,
    InvalidArgument,
    NoLeader,
    NotFound,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Sealed,
    Unavailable,
)
from holdfast.storage.batch import Batch
from holdfast.storage.keyring import Keyring
from holdfast.storage.transaction import Transaction

PUT: dict[str, Any] = {"data": {"a": 1}}


class ToNode:
    """A Forwarder into another node's core, or into errors that are still to come."""

    def __init__(self, *errors: HoldfastError) -> None:
        self.errors = list(errors)
        self.target: CoreNode | None = None
        self.forwarded: list[tuple[str, Request]] = []

    async def forward(self, leader_id: str, request: Request) -> Response:
        self.forwarded.append((leader_id, request))
        if self.errors:
            raise self.errors.pop(0)
        assert self.target is not None
        return await self.target.core.handle(request)


async def pair(*errors: HoldfastError) -> tuple[CoreNode, CoreNode, ToNode]:
    """A leader, a follower of it, and the way from one to the other."""
    keyring = Keyring.generate(secrets.token_bytes)
    leader = CoreNode(LocalConsensus("node-1"), keyring=keyring)
    way = ToNode(*errors)
    way.target = leader
    follower = CoreNode(
        LocalConsensus("node-2", role=Role.FOLLOWER, leader_id="node-1"), keyring=keyring, forwarder=way
    )
    leader.consensus.attach(follower.consensus)
    await leader.bootstrap()
    follower.token = leader.token
    return leader, follower, way


def test_a_write_on_a_follower_is_forwarded_once_and_read_there() -> None:
    async def main() -> None:
        _, follower, way = await pair()
        assert (await follower.ask("update", "secret/data/x", PUT, timeout_s=5.0))["version"] == 1
        assert (await follower.ask("read", "secret/data/x"))["data"] == {"a": 1}
        [(leader_id, request)] = way.forwarded
        assert leader_id == "node-1"
        assert request.forwarded_by == "node-2"
        assert 0 < request.timeout_s <= 5.0

    asyncio.run(main())


def test_a_forwarded_request_is_never_forwarded_again() -> None:
    async def main() -> None:
        _, follower, way = await pair()
        with pytest.raises(NotLeader) as refusal:
            await follower.ask("update", "secret/data/x", PUT, forwarded_by="node-3")
        assert refusal.value.details == {"leader_id": "node-1"}
        assert way.forwarded == []

    asyncio.run(main())


def test_forwarding_is_tried_again_while_nothing_was_appended() -> None:
    async def main() -> None:
        _, follower, way = await pair(NotLeader("moved"), NoLeader("none"), Unavailable("not delivered"))
        assert (await follower.ask("update", "secret/data/x", PUT))["version"] == 1
        assert len(way.forwarded) == 4

    asyncio.run(main())


@pytest.mark.parametrize("error", [OutcomeUnknown("x"), AuditFailed("x"), Conflict("x"), Overloaded("x")])
def test_other_errors_of_the_leader_reach_the_caller_as_they_are(error: HoldfastError) -> None:
    async def main() -> None:
        _, follower, way = await pair(error)
        with pytest.raises(type(error)):
            await follower.ask("update", "secret/data/x", PUT)
        assert len(way.forwarded) == 1

    asyncio.run(main())


def test_a_sealed_leader_is_given_time_to_hand_over_and_no_more() -> None:
    async def main() -> None:
        _, follower, way = await pair(Sealed("sealed"), Sealed("sealed"))
        assert (await follower.ask("update", "secret/data/x", PUT))["version"] == 1
        assert len(way.forwarded) == 3

        _, follower, way = await pair(*[Sealed("sealed")] * 100)
        follower.core._limits = Limits(hand_over_s=0.02)
        with pytest.raises(Sealed):
            await follower.ask("update", "secret/data/x", PUT)
        assert 1 <= len(way.forwarded) < 100

    asyncio.run(main())


def test_forwarding_to_nobody_ends_with_the_deadline() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        node.consensus.set_role(Role.FOLLOWER, leader_id="node-9")
        with pytest.raises(Unavailable):
            await node.ask("update", "secret/data/x", PUT, timeout_s=0.02)
        assert node.forwarder.forwarded

    asyncio.run(main())


def test_a_leader_that_loses_leadership_at_the_proposal_forwards_to_the_new_one() -> None:
    async def main() -> None:
        leader, follower, _ = await pair()
        back = ToNode()
        back.target = follower
        leader.core._forwarder = back

        class Deposed:
            async def propose(self, batch: Batch, *, timeout_s: float) -> Any:
                leader.consensus.set_role(Role.FOLLOWER, leader_id="node-2")
                follower.consensus.set_role(Role.LEADER)
                raise NotLeader("lost leadership")

        leader.consensus.propose = Deposed().propose  # type: ignore[method-assign]
        assert (await leader.ask("update", "secret/data/x", PUT))["version"] == 1
        assert len(back.forwarded) == 1

    asyncio.run(main())


def test_without_a_leader_writes_and_linearizable_reads_say_so_and_stale_reads_are_served() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        await node.ask("update", "secret/data/x", PUT)
        node.consensus.set_role(Role.FOLLOWER, leader_id="")
        for operation, data in (("update", PUT), ("read", None)):
            with pytest.raises(NoLeader):
                await node.ask(operation, "secret/data/x", data)
        assert (await node.ask("read", "secret/data/x", consistency=Consistency.STALE))["data"] == {"a": 1}

    asyncio.run(main())


def test_a_node_cut_off_can_still_be_authorized_to_seal() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        node.consensus.set_role(Role.FOLLOWER, leader_id="")
        with pytest.raises(NoLeader):
            await node.core.authorize(node.request("update", "sys/seal"))
        await node.core.authorize(node.request("update", "sys/seal", consistency=Consistency.STALE))

    asyncio.run(main())


def test_a_new_leader_evaluates_nothing_before_it_is_ready() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        node.consensus.set_role(Role.LEADER, ready=False)
        with pytest.raises(NoLeader):
            await node.ask("update", "secret/data/x", PUT)
        assert node.consensus.proposed == []

    asyncio.run(main())


def test_a_sealed_node_serves_nothing() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        await node.ask("read", "sys/mounts")
        node.sealed = True
        for operation, path in (("update", "secret/data/x"), ("read", "secret/data/x")):
            with pytest.raises(Sealed):
                await node.ask(operation, path)
        with pytest.raises(Sealed):
            await node.core.authorize(node.request("update", "sys/seal"))
        assert node.core._mounts._table is None

    asyncio.run(main())


def test_a_seal_in_the_middle_of_a_request_ends_it() -> None:
    async def main() -> None:
        for closes in (True, False):
            node = await CoreNode(engines=[Probe()]).bootstrap()
            await mount_probe(node)

            async def seal(view: StorageView, node: CoreNode = node, closes: bool = closes) -> None:
                node.sealed = True
                if closes:
                    node.barrier.close()

            Probe.action = staticmethod(seal)
            for operation in ("update", "read"):
                with pytest.raises(Sealed):
                    await node.ask(operation, "probe/x")
                node.sealed = False
            assert node.consensus.proposed == []

    asyncio.run(main())


class Probe:
    """An engine whose handlers count, then do what a test asks."""

    type = "probe"

    @staticmethod
    async def action(view: StorageView) -> None: ...

    def paths(self) -> list[PathSpec]:
        async def handle(ctx: HandlerContext, view: StorageView) -> Response:
            count = int(await view.get(ctx.path) or b"0")
            await Probe.action(view)
            if ctx.operation.writes:
                view.put(ctx.path, str(count + 1).encode())
            else:
                await view.get("other")
            return Response(data={"count": count})

        spec = OperationSpec(handle, "")
        return [PathSpec("{name}", {Operation.UPDATE: spec, Operation.READ: spec})]


async def mount_probe(node: CoreNode) -> None:
    """Mount the probe at "probe/" behind core's back."""
    from holdfast.core.mounts import MOUNTS_PATH, MountTable, new_mount

    txn = Transaction(node.consensus, node.barrier)
    table = MountTable.decode(await txn.get(MOUNTS_PATH) or b"")
    made = new_mount(engine="probe", created="", options={}, description="", random_bytes=secrets.token_bytes)
    txn.put(MOUNTS_PATH, MountTable({**table.mounts, "probe/": made}).encode())
    await node.consensus.propose(txn.batch(), timeout_s=1)
    node.consensus.proposed.clear()
    Probe.action = staticmethod(nothing)


async def nothing(view: StorageView) -> None: ...


async def interfere(node: CoreNode, name: str) -> None:
    """Another node's write to the probe's record."""
    from holdfast.core.mounts import MOUNTS_PATH, MountTable

    txn = Transaction(node.consensus, node.barrier)
    table = MountTable.decode(await txn.get(MOUNTS_PATH) or b"")
    view = txn.view(table.mounts["probe/"].view_prefix)
    view.put(name, str(int(await view.get(name) or b"0") + 100).encode())
    node.consensus.apply(txn.batch())


def test_a_conflict_evaluates_again_on_the_new_state() -> None:
    async def main() -> None:
        node = await CoreNode(engines=[Probe()]).bootstrap()
        await mount_probe(node)
        left = [1, 1]

        async def act(view: StorageView) -> None:
            if left:
                left.pop()
                await interfere(node, "x")

        Probe.action = staticmethod(act)
        assert (await node.ask("update", "probe/x"))["count"] == 200
        assert (await node.ask("read", "probe/x"))["count"] == 201
        assert len(node.consensus.proposed) == 3

    asyncio.run(main())


def test_a_write_that_always_conflicts_gives_up_with_conflict() -> None:
    async def main() -> None:
        node = await CoreNode(engines=[Probe()], limits=Limits(attempts_max=4, pause_s_min=0.0)).bootstrap()
        await mount_probe(node)

        async def act(view: StorageView) -> None:
            await interfere(node, "x")

        Probe.action = staticmethod(act)
        with pytest.raises(Conflict):
            await node.ask("update", "probe/x")
        assert len(node.consensus.proposed) == 4
        with pytest.raises(Conflict):
            await node.ask("read", "probe/x")

    asyncio.run(main())


def test_a_read_never_mixes_two_states() -> None:
    async def main() -> None:
        node = await CoreNode(engines=[Probe()], limits=Limits(pause_s_min=0.0)).bootstrap()
        await mount_probe(node)
        left = [1]

        async def act(view: StorageView) -> None:
            if left:
                left.pop()
                await interfere(node, "x")
                raise Corruption("what a handler says that sees half of a write")

        Probe.action = staticmethod(act)
        assert (await node.ask("read", "probe/x"))["count"] == 100

    asyncio.run(main())


def test_a_mount_that_goes_while_a_write_is_evaluated_takes_the_write_with_it() -> None:
    async def main() -> None:
        from holdfast.core.mounts import MOUNTS_PATH, MountTable

        node = await CoreNode(engines=[Probe()]).bootstrap()
        await mount_probe(node)

        async def unmount(view: StorageView) -> None:
            txn = Transaction(node.consensus, node.barrier)
            table = MountTable.decode(await txn.get(MOUNTS_PATH) or b"")
            txn.put(MOUNTS_PATH, MountTable({"secret/": table.mounts["secret/"]}).encode())
            node.consensus.apply(txn.batch())

        Probe.action = staticmethod(unmount)
        with pytest.raises(NotFound):
            await node.ask("update", "probe/x")

    asyncio.run(main())


def test_a_refusal_counts_only_on_a_state_shown_to_be_current() -> None:
    """A deposed leader that knows it not yet must not answer from its old state."""

    async def main() -> None:
        keyring = Keyring.generate(secrets.token_bytes)
        leader = await CoreNode(keyring=keyring).bootstrap()
        old = CoreNode(leader.consensus.restarted(), keyring=keyring)
        old.token = leader.token
        await leader.ask("update", "secret/data/x", PUT)
        behind, caught_up = old.consensus.read_barrier, []

        async def read_barrier(*, timeout_s: float) -> int:
            if not caught_up:
                caught_up.append(True)
                for batch in leader.consensus.proposed:
                    old.consensus.apply(batch)
            return await behind(timeout_s=timeout_s)

        old.consensus.read_barrier = read_barrier  # type: ignore[method-assign]
        answer = await old.ask("update", "secret/data/x", {"data": {}, "options": {"cas": 1}})
        assert answer["version"] == 2
        assert caught_up

    asyncio.run(main())


def test_hot_keys_queue_instead_of_conflicting() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        answers = await asyncio.gather(*(node.ask("update", "secret/data/hot", PUT) for _ in range(50)))
        assert sorted(answer["version"] for answer in answers) == list(range(1, 51))
        assert len(node.consensus.proposed) == 50
        assert len(node.core._locks) == 0

    asyncio.run(main())


def test_too_many_waiters_for_one_object_are_refused_and_others_are_served() -> None:
    async def main() -> None:
        node = await CoreNode(limits=Limits(waiters_max=2)).bootstrap()
        paths = ["secret/data/hot"] * 5 + ["secret/data/cold"]
        answers = await asyncio.gather(*(node.ask("update", path, PUT) for path in paths), return_exceptions=True)
        assert sum(isinstance(answer, Overloaded) for answer in answers) == 2
        assert not isinstance(answers[-1], Exception)

    asyncio.run(main())


def test_too_many_requests_at_once_are_refused() -> None:
    async def main() -> None:
        node = await CoreNode(limits=Limits(in_flight_max=3)).bootstrap()
        answers = await asyncio.gather(*(node.ask("read", "sys/mounts") for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(answer, Overloaded) for answer in answers) == 2
        await node.ask("read", "sys/mounts")

    asyncio.run(main())


def test_locks_are_bounded_over_all_names_and_leave_nothing_behind() -> None:
    async def main() -> None:
        locks = KeyedLocks(waiters_max=5, total_max=2)
        async with locks.hold("a"), locks.hold("b"):
            with pytest.raises(Overloaded):
                async with locks.hold("c"):
                    raise AssertionError("held")
        cancelled: asyncio.Task[None]

        async def wait() -> None:
            async with locks.hold("a"):
                raise AssertionError("held")

        async with locks.hold("a"):
            cancelled = asyncio.create_task(wait())
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
        assert len(locks) == 0

    asyncio.run(main())


def test_a_queue_that_is_full_reaches_the_caller() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        node.consensus.fail_next(Fault.OVERLOADED)
        with pytest.raises(Overloaded):
            await node.ask("update", "secret/data/x", PUT)

    asyncio.run(main())


def test_a_deadline_that_passes_tells_whether_the_write_may_have_happened() -> None:
    async def main() -> None:
        node = await CoreNode(engines=[Probe()]).bootstrap()
        await mount_probe(node)

        async def hang(view: StorageView) -> None:
            await asyncio.Event().wait()

        Probe.action = staticmethod(hang)
        with pytest.raises(Unavailable):
            await node.ask("update", "probe/x", timeout_s=0.01)
        Probe.action = staticmethod(nothing)

        async def propose(batch: Batch, *, timeout_s: float) -> Any:
            await asyncio.Event().wait()

        node.consensus.propose = propose  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown):
            await node.ask("update", "probe/x", timeout_s=0.01)

    asyncio.run(main())


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout_s: float) -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        with pytest.raises(InvalidArgument) as refusal:
            await node.ask("read", "sys/mounts", timeout_s=timeout_s)
        assert refusal.value.field == "timeout"

    asyncio.run(main())


def test_a_bad_request_is_refused_before_anything_is_asked_of_anybody() -> None:
    async def main() -> None:
        node = CoreNode()
        node.sealed = True
        with pytest.raises(InvalidArgument) as refusal:
            await node.ask("read", "a//b")
        assert refusal.value.field == "path"
        with pytest.raises(InvalidArgument) as refusal:
            await node.ask("update", "a", {"x": float("nan")})
        assert refusal.value.field == "data"

    asyncio.run(main())
