"""A write under a request id takes effect once, whatever happens to its replies."""

import asyncio
import secrets
from typing import Any

import pytest
from support.core_node import CoreNode, request_id
from support.local_consensus import Fault

from holdfast.core.idempotency import RETRY_AGE_MS_MAX
from holdfast.core.request import RequestId
from holdfast.proto.errors import (
    Conflict,
    Corruption,
    FailedPrecondition,
    InvalidArgument,
    OutcomeUnknown,
    Unauthenticated,
)
from holdfast.storage.barrier import Barrier
from holdfast.storage.keyring import Keyring

PUT: dict[str, Any] = {"data": {"a": 1, "b": [2**80]}, "options": {}}


async def put(node: CoreNode, sequence: int, data: dict[str, Any] = PUT, **more: Any) -> Any:
    return await node.ask("update", "secret/data/x", data, request_id=request_id(sequence), **more)


async def versions(node: CoreNode) -> int:
    return int((await node.ask("read", "secret/metadata/x"))["current_version"])


def test_a_repeated_request_is_answered_with_the_first_answer() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        first = await put(node, 1)
        node.time += 30
        assert await put(node, 1) == first
        assert await put(node, 1, {"options": {}, "data": {"b": [2**80], "a": 1}}) == first  # order does not matter
        assert (await put(node, 2))["version"] == 2
        assert await versions(node) == 2
        assert len(node.consensus.proposed) == 2  # the repetitions were found before evaluation

    asyncio.run(main())


def test_a_retry_after_a_lost_reply_takes_effect_once() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        for sequence, fault in enumerate((Fault.LOST_REPLY, Fault.LOST_PROPOSAL), start=1):
            node.consensus.fail_next(fault)
            with pytest.raises(OutcomeUnknown):
                await put(node, sequence)
            assert (await put(node, sequence))["version"] == sequence
        assert await versions(node) == 2

    asyncio.run(main())


def test_a_first_attempt_that_arrives_late_meets_the_record_of_its_retry() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        node.consensus.fail_next(Fault.LATE)
        with pytest.raises(OutcomeUnknown):
            await put(node, 1)
        await put(node, 1)
        node.consensus.deliver_late()
        assert await versions(node) == 1

    asyncio.run(main())


def test_two_attempts_at_once_take_effect_once() -> None:
    async def main() -> None:
        keyring = Keyring.generate(secrets.token_bytes)
        node = await CoreNode(keyring=keyring).bootstrap()
        other = CoreNode(node.consensus, keyring=keyring)  # another front end: its locks are its own
        other.token = node.token
        answers = await asyncio.gather(*(put(which, 1) for which in (node, other, node, other)))
        assert all(answer == answers[0] for answer in answers)
        assert await versions(node) == 1

    asyncio.run(main())


@pytest.mark.parametrize("change", ["data", "path", "operation", "token"])
def test_an_id_used_for_something_else_is_refused(change: str) -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        await put(node, 1)
        request = {"operation": "update", "path": "secret/data/x", "data": PUT, "token": node.token}
        request |= {
            "data": {"data": {"data": {"a": 2}}},
            "path": {"path": "secret/data/y"},
            "operation": {"operation": "patch"},
            "token": {"token": "hfs.other"},
        }[change]
        with pytest.raises(Unauthenticated if change == "token" else InvalidArgument) as refusal:
            await node.ask(**request, request_id=request_id(1))  # type: ignore[arg-type]
        if change != "token":
            assert refusal.value.field == "request_id"
        assert await versions(node) == 1

    asyncio.run(main())


def test_a_retry_that_is_too_old_is_told_to_look_before_it_writes_again() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        rid = request_id(1, age_ms=RETRY_AGE_MS_MAX)
        await node.ask("update", "secret/data/x", PUT, request_id=rid)
        rid = request_id(1, age_ms=RETRY_AGE_MS_MAX + 1)
        with pytest.raises(FailedPrecondition, match="read to see"):
            await node.ask("update", "secret/data/x", PUT, request_id=rid)

    asyncio.run(main())


def test_a_refused_write_leaves_no_record() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        with pytest.raises(Conflict):
            await put(node, 1, {"data": {}, "options": {"cas": 1}})
        await put(node, 2)
        assert (await put(node, 1, {"data": {}, "options": {"cas": 1}}))["version"] == 2

    asyncio.run(main())


def test_a_write_that_changes_nothing_is_remembered_as_well() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        assert await node.ask("delete", "secret/data/x", request_id=request_id(1)) is None
        await put(node, 2)
        assert await node.ask("delete", "secret/data/x", request_id=request_id(1)) is None
        assert (await node.ask("read", "secret/data/x"))["data"] == PUT["data"]

    asyncio.run(main())


@pytest.mark.parametrize(
    "rid", [RequestId(b"short", 1), RequestId(bytes(16), -1), RequestId(bytes(16), 2**63), RequestId(bytes(16), 1, -1)]
)
def test_malformed_ids_are_refused(rid: RequestId) -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        with pytest.raises(InvalidArgument) as refusal:
            await node.ask("update", "secret/data/x", PUT, request_id=rid)
        assert refusal.value.field == "request_id"

    asyncio.run(main())


def test_an_id_on_a_read_is_of_no_consequence() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        await node.ask("read", "sys/mounts", request_id=RequestId(b"", -1, 10**9))

    asyncio.run(main())


def test_a_recorded_answer_opens_under_its_own_id_only() -> None:
    from holdfast.core.idempotency import Recorder
    from holdfast.core.request import Response

    barrier = Barrier(Keyring.generate(secrets.token_bytes), secrets.token_bytes)
    one, two = (Recorder(barrier, request_id(n), b"p" * 32) for n in (1, 2))
    record = one.record(Response(data={"password": "marker"}, warnings=("w",)))
    assert b"marker" not in record.response
    assert asyncio.run(one.open(record.response)) == Response(data={"password": "marker"}, warnings=("w",))
    with pytest.raises(Corruption):
        asyncio.run(two.open(record.response))
