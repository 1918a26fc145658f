"""Mounts: enabled, moved, disabled; what a disabled one kept is removed, and nothing else."""

import asyncio
from typing import Any

import pytest
from support.core_node import CoreNode

from holdfast.core import housekeeping
from holdfast.core.housekeeping import Housekeeper
from holdfast.core.mounts import MOUNTS_PATH, MountTable
from holdfast.proto.errors import AlreadyExists, InvalidArgument, NotFound
from holdfast.storage.transaction import Transaction


def keeper_of(node: CoreNode) -> Housekeeper:
    return Housekeeper(
        node.consensus, barrier=node.open_barrier, clock=lambda: node.time, wall_clock=lambda: node.time,
        on_fatal=lambda error: None,
    )  # fmt: skip


async def table(node: CoreNode) -> MountTable:
    record = await Transaction(node.consensus, node.barrier).get(MOUNTS_PATH)
    assert record is not None
    return MountTable.decode(record)


def test_an_enabled_engine_serves_and_two_mounts_share_nothing() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        await node.ask("update", "sys/mounts/team/web", {"type": "kv", "description": "web", "options": {"version": 2}})
        await node.ask("update", "sys/mounts/kv")
        await node.ask("update", "team/web/data/x", {"data": {"a": 1}})
        with pytest.raises(NotFound):
            await node.ask("read", "kv/data/x")
        listed = await node.ask("read", "sys/mounts")
        assert list(listed) == ["kv/", "secret/", "sys/", "team/web/"]
        assert listed["team/web/"]["options"] == {"version": "2"}
        assert (await node.ask("read", "sys/mounts/team/web"))["description"] == "web"
        await node.ask("update", "sys/mounts/team/web/tune", {"description": "the web team"})
        assert (await node.ask("read", "sys/mounts/team/web/tune"))["description"] == "the web team"
        assert (await node.ask("read", "team/web/data/x"))["data"] == {"a": 1}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "data", "error"),
    [
        ("secret", {"type": "kv"}, AlreadyExists),
        ("secret/below", {"type": "kv"}, AlreadyExists),
        ("sys/x", {"type": "kv"}, InvalidArgument),
        ("auth/x", {"type": "kv"}, InvalidArgument),
        ("x", {"type": "pki"}, InvalidArgument),
        ("x", {"type": "kv", "options": {"version": "1"}}, InvalidArgument),
        ("x", {"type": "kv", "options": {"colour": "red"}}, InvalidArgument),
        ("x", {"type": "kv", "options": [1]}, InvalidArgument),
        ("x/tune", {}, NotFound),
        ("secret/tune", {"type": "pki"}, InvalidArgument),
        ("secret/tune", {"default_lease_ttl": "1h"}, InvalidArgument),
    ],
)
def test_what_cannot_be_mounted_is_refused_and_changes_nothing(path: str, data: Any, error: type[Exception]) -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        before = await node.ask("read", "sys/mounts")
        with pytest.raises(error):
            await node.ask("update", f"sys/mounts/{path}", data)
        assert await node.ask("read", "sys/mounts") == before

    asyncio.run(main())


def test_a_moved_mount_keeps_what_it_has() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        await node.ask("update", "secret/data/x", {"data": {"a": 1}})
        await node.ask("update", "sys/remount", {"from": "secret", "to": "moved/here"})
        assert (await node.ask("read", "moved/here/data/x"))["data"] == {"a": 1}
        with pytest.raises(NotFound):
            await node.ask("read", "secret/data/x")
        for data in ({"from": "nowhere", "to": "x"}, {"from": "moved/here", "to": "sys/x"}, {"from": "moved/here"}):
            with pytest.raises((NotFound, InvalidArgument)):
                await node.ask("update", "sys/remount", data)
        await node.ask("update", "sys/remount", {"from": "moved/here/", "to": "moved"})  # beside nothing but itself
        assert (await node.ask("read", "moved/data/x"))["data"] == {"a": 1}

    asyncio.run(main())


def test_a_disabled_mount_serves_nothing_at_once_and_its_records_go_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(housekeeping, "PIECE", 7)

    async def main() -> None:
        node = await CoreNode().bootstrap()
        await node.ask("update", "sys/mounts/gone", {"type": "kv"})
        kept = [f"secret/data/{n}/x" for n in range(3)]
        lost = [f"gone/data/{n % 4}/{n}" for n in range(30)]
        for path in (*kept, *lost):
            await node.ask("update", path, {"data": {"path": path}})
        records = len(node.consensus.records)
        await node.ask("delete", "sys/mounts/gone")
        with pytest.raises(NotFound):
            await node.ask("read", lost[0])
        with pytest.raises(NotFound):
            await node.ask("update", lost[0], {"data": {}})
        assert len((await table(node)).dropping) == 1

        await node.ask("update", "sys/mounts/gone", {"type": "kv"})  # a new one under the old path meets nothing old
        await node.ask("update", "gone/data/fresh", {"data": {"a": 1}})
        with pytest.raises(NotFound):
            await node.ask("read", lost[0])

        keeper = keeper_of(node)
        for _ in range(200):
            if not await keeper.step():
                break
        assert (await table(node)).dropping == ()
        assert len(node.consensus.records) == records - 2 * len(lost) + 2
        for path in kept:
            assert (await node.ask("read", path))["data"] == {"path": path}
        assert (await node.ask("read", "gone/data/fresh"))["data"] == {"a": 1}
        await node.ask("delete", "sys/mounts/gone")
        await node.ask("delete", "sys/mounts/gone")  # as Vault has it

    asyncio.run(main())


def test_a_write_under_way_does_not_reach_a_mount_that_was_disabled_meanwhile() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        inner = node.consensus.propose
        once = []

        async def propose(batch: Any, *, timeout_s: float) -> Any:
            if not once:
                once.append(1)
                await node.ask("delete", "sys/mounts/secret")
            return await inner(batch, timeout_s=timeout_s)

        node.consensus.propose = propose  # type: ignore[method-assign]
        with pytest.raises(NotFound):
            await node.ask("update", "secret/data/x", {"data": {}})

    asyncio.run(main())


def test_the_leader_sweeps_ended_tokens_by_the_hour_and_a_follower_does_not() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        response = await node.core.handle(
            node.request("update", "auth/token/create", {"ttl": "60s", "policies": "default"})
        )
        assert response.auth is not None
        keeper = keeper_of(node)
        assert not await keeper.step()
        records = len(node.consensus.records)
        node.time += housekeeping.SWEEP_S
        await keeper.step()
        assert len(node.consensus.records) == records - 3
        assert not await keeper.step()

    asyncio.run(main())
