"""No secret, no path and no token reaches an error, a repr or a log, whatever goes wrong."""

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from support.core_node import CoreNode, request_id
from support.local_consensus import Fault

from holdfast.cluster.raft.consensus import Role
from holdfast.core.audit import AuditBroker, AuditEntry, AuditTrail, Hasher
from holdfast.core.call import Call
from holdfast.core.plugin import Caller, HandlerContext, Operation
from holdfast.core.request import Request, Response
from holdfast.proto.errors import HoldfastError

MARKER = "zeppelin"
PATH = f"secret/data/{MARKER}-path"
BODY: dict[str, Any] = {"data": {f"{MARKER}-name": f"{MARKER}-value"}}
BAD_REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("read", PATH, {}),
    ("read", f"secret/{MARKER}", {}),
    ("read", f"{MARKER}/x", {}),
    ("read", f"secret/data/{MARKER}//x", {}),
    ("read", f"secret/data/{MARKER}\n", {}),
    ("read", f"secret/data/{MARKER}\ud800", {}),
    ("read", f"secret/data/{MARKER * 200}", {}),
    ("read", PATH, {"version": f"{MARKER}-1"}),
    ("list", f"secret/metadata/{MARKER}", {}),
    ("list", "secret/metadata", {"after": f"{MARKER}/\x00"}),
    ("list", "secret/metadata", {"after": f"{MARKER}\ud800"}),
    ("delete", f"secret/subkeys/{MARKER}", {}),
    ("patch", PATH, BODY),
    ("update", PATH, {MARKER: MARKER}),
    ("update", PATH, {"data": MARKER}),
    ("update", PATH, {"data": {MARKER: float("nan")}}),
    ("update", PATH, {"data": {MARKER: f"{MARKER}\ud800"}}),
    ("update", PATH, {"data": {MARKER: MARKER * 200_000}}),
    ("update", PATH, {"data": {f"{MARKER}\ud800": 1}}),
    ("update", PATH, {"data": {MARKER: MARKER.encode()}}),
    ("update", PATH, {**BODY, "options": {MARKER: 1}}),
    ("update", PATH, {**BODY, "options": {"cas": MARKER}}),
    ("update", PATH, {**BODY, "options": {"cas": 7}}),
    ("update", f"secret/metadata/{MARKER}", {"custom_metadata": {MARKER: f"{MARKER}\n"}}),
    ("update", f"secret/metadata/{MARKER}", {"custom_metadata": {MARKER: MARKER * 100}}),
    ("update", f"secret/metadata/{MARKER}", {"delete_version_after": MARKER}),
    ("update", f"secret/destroy/{MARKER}", {"versions": MARKER}),
]


def text_of(error: BaseException) -> Iterator[str]:
    """Everything that a log shows of an error: itself, its cause, and its context unless that is suppressed."""
    seen: BaseException | None = error
    while seen is not None:
        yield f"{seen} {seen!r} {seen.args}"
        if isinstance(seen, HoldfastError):
            yield f"{seen.message} {seen.field} {seen.details}"
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    yield "".join(line for frame in traceback.format_exception_only(error) for line in frame)


def assert_silent(text: str, token: str) -> None:
    assert MARKER not in text.lower()
    assert not token or token not in text


@pytest.mark.parametrize(("operation", "path", "data"), BAD_REQUESTS)
def test_no_refusal_repeats_what_was_sent(
    operation: str, path: str, data: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        node = await CoreNode().bootstrap()
        for token in (node.token, f"hfs.{MARKER}"):
            with pytest.raises(HoldfastError) as refusal:
                await node.ask(operation, path, data, token=token)
            for text in text_of(refusal.value):
                assert_silent(text, node.token)

    asyncio.run(main())
    assert MARKER not in caplog.text


def test_no_failure_of_the_cluster_repeats_what_was_sent() -> None:
    async def main() -> None:
        for fault in Fault:
            node = await CoreNode().bootstrap()
            node.consensus.fail_next(fault)
            with contextlib.suppress(HoldfastError):
                await node.ask("update", PATH, BODY, request_id=request_id(1))
            await node.ask("update", PATH, BODY, request_id=request_id(1))
            errors: list[BaseException] = []
            node.consensus.set_role(Role.FOLLOWER, leader_id="node-2")
            for setting in ("unreachable", "leaderless", "corrupt", "sealed"):
                if setting == "leaderless":
                    node.consensus.set_role(Role.FOLLOWER, leader_id="")
                if setting == "corrupt":
                    node.consensus.set_role(Role.LEADER)
                    for key in node.consensus.records:
                        node.consensus.corrupt(key, b"\x01damaged")
                node.sealed = setting == "sealed"
                with pytest.raises(HoldfastError) as failure:
                    await node.ask("update", PATH, BODY, timeout_s=0.01)
                errors.append(failure.value)
            for error in errors:
                for text in text_of(error):
                    assert_silent(text, node.token)

    asyncio.run(main())


def test_no_repr_shows_a_secret_a_path_or_a_token() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        request = Request(operation=Operation.UPDATE, path=PATH, data=BODY, token=f"hfs.{MARKER}")
        call = node.core._accept(request)
        context = HandlerContext(
            operation=Operation.READ,
            path=PATH,
            fields={"path": PATH},
            data=BODY,
            now=node.core._now(),
            random_bytes=bytes,
            caller=Caller(accessor=MARKER, display_name=MARKER),
        )
        entry = AuditEntry(type="request", time="", request_id="r", operation="read", path=PATH, data=BODY)
        held = [
            request, Response(data=BODY), call, context, entry, node.core, Hasher(MARKER.encode()),
            request_id(1, client=MARKER.encode()), AuditBroker(()), call.trail,
        ]  # fmt: skip
        await node.ask("update", PATH, BODY)
        held += [node.core._mounts, await node.core._mounts.table(node.core._transaction())]
        assert isinstance(call, Call)
        assert isinstance(call.trail, AuditTrail)
        for thing in held:
            assert_silent(f"{thing!r} {thing}", node.token)

    asyncio.run(main())


def test_nothing_proposed_shows_a_secret_a_path_or_a_token() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        await node.ask("update", PATH, BODY, request_id=request_id(1))
        for batch in node.consensus.proposed:
            for text in (repr(batch), *(str(put.key + put.value) for put in batch.puts)):
                assert_silent(text, node.token)

    asyncio.run(main())
