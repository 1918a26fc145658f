"""Enabling devices: what records from when on, and what happens when none can."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.core_node import CoreNode

from holdfast.audit_devices.file import FileDevice
from holdfast.core.audit.devices import AuditDevices
from holdfast.core.audit.engine import audit_mounts
from holdfast.core.audit.table import TABLE_PATH
from holdfast.core.plugin.auditing import Chain
from holdfast.proto.errors import (
    AlreadyExists,
    AuditFailed,
    Corruption,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unauthenticated,
)
from holdfast.storage.transaction import Transaction


def devices_of_a_node() -> AuditDevices:
    return AuditDevices({"file": FileDevice()}, node_id="n1", now=lambda: datetime(2026, 11, 24, tzinfo=UTC))


async def a_node() -> tuple[CoreNode, AuditDevices]:
    devices = devices_of_a_node()
    node = CoreNode(audit=devices, system=audit_mounts(devices))
    return await node.bootstrap(), devices


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def kinds(path: Path) -> list[tuple[str, str]]:
    return [(line["type"], line.get("event") or line["request"]["path"]) for line in lines(path)]


def test_every_request_is_recorded_from_the_enabling_on_and_until_the_disabling(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def main() -> None:
        node, devices = await a_node()
        await node.ask("update", "secret/data/before", {"data": {"a": 1}})
        await node.ask("update", "sys/audit/file", {"options": {"file_path": str(path)}})
        assert list(await node.ask("read", "sys/audit")) == ["file/"]
        await node.ask("update", "secret/data/x", {"data": {"password": "hunter2"}})
        with pytest.raises(Unauthenticated):
            await node.ask("read", "secret/data/x", token="hfs.guess")
        await node.ask("delete", "sys/audit/file")
        await node.ask("read", "secret/data/x")
        await devices.close()

    asyncio.run(main())
    assert kinds(path) == [
        ("event", "audit_device_test"),
        ("request", "sys/audit"),
        ("response", "sys/audit"),
        ("request", "secret/data/x"),
        ("response", "secret/data/x"),
        ("request", "secret/data/x"),
        ("response", "secret/data/x"),
        ("request", "sys/audit/file"),
        ("response", "sys/audit/file"),
    ]
    text = path.read_text()
    assert "hunter2" not in text
    assert "hfs.guess" not in text
    refused = [line for line in lines(path) if line.get("error")]
    assert {line["error"] for line in refused} == {"UNAUTHENTICATED"}


def test_a_known_value_is_found_by_its_hash(tmp_path: Path) -> None:
    async def main() -> None:
        node, devices = await a_node()
        await node.ask("update", "sys/audit/file", {"options": {"file_path": str(tmp_path / "audit.log")}})
        await node.ask("update", "secret/data/x", {"data": {"password": "hunter2"}})
        hashed = (await node.ask("update", "sys/audit-hash/file", {"input": "hunter2"}))["hash"]
        assert hashed in (tmp_path / "audit.log").read_text()
        with pytest.raises(NotFound):
            await node.ask("update", "sys/audit-hash/other", {"input": "hunter2"})
        await devices.close()

    asyncio.run(main())


def test_a_device_that_takes_no_entry_is_not_enabled(tmp_path: Path) -> None:
    async def main() -> None:
        node, devices = await a_node()
        with pytest.raises(FailedPrecondition, match="No such file"):
            await node.ask("update", "sys/audit/file", {"options": {"file_path": str(tmp_path / "none" / "audit.log")}})
        assert await node.ask("read", "sys/audit") == {}
        await node.ask("update", "secret/data/x", {"data": {"a": 1}})
        await devices.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"type": "carrier-pigeon"}, InvalidArgument),
        ({"options": {"file_path": "/x", "colour": "red"}}, InvalidArgument),
        ({"options": {"file_path": ["/x"]}}, InvalidArgument),
        ({"options": "file_path"}, InvalidArgument),
    ],
)
def test_a_device_that_cannot_be_is_refused(data: dict[str, Any], error: type[Exception]) -> None:
    async def main() -> None:
        node, _ = await a_node()
        with pytest.raises(error):
            await node.ask("update", "sys/audit/file", data)

    asyncio.run(main())


def test_a_path_is_enabled_once(tmp_path: Path) -> None:
    async def main() -> None:
        node, devices = await a_node()
        await node.ask("update", "sys/audit/file", {"options": {"file_path": str(tmp_path / "audit.log")}})
        with pytest.raises(AlreadyExists):
            await node.ask("update", "sys/audit/file", {"options": {"file_path": str(tmp_path / "other.log")}})
        assert not (tmp_path / "other.log").exists()
        await devices.close()

    asyncio.run(main())


def test_a_node_on_which_the_device_cannot_be_opened_serves_nothing_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    monkeypatch.setattr("holdfast.core.audit.devices.REOPEN_S", 0.0)

    async def main() -> None:
        node, devices = await a_node()
        await node.ask("update", "sys/audit/file", {"options": {"file_path": str(folder / "audit.log")}})
        devices.sealed("a restart")  # closes the device
        await devices.close()
        (folder / "audit.log").unlink()
        folder.rmdir()
        with pytest.raises(AuditFailed):
            await node.ask("read", "sys/mounts")
        folder.mkdir()
        await node.ask("read", "sys/mounts")
        await devices.close()

    asyncio.run(main())
    assert kinds(folder / "audit.log") == [("request", "sys/mounts"), ("response", "sys/mounts")]


def test_sealing_is_recorded_and_closes_the_device(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def main() -> None:
        node, devices = await a_node()
        await node.ask("update", "sys/audit/file", {"options": {"file_path": str(path)}})
        await node.ask("read", "sys/mounts")
        devices.sealed("contact with a quorum was lost")
        await devices.close()
        again = await FileDevice().open({"file_path": str(path)}, Chain(lambda _: ""), node_id="n1")  # nobody holds it
        await again.close()

    asyncio.run(main())
    last = lines(path)[-1]
    assert (last["type"], last["event"]) == ("event", "sealed")
    assert last["data"] == {"reason": "contact with a quorum was lost"}


def test_the_cluster_vouches_for_its_lines_and_for_no_others(tmp_path: Path) -> None:
    async def main() -> None:
        node, devices = await a_node()
        await node.ask("update", "sys/audit/file", {"options": {"file_path": str(tmp_path / "audit.log")}})
        await node.ask("read", "sys/mounts")
        line = (tmp_path / "audit.log").read_bytes().splitlines()[-1]
        asked = {
            "digest": hashlib.sha256(line[: line.rindex(b',"mac":"') + 1]).hexdigest(),
            "mac": json.loads(line)["chain"]["mac"],
        }
        forged = asked | {"digest": hashlib.sha256(line.replace(b"mounts", b"secret")).hexdigest()}
        answer = await node.ask("update", "sys/audit-verify", {"lines": [asked, forged]})
        assert answer == {"valid": [True, False]}
        for malformed in ([], "x", [1], [{"digest": "zz", "mac": ""}], [asked] * 1001):
            with pytest.raises(InvalidArgument):
                await node.ask("update", "sys/audit-verify", {"lines": malformed})
        await devices.close()

    asyncio.run(main())


def test_a_damaged_table_stops_the_node() -> None:
    async def main() -> None:
        node, _ = await a_node()
        txn = Transaction(node.consensus, node.barrier)
        txn.put(TABLE_PATH, b"\xc1")
        await node.consensus.propose(txn.batch(), timeout_s=1)
        with pytest.raises(Corruption):
            await node.ask("read", "sys/mounts")

    asyncio.run(main())


def test_a_transaction_from_before_the_enabling_does_not_bring_back_the_time_without(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def main() -> None:
        node, devices = await a_node()
        stale = Transaction(node.consensus, node.barrier)
        await stale.get(TABLE_PATH)
        await node.ask("update", "sys/audit/file", {"options": {"file_path": str(path)}})
        await node.ask("read", "sys/mounts")
        assert (await devices.current(stale)).active
        await node.ask("read", "sys/mounts")  # by the same open device
        await devices.close()

    asyncio.run(main())
    assert [kind for kind, _ in kinds(path)] == ["event", "request", "response", "request", "response"]


def test_a_device_that_is_enabled_again_waits_until_its_file_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def main() -> None:
        node, devices = await a_node()
        await node.ask("update", "sys/audit/file", {"options": {"file_path": str(path)}})
        await node.ask("read", "sys/mounts")
        devices.sealed("for a moment")
        await node.ask("read", "sys/mounts")  # the node is unsealed again before the last entry is written
        await devices.close()

    asyncio.run(main())
    assert [kind for kind, _ in kinds(path)] == ["event", "request", "response", "event", "request", "response"]
