"""The audit hook: where it stands, what it keeps, and that it fails closed."""

import asyncio
import json
from typing import Any, NoReturn

import pytest
from support.core_node import CoreNode, request_id

from holdfast.core.audit import AuditBroker, AuditEntry, Hasher
from holdfast.proto.errors import (
    AuditFailed,
    Corruption,
    HoldfastError,
    InvalidArgument,
    NotFound,
    OutcomeUnknown,
    Unauthenticated,
    Unavailable,
)
from holdfast.server.authorization import authorized
from holdfast.storage.batch import Batch


class Recording:
    def __init__(self, name: str = "recording") -> None:
        self.name = name
        self.entries: list[AuditEntry] = []
        self.failing_from = 1_000_000

    async def record(self, entry: AuditEntry) -> None:
        await asyncio.sleep(0)
        if len(self.entries) >= self.failing_from:
            raise OSError("disk full")
        self.entries.append(entry)


class Blocked:
    name = "blocked"

    async def record(self, entry: AuditEntry) -> None:
        await asyncio.Event().wait()


async def audited(*devices: Any, deadline_s: float = 30.0) -> tuple[CoreNode, list[tuple[str, str]]]:
    failures: list[tuple[str, str]] = []
    broker = AuditBroker(devices, deadline_s=deadline_s, on_failure=lambda *failure: failures.append(failure))
    return await CoreNode(audit=broker).bootstrap(), failures


def test_values_past_the_bound_are_one_hash() -> None:
    hasher = Hasher(bytes(32))
    assert set(hasher.scrub({"a": ["x"] * 4000})["a"]) == {hasher.hash("x")}
    many = {"b": 1, "a": ["x"] * 500_000}
    hashed = hasher.scrub(many)
    assert hashed == hasher.hash(json.dumps(many, sort_keys=True, separators=(",", ":")))
    assert hasher.scrub({"a": ["x"] * 500_000, "b": 1}) == hashed
    assert hasher.scrub([["x"] * 5000]).startswith("hmac-sha256:")


def test_request_and_outcome_are_recorded_without_a_sensitive_value() -> None:
    async def main() -> None:
        device = Recording()
        node, _ = await audited(device)
        await node.ask("update", "secret/data/x", {"data": {"password": "hunter2", "pin": 1234567}}, id="r1")
        await node.ask("read", "secret/data/x", id="r2", remote_address="10.0.0.1:99")
        kinds = [(entry.type, entry.request_id, entry.operation, entry.path, entry.error) for entry in device.entries]
        assert kinds == [
            ("request", "r1", "update", "secret/data/x", ""),
            ("response", "r1", "update", "secret/data/x", ""),
            ("request", "r2", "read", "secret/data/x", ""),
            ("response", "r2", "read", "secret/data/x", ""),
        ]
        written, answered = device.entries[0], device.entries[3]
        assert written.policies == ("root",)
        assert written.data["data"]["password"] == answered.response["data"]["password"]
        assert written.data["data"]["password"].startswith("hmac-sha256:")
        assert written.token == answered.token != ""
        assert answered.remote_address == "10.0.0.1:99"
        for entry in device.entries:
            text = f"{entry} {entry.data} {entry.response} {entry.token} {entry.accessor}"
            assert "hunter2" not in text
            assert "1234567" not in text
            assert node.token not in text

    asyncio.run(main())


def test_refusals_and_failures_are_recorded_with_their_reason() -> None:
    async def main() -> None:
        device = Recording()
        node, _ = await audited(device)
        for operation in ("read", "update"):
            with pytest.raises(Unauthenticated):
                await node.ask(operation, "secret/data/x", token="wrong")
        with pytest.raises(NotFound):
            await node.ask("read", "secret/data/x")
        with pytest.raises(InvalidArgument):
            await node.ask("update", "secret/data/x", {"data": 1})
        assert [(entry.type, entry.error) for entry in device.entries] == [
            ("request", "UNAUTHENTICATED"), ("response", "UNAUTHENTICATED"),
            ("request", "UNAUTHENTICATED"), ("response", "UNAUTHENTICATED"),
            ("request", ""), ("response", "NOT_FOUND"),
            ("request", ""), ("response", "INVALID_ARGUMENT"),
        ]  # fmt: skip

    asyncio.run(main())


def test_nothing_is_evaluated_when_the_request_cannot_be_recorded() -> None:
    async def main() -> None:
        device = Recording()
        device.failing_from = 0
        node, failures = await audited(device)
        for operation in ("update", "read"):
            with pytest.raises(AuditFailed):
                await node.ask(operation, "secret/data/x", {"data": {}} if operation == "update" else None)
        assert node.consensus.proposed == []
        assert failures
        assert set(failures) == {("recording", "OSError")}

    asyncio.run(main())


