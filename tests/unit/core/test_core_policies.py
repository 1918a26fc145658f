"""Policies on the request path: what a token may do, at once after a policy changed, and how a refusal is explained."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from support.core_node import CoreNode

from holdfast.core import tokens
from holdfast.core.tokens import TOKENS_PREFIX, TokenEntry
from holdfast.proto.errors import Corruption, InvalidArgument, NotFound, PermissionDenied, Unimplemented
from holdfast.storage.transaction import Transaction


async def token_of(node: CoreNode, *policies: str) -> str:
    txn = Transaction(node.consensus, node.barrier)
    entry = TokenEntry(
        accessor="acc-" + "-".join(policies), policies=policies, created=datetime(2026, 1, 1, tzinfo=UTC)
    )
    token = await tokens.create(txn.view(TOKENS_PREFIX), entry, lambda size: bytes(range(size)))
    await node.consensus.propose(txn.batch(), timeout_s=1)
    return token


async def with_policy(text: str) -> tuple[CoreNode, str]:
    node = await CoreNode().bootstrap()
    await node.ask("update", "sys/policies/acl/app", {"policy": text})
    return node, await token_of(node, "app")


def rule(path: str, *capabilities: str) -> str:
    listed = ", ".join(f'"{capability}"' for capability in capabilities)
    return f'path "{path}" {{ capabilities = [{listed}] }}\n'


def test_a_token_may_do_what_its_policies_say_and_nothing_else() -> None:
    async def main() -> None:
        node, token = await with_policy(rule("secret/data/app/*", "create", "read"))
        await node.ask("update", "secret/data/app/x", {"data": {"a": 1}}, token=token)
        assert (await node.ask("read", "secret/data/app/x", token=token))["data"] == {"a": 1}
        for operation, path in (
            ("update", "secret/data/app/x"),  # it is there now: this takes "update"
            ("read", "secret/data/other"),
            ("delete", "secret/data/app/x"),
            ("list", "secret/metadata/app"),
            ("read", "sys/mounts"),
            ("read", "nowhere/at/all"),
        ):
            data = {"data": {"a": 2}} if operation == "update" else {}
            with pytest.raises(PermissionDenied) as refused:
                await node.ask(operation, path, data, token=token)
            assert path not in str(refused.value)
        assert (await node.ask("read", "secret/data/app/x"))["data"] == {"a": 1}

    asyncio.run(main())


def test_a_list_is_of_the_path_with_a_slash() -> None:
    async def main() -> None:
        node, token = await with_policy(rule("secret/metadata/a/*", "list") + rule("secret/metadata/b", "list"))
        for name in ("a", "b", "c"):
            await node.ask("update", f"secret/data/{name}/x", {"data": {}})
        for path in ("secret/metadata/a", "secret/metadata/a/", "secret/metadata/b", "secret/metadata/b/"):
            assert await node.ask("list", path, token=token) == {"keys": ["x"]}
        with pytest.raises(PermissionDenied):
            await node.ask("list", "secret/metadata/c", token=token)

    asyncio.run(main())


def test_who_may_do_it_is_told_that_it_does_not_exist() -> None:
    async def main() -> None:
        node, token = await with_policy(rule("nowhere/*", "read") + rule("sys/mounts", "delete"))
        with pytest.raises(NotFound):
            await node.ask("read", "nowhere/x", token=token)
        with pytest.raises(Unimplemented):
            await node.ask("delete", "sys/mounts", token=token)

    asyncio.run(main())


def test_a_changed_policy_counts_for_the_next_request() -> None:
    async def main() -> None:
        node, token = await with_policy(rule("secret/data/x", "read"))
        await node.ask("update", "secret/data/x", {"data": {}})
        await node.ask("read", "secret/data/x", token=token)
        await node.ask("update", "sys/policies/acl/app", {"policy": rule("secret/data/x", "deny")})
        with pytest.raises(PermissionDenied):
            await node.ask("read", "secret/data/x", token=token)
        await node.ask("update", "sys/policies/acl/app", {"policy": rule("secret/data/*", "read")})
        await node.ask("read", "secret/data/x", token=token)
        await node.ask("delete", "sys/policies/acl/app")
        with pytest.raises(PermissionDenied):
            await node.ask("read", "secret/data/x", token=token)

    asyncio.run(main())


def test_a_path_that_needs_sudo_needs_it_beside_the_capability() -> None:
    async def main() -> None:
        asked = {"path": "a", "policies": "default"}
        node, token = await with_policy(rule("sys/why-denied", "update"))
        with pytest.raises(PermissionDenied):
            await node.ask("update", "sys/why-denied", asked, token=token)
        await node.ask("update", "sys/policies/acl/app", {"policy": rule("sys/why-denied", "update", "sudo")})
        await node.ask("update", "sys/why-denied", asked, token=token)

    asyncio.run(main())


def test_policies_are_listed_read_and_deleted_as_vaults_are() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        text = rule("a", "read")
        await node.ask("update", "sys/policies/acl/web-app", {"policy": text})
        assert (await node.ask("list", "sys/policies/acl"))["keys"] == ["default", "root", "web-app"]
        assert (await node.ask("read", "sys/policy"))["policies"] == ["default", "root", "web-app"]
        assert await node.ask("read", "sys/policy/web-app") == {"name": "web-app", "policy": text, "rules": text}
        assert "lookup-self" in (await node.ask("read", "sys/policies/acl/default"))["policy"]
        await node.ask("delete", "sys/policies/acl/web-app")
        await node.ask("delete", "sys/policies/acl/web-app")
        with pytest.raises(NotFound):
            await node.ask("read", "sys/policies/acl/web-app")
        for name in ("root", "default"):
            with pytest.raises(InvalidArgument):
                await node.ask("delete", f"sys/policies/acl/{name}")
        with pytest.raises(InvalidArgument):
            await node.ask("update", "sys/policies/acl/root", {"policy": text})
        with pytest.raises(InvalidArgument, match="line 1, column"):
            await node.ask("update", "sys/policies/acl/bad", {"policy": "path"})
        assert (await node.ask("list", "sys/policies/acl"))["keys"] == ["default", "root"]

    asyncio.run(main())


def test_a_rule_on_a_policys_path_is_not_passed_by_with_other_letters() -> None:
    async def main() -> None:
        node, token = await with_policy(
            rule("sys/policies/acl/*", "create", "read", "update", "delete")
            + rule("sys/policies/acl/admin", "deny")
            + rule("sys/policy/*", "update", "delete")
            + rule("sys/policy/admin", "deny")
        )
        await node.ask("update", "sys/policies/acl/admin", {"policy": rule("a", "read")})
        for name in ("admin", "Admin", "ADMIN", " admin", "admin "):
            for below in ("sys/policies/acl", "sys/policy"):
                with pytest.raises((PermissionDenied, InvalidArgument)):
                    await node.ask("update", f"{below}/{name}", {"policy": rule("*", "sudo")}, token=token)
                with pytest.raises((PermissionDenied, InvalidArgument)):
                    await node.ask("delete", f"{below}/{name}", token=token)
        assert (await node.ask("read", "sys/policies/acl/admin"))["policy"] == rule("a", "read")

    asyncio.run(main())


def test_what_the_caller_calls_a_write_does_not_choose_the_capability() -> None:
    async def main() -> None:
        node, token = await with_policy(rule("secret/*", "create"))
        await node.ask("update", "secret/data/x", {"data": {"a": 1}})
        for operation in ("create", "update"):
            with pytest.raises(PermissionDenied):
                await node.ask(operation, "secret/destroy/x", {"versions": [1]}, token=token)
        assert (await node.ask("read", "secret/data/x"))["data"] == {"a": 1}

    asyncio.run(main())


def test_a_list_is_explained_as_it_is_decided() -> None:
    async def main() -> None:
        node, token = await with_policy(rule("secret/metadata/app", "list"))
        assert (await why(node, path="secret/metadata/app", operation="list"))["allowed"]
        node, token = await with_policy(rule("secret/metadata/app/", "list"))
        await node.ask("update", "secret/data/app/x", {"data": {"a": 1}})
        assert await node.ask("list", "secret/metadata/app", token=token) == {"keys": ["x"]}
        assert (await why(node, path="secret/metadata/app", operation="list"))["allowed"]

    asyncio.run(main())


def test_capabilities_tell_what_a_token_may_do() -> None:
    async def main() -> None:
        node, token = await with_policy(rule("secret/data/*", "read", "list") + rule("secret/data/x", "deny"))
        await node.ask("update", "sys/policies/acl/self", {"policy": rule("sys/capabilities-self", "update")})
        both = await token_of(node, "app", "self")
        asked = {"paths": ["secret/data/a", "secret/data/x", "sys/mounts"]}
        expected = {"secret/data/a": ["list", "read"], "secret/data/x": ["deny"], "sys/mounts": ["deny"]}
        assert await node.ask("update", "sys/capabilities-self", asked, token=both) == expected
        assert await node.ask("update", "sys/capabilities-accessor", asked | {"accessor": "acc-app"}) == expected
        one = await node.ask("update", "sys/capabilities-self", {"paths": "secret/data/a"}, token=both)
        assert one["capabilities"] == ["list", "read"]
        assert (await node.ask("update", "sys/capabilities-self", {"paths": "a"}))["capabilities"] == ["root"]
        assert token not in str(one)

    asyncio.run(main())


def why(node: CoreNode, **asked: Any) -> Any:
    return node.ask("update", "sys/why-denied", {"accessor": "acc-app", **asked})


def test_a_refusal_is_explained_by_the_rules_that_were_looked_at() -> None:
    async def main() -> None:
        node, _ = await with_policy(
            "# the app\n" + rule("secret/data/*", "read", "update") + rule("secret/data/app/+", "read")
        )
        told = await why(node, path="secret/data/app/x", operation="update")
        assert not told["allowed"]
        assert told["reason"] == "missing_capability"
        assert told["missing_capability"] == "update"
        assert told["deciding_rule"] == {
            "path": "secret/data/app/+", "capabilities": ["read"], "from": [{"policy": "app", "line": 3}],
        }  # fmt: skip
        assert [one["path"] for one in told["other_rules"]] == ["secret/data/*"]
        assert (await why(node, path="elsewhere"))["reason"] == "no_rule"
        assert (await why(node, path="secret/data/other"))["allowed"]
        with pytest.raises(NotFound):
            await node.ask("update", "sys/why-denied", {"accessor": "nobody", "path": "a"})

    asyncio.run(main())


def test_a_stored_policy_that_does_not_parse_stops_the_node() -> None:
    async def main() -> None:
        node, token = await with_policy(rule("a", "read"))
        txn = Transaction(node.consensus, node.barrier)
        txn.put("shared/core/policy/app", b"\xc1")
        await node.consensus.propose(txn.batch(), timeout_s=1)
        with pytest.raises(Corruption):
            await node.ask("read", "a", token=token)

    asyncio.run(main())
