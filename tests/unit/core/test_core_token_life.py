"""The life of tokens: made within bounds, renewed, used up, revoked with all below them, at once."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.core_node import CoreNode, request_id
from support.local_consensus import LocalConsensus

from holdfast.core.tokens.entries import MAX_TTL_S
from holdfast.core.tokens.store import DEPTH_MAX
from holdfast.proto.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)

ALL = 'path "*" { capabilities = ["create", "read", "update", "delete", "list"] }'


def in_node(test: Callable[[CoreNode], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        async def main() -> None:
            node = await CoreNode().bootstrap()
            await node.ask("update", "sys/policies/acl/all", {"policy": ALL})
            await node.ask("update", "sys/policies/acl/own", {"policy": ALL.replace("*", "secret/*", 1)})
            await test(node)

        asyncio.run(main())

    run.__name__ = test.__name__
    return run


async def auth(node: CoreNode, path: str = "create", token: str = "", **data: Any) -> dict[str, Any]:
    response = await node.core.handle(
        node.request("update", f"auth/token/{path}", data, **({"token": token} if token else {}))
    )
    assert response.auth is not None
    return response.auth


async def make(node: CoreNode, path: str = "create", token: str = "", **data: Any) -> str:
    return str((await auth(node, path, token, **data))["client_token"])


async def valid(node: CoreNode, token: str) -> bool:
    try:
        await node.ask("read", "auth/token/lookup-self", token=token)
    except Unauthenticated:
        return False
    return True


@in_node
async def test_a_token_gives_only_policies_that_it_has(node: CoreNode) -> None:
    made = await auth(node, policies=["all"], ttl="1h", meta={"team": "web"}, display_name="ci job")
    assert made["policies"] == ["all", "default"]
    assert made["lease_duration"] == 3600
    token = made["client_token"]
    shown = await node.ask("read", "auth/token/lookup-self", token=token)
    assert (shown["display_name"], shown["meta"], shown["orphan"]) == ("token-ci-job", {"team": "web"}, False)
    assert token not in str(shown)

    assert (await auth(node, token=token))["policies"] == ["all", "default"]
    assert (await auth(node, token=token, policies="default", no_default_policy=True))["policies"] == ["default"]
    for data in (
        {"policies": ["own"]},
        {"policies": ["root"]},
        {"no_parent": True},
        {"period": "1h"},
    ):
        with pytest.raises(PermissionDenied):
            await auth(node, token=token, **data)
    with pytest.raises(PermissionDenied):
        await auth(node, "create-orphan", token=token)


@in_node
async def test_a_token_ends_with_its_time_and_with_any_token_above_it(node: CoreNode) -> None:
    parent = await make(node, policies=["all"], ttl="2h")
    child = await make(node, token=parent, ttl="10h")
    grandchild = await make(node, token=child, ttl="10h")
    assert [await valid(node, token) for token in (parent, child, grandchild)] == [True] * 3
    node.time += 2 * 3600
    assert [await valid(node, token) for token in (parent, child, grandchild)] == [False] * 3


@in_node
async def test_revoking_ends_the_whole_tree_and_nothing_beside_it(node: CoreNode) -> None:
    top = await make(node, policies=["all"])
    middle = await auth(node, token=top)
    leaf = await make(node, token=middle["client_token"])
    beside = await make(node, token=top)
    orphan = await make(node, "create-orphan", policies=["all"])
    await node.ask("update", "auth/token/revoke-accessor", {"accessor": middle["accessor"]})
    assert [await valid(node, token) for token in (top, beside, orphan)] == [True] * 3
    assert [await valid(node, token) for token in (middle["client_token"], leaf)] == [False] * 2
    with pytest.raises(NotFound):
        await node.ask("update", "auth/token/lookup", {"token": leaf})
    await node.ask("update", "auth/token/revoke", {"token": top})
    assert not await valid(node, beside)
    await node.ask("update", "auth/token/revoke-self", token=orphan)
    assert not await valid(node, orphan)


@in_node
async def test_children_of_a_token_revoked_alone_go_on_as_orphans(node: CoreNode) -> None:
    top = await make(node, policies=["all"])
    child = await make(node, token=top)
    grandchild = await make(node, token=child)
    await node.ask("update", "auth/token/revoke-orphan", {"token": top})
    assert not await valid(node, top)
    assert await valid(node, child)
    assert await valid(node, grandchild)
    assert (await node.ask("read", "auth/token/lookup-self", token=child))["orphan"]


@in_node
async def test_a_renewal_lengthens_within_the_longest_life(node: CoreNode) -> None:
    token = await make(node, policies=["all"], ttl="1h", explicit_max_ttl="3h")
    node.time += 1800
    assert (await auth(node, "renew-self", token))["lease_duration"] == 3600
    response = await node.core.handle(
        node.request("update", "auth/token/renew-self", {"increment": "10h"}, token=token)
    )
    assert response.auth is not None
    assert response.auth["lease_duration"] == 3 * 3600 - 1800
    assert response.auth["client_token"] == ""
    assert response.warnings
    node.time += 3 * 3600 - 1800
    assert not await valid(node, token)
    fixed = await make(node, policies=["all"], renewable=False)
    with pytest.raises(FailedPrecondition):
        await node.ask("update", "auth/token/renew", {"token": fixed})


@in_node
async def test_a_period_renews_for_ever(node: CoreNode) -> None:
    token = await make(node, policies=["all"], period="1h")
    for _ in range(1000):
        node.time += 3500
        assert (await auth(node, "renew-self", token))["lease_duration"] == 3600
    node.time += 3600
    assert not await valid(node, token)


@in_node
async def test_no_token_lives_longer_than_the_system_allows(node: CoreNode) -> None:
    response = await node.core.handle(
        node.request("update", "auth/token/create", {"policies": ["all"], "ttl": "10000h"})
    )
    assert response.auth is not None
    assert response.auth["lease_duration"] == MAX_TTL_S
    assert response.warnings
    assert (await auth(node, policies=["root"]))["lease_duration"] == 0


@in_node
async def test_uses_are_counted_whoever_reads_and_whatever_is_refused(node: CoreNode) -> None:
    await node.ask("update", "secret/data/x", {"data": {"a": 1}})
    token = await make(node, policies=["own"], num_uses=4)
    assert (await node.ask("read", "secret/data/x", token=token))["data"] == {"a": 1}
    with pytest.raises(PermissionDenied):
        await node.ask("read", "sys/mounts", token=token)
    await node.ask("update", "secret/data/x", {"data": {"a": 2}}, token=token)
    with pytest.raises(NotFound):
        await node.ask("read", "secret/data/none", token=token)
    with pytest.raises(Unauthenticated):
        await node.ask("read", "secret/data/x", token=token)
    single = await make(node, policies=["all"], num_uses=5)
    with pytest.raises(FailedPrecondition):
        await auth(node, token=single)
    with pytest.raises(PermissionDenied):
        await node.core.authorize(
            node.request("update", "sys/seal", token=await make(node, policies=["root"], num_uses=9))
        )


@in_node
async def test_of_many_at_once_exactly_as_many_succeed_as_there_are_uses(node: CoreNode) -> None:
    await node.ask("update", "secret/data/x", {"data": {"a": 1}})
    token = await make(node, policies=["own"], num_uses=5)
    results = await asyncio.gather(
        *(node.ask("read", "secret/data/x", token=token) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(result, dict) for result in results) == 5
    assert all(isinstance(result, dict | Unauthenticated) for result in results), results


def test_a_use_is_counted_on_the_leader_when_a_follower_reads() -> None:
    async def main() -> None:
        leader = await CoreNode(LocalConsensus()).bootstrap()
        token = await make(leader, policies=["root"], num_uses=1)

        follower = CoreNode(leader.consensus)
        follower.barrier = leader.barrier
        await follower.ask("read", "sys/mounts", token=token)
        assert not await valid(leader, token)

    asyncio.run(main())


@in_node
async def test_a_token_bound_to_networks_is_good_from_nowhere_else(node: CoreNode) -> None:
    await node.ask("update", "auth/token/roles/near", {"allowed_policies": "own", "token_bound_cidrs": "10.0.0.0/8"})
    token = await make(node, "create/near")
    await node.ask("update", "secret/data/x", {"data": {}}, token=token, remote_address="10.1.2.3:4567")
    await node.ask("update", "secret/data/x", {"data": {}}, token=token, remote_address="[::ffff:10.1.2.3]:4567")
    for address in ("11.0.0.1:1", "", "unix:", "[::1]:1"):
        with pytest.raises(Unauthenticated):
            await node.ask("update", "secret/data/x", {"data": {}}, token=token, remote_address=address)


@in_node
async def test_a_role_bounds_what_is_made_by_it(node: CoreNode) -> None:
    await node.ask(
        "update", "auth/token/roles/ci",
        {
            "allowed_policies": ["own", "extra"], "disallowed_policies": "default", "orphan": True, "renewable": False,
            "token_period": "2h", "token_num_uses": 7, "token_explicit_max_ttl": "30h",
        },
    )  # fmt: skip
    made = await auth(node, "create/ci", num_uses=100)
    assert made["policies"] == ["extra", "own"]
    assert (made["orphan"], made["renewable"], made["num_uses"], made["lease_duration"]) == (True, False, 7, 7200)
    with pytest.raises(PermissionDenied):
        await auth(node, "create/ci", policies=["all"])
    with pytest.raises(PermissionDenied):
        await auth(node, "create/ci", policies=["root"])
    with pytest.raises(NotFound):
        await auth(node, "create/nobody")
    shown = await node.ask("read", "auth/token/roles/ci")
    assert (shown["token_period"], shown["allowed_policies"]) == (7200, ["extra", "own"])
    assert await node.ask("list", "auth/token/roles") == {"keys": ["ci"]}
    await node.ask("delete", "auth/token/roles/ci")
    with pytest.raises(NotFound):
        await node.ask("read", "auth/token/roles/ci")


@in_node
async def test_a_role_lets_who_may_use_it_give_policies_that_it_has_not(node: CoreNode) -> None:
    await node.ask("update", "auth/token/roles/app", {"allowed_policies_glob": "app-*"})
    operator = await make(node, policies=["all"])
    assert (await auth(node, "create/app", operator, policies="app-1"))["policies"] == ["app-1", "default"]
    with pytest.raises(PermissionDenied):
        await auth(node, "create/app", operator, policies="other")


@in_node
async def test_a_role_that_says_nothing_of_policies_gives_none_that_its_user_has_not(node: CoreNode) -> None:
    await node.ask("update", "auth/token/roles/plain", {"orphan": True})
    await node.ask("update", "auth/token/roles/most", {"disallowed_policies_glob": "own*,def*"})
    operator = await make(node, policies=["all"])
    made = await auth(node, "create/plain", operator, policies="all")
    assert (made["policies"], made["orphan"]) == (["all", "default"], True)
    assert (await auth(node, "create/plain", operator))["policies"] == ["all", "default"]
    with pytest.raises(PermissionDenied):
        await auth(node, "create/plain", operator, policies="own")
    assert (await auth(node, "create/plain", policies="own"))["policies"] == ["default", "own"]  # root has sudo
    assert (await auth(node, "create/most", operator, policies="other"))["policies"] == ["other"]
    with pytest.raises(PermissionDenied):
        await auth(node, "create/most", operator, policies="own")


@in_node
async def test_the_default_policy_is_given_only_by_who_has_it(node: CoreNode) -> None:
    bare = await auth(node, policies=["all"], no_default_policy=True)
    assert bare["policies"] == ["all"]
    assert (await auth(node, token=bare["client_token"]))["policies"] == ["all"]
    assert (await auth(node, token=bare["client_token"], policies=["all"]))["policies"] == ["all"]
    with pytest.raises(PermissionDenied):
        await auth(node, token=bare["client_token"], policies=["default"])
    both = await make(node, policies=["all"])
    assert (await auth(node, token=both, no_default_policy=True))["policies"] == ["all"]


@in_node
async def test_counting_a_use_undoes_nothing_of_what_the_request_did_to_its_own_token(node: CoreNode) -> None:
    for path, data in (("revoke-self", {}), ("revoke", {"token": ""}), ("revoke-accessor", {"accessor": ""})):
        made = await auth(node, policies=["all"], num_uses=5)
        token = made["client_token"]
        own = {name: {"token": token, "accessor": made["accessor"]}[name] for name in data}
        await node.ask("update", f"auth/token/{path}", own, token=token)
        assert not await valid(node, token)
    made = await auth(node, policies=["all"], num_uses=5, ttl="10m")
    await node.core.handle(
        node.request("update", "auth/token/renew-self", {"increment": "5h"}, token=made["client_token"])
    )
    shown = await node.ask("update", "auth/token/lookup-accessor", {"accessor": made["accessor"]})
    assert (shown["ttl"], shown["num_uses"]) == (5 * 3600, 4)


@in_node
async def test_a_tree_has_a_depth(node: CoreNode) -> None:
    token = await make(node, policies=["all"])
    for _ in range(DEPTH_MAX - 3):
        token = await make(node, token=token)
    last = await make(node, token=token)
    assert await valid(node, last)
    with pytest.raises(FailedPrecondition, match="most allowed"):
        await make(node, token=last)


@in_node
async def test_a_token_revoked_meanwhile_stops_a_write_under_way(node: CoreNode) -> None:
    parent = await make(node, policies=["all"])
    child = await make(node, token=parent)
    inner = node.consensus.propose
    once = []

    async def propose(batch: Any, *, timeout_s: float) -> Any:
        if not once:
            once.append(1)
            await node.ask("update", "auth/token/revoke", {"token": parent})
        return await inner(batch, timeout_s=timeout_s)

    node.consensus.propose = propose  # type: ignore[method-assign]
    with pytest.raises(Unauthenticated):
        await node.ask("update", "secret/data/x", {"data": {}}, token=child)
    with pytest.raises(NotFound):
        await node.ask("read", "secret/data/x")


@in_node
async def test_what_ended_is_swept_up_and_what_lives_stays(node: CoreNode) -> None:
    parent = await make(node, policies=["all"])
    below = [await make(node, token=parent) for _ in range(5)]
    short = await make(node, policies=["all"], ttl="1m")
    lasting = await make(node, policies=["all"], ttl="100h")
    await node.ask("update", "auth/token/revoke", {"token": parent})
    node.time += 60
    before = len((await node.ask("list", "auth/token/accessors"))["keys"])
    assert await node.ask("update", "auth/token/tidy") == {"removed": 6, "after": ""}
    assert len((await node.ask("list", "auth/token/accessors"))["keys"]) == before - 6
    assert await valid(node, lasting)
    assert not any([await valid(node, token) for token in (*below, short)])
    assert await node.ask("update", "auth/token/tidy") == {"removed": 0, "after": ""}


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"ttl": "soon"}, "ttl"),
        ({"meta": {"a": 1}}, "meta"),
        ({"meta": {str(n): "" for n in range(65)}}, "meta"),
        ({"type": "batch"}, "type"),
        ({"num_uses": -1}, "num_uses"),
        ({"renewable": "perhaps"}, "renewable"),
        ({"policies": [1]}, "policies"),
        ({"unknown": 1}, "data"),
    ],
)
def test_what_makes_no_token_is_refused_by_name(data: dict[str, Any], field: str) -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        before = len((await node.ask("list", "auth/token/accessors"))["keys"])
        with pytest.raises(InvalidArgument) as refused:
            await node.ask("update", "auth/token/create", data)
        assert refused.value.field == field
        assert len((await node.ask("list", "auth/token/accessors"))["keys"]) == before

    asyncio.run(main())


@in_node
async def test_a_retried_request_is_answered_with_the_token_made_the_first_time(node: CoreNode) -> None:
    first = await node.core.handle(node.request("update", "auth/token/create", {}, request_id=request_id(1)))
    second = await node.core.handle(node.request("update", "auth/token/create", {}, request_id=request_id(1)))
    assert first.auth == second.auth
    assert first.auth is not None