def test_nothing_is_told_when_the_outcome_cannot_be_recorded() -> None:
    async def main() -> None:
        device = Recording()
        node, _ = await audited(device)
        await node.ask("update", "secret/data/x", {"data": {"a": "b"}})
        device.failing_from = 3
        with pytest.raises(AuditFailed):
            await node.ask("read", "secret/data/x")
        assert [entry.type for entry in device.entries] == ["request", "response", "request"]

    asyncio.run(main())


def test_a_write_whose_outcome_cannot_be_recorded_took_effect_once_and_says_that_it_may_have() -> None:
    async def main() -> None:
        device = Recording()
        device.failing_from = 1
        node, _ = await audited(device)
        with pytest.raises(OutcomeUnknown):
            await node.ask("update", "secret/data/x", {"data": {}}, request_id=request_id(1))
        device.failing_from = 1_000
        answer = await node.ask("update", "secret/data/x", {"data": {}}, request_id=request_id(1))
        assert answer["version"] == 1

    asyncio.run(main())


@pytest.mark.parametrize("error", [OutcomeUnknown("x"), Corruption("x")])
def test_an_audit_that_fails_hides_neither_an_unknown_outcome_nor_a_fatal_error(error: HoldfastError) -> None:
    async def main() -> None:
        device = Recording()
        device.failing_from = 1
        node, _ = await audited(device)

        async def propose(batch: Batch, *, timeout_s: float) -> NoReturn:
            raise error

        node.consensus.propose = propose  # type: ignore[method-assign]
        with pytest.raises(type(error)):
            await node.ask("update", "secret/data/x", {"data": {}})

    asyncio.run(main())


def test_an_operation_of_the_server_that_was_done_and_not_recorded_has_an_unknown_outcome() -> None:
    async def main(error: HoldfastError | None, expected: type[HoldfastError]) -> None:
        device = Recording()
        device.failing_from = 1
        node, _ = await audited(device)

        async def operate() -> None:
            async with authorized(node.core.authorize, node.request("update", "sys/step-down")):
                if error is not None:
                    raise error

        with pytest.raises(expected):
            await operate()

    for error, expected in (
        (None, OutcomeUnknown), (OutcomeUnknown("x"), OutcomeUnknown), (Corruption("x"), Corruption),
        (NotFound("x"), AuditFailed),
    ):  # fmt: skip
        asyncio.run(main(error, expected))


def test_one_device_that_blocks_or_fails_delays_nobody_while_another_answers() -> None:
    async def main() -> None:
        good, bad = Recording("good"), Recording("bad")
        bad.failing_from = 0
        node, failures = await audited(Blocked(), bad, good, deadline_s=3600.0)
        await node.ask("update", "secret/data/x", {"data": {}})
        assert [entry.type for entry in good.entries] == ["request", "response"]
        assert ("bad", "OSError") in failures

    async def run() -> None:
        await main()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(run())


def test_a_blocked_device_alone_fails_the_request_at_its_deadline() -> None:
    async def main() -> None:
        node, failures = await audited(Blocked(), deadline_s=0.01)
        with pytest.raises(AuditFailed):
            await node.ask("read", "sys/mounts")
        assert ("blocked", "TimeoutError") in failures

    asyncio.run(main())


def test_a_device_with_too_much_under_way_counts_as_failed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.core.audit.broker.PENDING_PER_DEVICE_MAX", 0)

    async def main() -> None:
        node, failures = await audited(Recording(), deadline_s=3600.0)
        with pytest.raises(AuditFailed):
            await node.ask("read", "sys/mounts")
        assert failures[0] == ("recording", "Overloaded")

    asyncio.run(main())


def test_a_request_out_of_time_is_recorded_as_such() -> None:
    class Slow(Recording):
        async def record(self, entry: AuditEntry) -> None:
            if entry.type == "request" and not self.entries:
                self.entries.append(entry)
                await asyncio.Event().wait()
            self.entries.append(entry)

    async def main() -> None:
        device = Slow()
        node, _ = await audited(device)
        with pytest.raises(Unavailable):
            await node.ask("read", "sys/mounts", timeout_s=0.01)
        assert device.entries[-1].error == "UNAVAILABLE"

    async def run() -> None:
        await main()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(run())


def test_authorize_is_recorded_and_finish_tells_how_it_ended() -> None:
    async def main() -> None:
        device = Recording()
        node, _ = await audited(device)
        grant = await node.core.authorize(node.request("update", "sys/step-down"))
        assert grant.caller.policies == ("root",)
        await grant.finish(NotFound("x"))
        assert [(entry.type, entry.path, entry.error) for entry in device.entries] == [
            ("request", "sys/step-down", ""), ("response", "sys/step-down", "NOT_FOUND"),
        ]  # fmt: skip

    asyncio.run(main())


def test_two_devices_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        AuditBroker([Recording(), Recording()])


def test_close_waits_for_what_is_under_way() -> None:
    async def main() -> None:
        slow = Recording("slow")
        node, _ = await audited(Recording("quick"), slow)
        await node.ask("read", "sys/mounts")
        await node.core._audit.close()
        assert len(slow.entries) == 2

    asyncio.run(main())
