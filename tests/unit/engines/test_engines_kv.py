"""KV version 2 through the whole request path: every operation and every refusal, with Vault's meanings."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.core_node import CoreNode

from holdfast.core.request import DATA_BYTES_MAX
from holdfast.engines.kv.secret import MAX_VERSIONS_LIMIT
from holdfast.proto.errors import Conflict, InvalidArgument, NotFound, Unimplemented

DAY_S = 86_400


def run(scenario: Callable[[CoreNode], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario(await CoreNode().bootstrap())

    asyncio.run(main())


async def put(node: CoreNode, path: str, data: dict[str, Any], **options: Any) -> Any:
    body: dict[str, Any] = {"data": data}
    if options:
        body["options"] = options
    return await node.ask("update", f"secret/data/{path}", body)


async def get(node: CoreNode, path: str, version: int = 0) -> Any:
    return await node.ask("read", f"secret/data/{path}", {"version": version} if version else None)


def test_a_written_secret_reads_back_with_its_metadata() -> None:
    async def scenario(node: CoreNode) -> None:
        written = await put(node, "myapp/db", {"username": "admin", "password": "x"})
        assert written == {
            "version": 1,
            "created_time": "2027-01-15T08:00:00.000000000Z",
            "deletion_time": "",
            "destroyed": False,
            "custom_metadata": None,
        }
        assert await get(node, "myapp/db") == {"data": {"username": "admin", "password": "x"}, "metadata": written}

    run(scenario)


def test_json_survives_exactly() -> None:
    async def scenario(node: CoreNode) -> None:
        data = {
            "big": 2**400 + 1, "negative": -(10**30), "float": 0.1, "nested": {"a": [1, {"b": None}], "": True},
            "text": "ä\u2028\U0001f511\x00\"\\", "empty": {}, "list": [],
        }  # fmt: skip
        await put(node, "x", data)
        answer = (await get(node, "x"))["data"]
        assert answer == data
        assert list(answer) == list(data)
        assert isinstance(answer["float"], float)

    run(scenario)


@pytest.mark.parametrize(
    "data",
    [
        {"a": float("nan")}, {"a": [float("inf")]}, {1: "a"}, {"a": {None: 1}}, {"a": b"bytes"},
        {"a": "x" * (DATA_BYTES_MAX - len('{"a":""}') + 1)}, {"a": 10**4300}, {"a": "\ud800"},
    ],
    ids=["nan", "infinity", "int-name", "none-name", "bytes", "too-large", "too-many-digits", "lone-surrogate"],
)  # fmt: skip
def test_data_that_cannot_be_kept_exactly_is_refused_with_the_field_named(data: dict[Any, Any]) -> None:
    async def scenario(node: CoreNode) -> None:
        with pytest.raises(InvalidArgument) as refusal:
            await put(node, "x", data)
        assert refusal.value.field == "data"
        with pytest.raises(NotFound):
            await get(node, "x")

    run(scenario)


def test_data_of_exactly_the_limit_is_kept() -> None:
    async def scenario(node: CoreNode) -> None:
        data = {"a": "x" * (DATA_BYTES_MAX - len('{"a":""}'))}
        await put(node, "x", data)
        assert (await get(node, "x"))["data"] == data

    run(scenario)


def test_data_nested_a_hundred_deep_is_kept_and_deeper_is_refused() -> None:
    def nested(depth: int) -> dict[str, Any]:
        value: Any = 1
        for _ in range(depth):
            value = {"d": value}
        assert isinstance(value, dict)
        return value

    async def scenario(node: CoreNode) -> None:
        await put(node, "x", nested(100))
        assert (await get(node, "x"))["data"] == nested(100)
        for depth in (101, 5000):
            with pytest.raises(InvalidArgument):
                await put(node, "x", nested(depth))

    run(scenario)


def test_a_path_never_written_is_not_found() -> None:
    async def scenario(node: CoreNode) -> None:
        for path in ("secret/data/x", "secret/metadata/x", "secret/subkeys/x"):
            with pytest.raises(NotFound):
                await node.ask("read", path)
        with pytest.raises(NotFound):
            await node.ask("patch", "secret/data/x", {"data": {}})
        await put(node, "x", {})
        with pytest.raises(NotFound):
            await get(node, "x", 2)

    run(scenario)


def test_check_and_set() -> None:
    async def scenario(node: CoreNode) -> None:
        with pytest.raises(Conflict):
            await put(node, "x", {}, cas=1)
        await put(node, "x", {}, cas=0)
        with pytest.raises(Conflict):
            await put(node, "x", {}, cas=0)
        assert (await put(node, "x", {}, cas=1))["version"] == 2
        assert (await put(node, "x", {}, cas="2"))["version"] == 3
        await node.ask("delete", "secret/data/x")
        with pytest.raises(Conflict):
            await put(node, "x", {}, cas=0)  # a soft-deleted secret still has its version
        assert (await put(node, "x", {}, cas=3))["version"] == 4

    run(scenario)


def test_cas_required_refuses_writes_and_patches_without_it() -> None:
    async def scenario(node: CoreNode) -> None:
        await node.ask("update", "secret/metadata/x", {"cas_required": True})
        with pytest.raises(InvalidArgument) as refusal:
            await put(node, "x", {})
        assert refusal.value.field == "options.cas"
        await put(node, "x", {"a": 1}, cas=0)
        with pytest.raises(InvalidArgument):
            await node.ask("patch", "secret/data/x", {"data": {}})
        await node.ask("patch", "secret/data/x", {"data": {"b": 2}, "options": {"cas": 1}})
        assert (await get(node, "x"))["data"] == {"a": 1, "b": 2}

    run(scenario)


def test_patch_merges_as_rfc_7396_says() -> None:
    async def scenario(node: CoreNode) -> None:
        await put(node, "x", {"a": "b", "c": {"d": "e", "f": "g"}, "h": [1]})
        answer = await node.ask("patch", "secret/data/x", {"data": {"a": "z", "c": {"f": None}, "h": {"i": None}}})
        assert answer["version"] == 2
        assert (await get(node, "x"))["data"] == {"a": "z", "c": {"d": "e"}, "h": {}}
        assert (await get(node, "x", 1))["data"] == {"a": "b", "c": {"d": "e", "f": "g"}, "h": [1]}
        await node.ask("delete", "secret/data/x")
        with pytest.raises(NotFound):
            await node.ask("patch", "secret/data/x", {"data": {"a": 1}})

    run(scenario)


def test_a_patch_may_not_grow_a_secret_over_the_limit() -> None:
    async def scenario(node: CoreNode) -> None:
        half = "x" * (DATA_BYTES_MAX // 2)
        await put(node, "x", {"a": half})
        with pytest.raises(InvalidArgument) as refusal:
            await node.ask("patch", "secret/data/x", {"data": {"b": half}})
        assert refusal.value.field == "data"

    run(scenario)


def test_soft_delete_hides_data_and_undelete_brings_it_back() -> None:
    async def scenario(node: CoreNode) -> None:
        await put(node, "x", {"n": 1})
        await put(node, "x", {"n": 2})
        await node.ask("delete", "secret/data/x")
        hidden = await get(node, "x")
        assert hidden["data"] is None
        assert hidden["metadata"]["version"] == 2
        assert hidden["metadata"]["deletion_time"] == "2027-01-15T08:00:00.000000000Z"
        assert (await get(node, "x", 1))["data"] == {"n": 1}
        node.time += 5
        await node.ask("update", "secret/delete/x", {"versions": "1,2"})
        meta = await node.ask("read", "secret/metadata/x")
        assert meta["versions"]["2"]["deletion_time"] == "2027-01-15T08:00:00.000000000Z"  # deleted before: unchanged
        assert meta["versions"]["1"]["deletion_time"] == "2027-01-15T08:00:05.000000000Z"
        await node.ask("create", "secret/undelete/x", {"versions": [1, 2, 9]})
        assert (await get(node, "x"))["data"] == {"n": 2}
        assert (await get(node, "x", 1))["metadata"]["deletion_time"] == ""

    run(scenario)


def test_destroyed_data_is_gone_from_storage_and_does_not_come_back() -> None:
    async def scenario(node: CoreNode) -> None:
        await put(node, "x", {"n": 1})
        await put(node, "x", {"n": 2})
        records = len(node.consensus.records)
        await node.ask("update", "secret/destroy/x", {"versions": [1, 7]})
        assert len(node.consensus.records) == records - 1
        gone = await get(node, "x", 1)
        assert gone["data"] is None
        assert gone["metadata"]["destroyed"] is True
        await node.ask("update", "secret/undelete/x", {"versions": [1]})
        await node.ask("update", "secret/delete/x", {"versions": [1]})
        assert (await get(node, "x", 1)) == gone
        await node.ask("update", "secret/destroy/x", {"versions": [2]})
        with pytest.raises(NotFound):
            await node.ask("patch", "secret/data/x", {"data": {}})
        assert (await put(node, "x", {}))["version"] == 3

    run(scenario)


@pytest.mark.parametrize("operation", ["delete", "undelete", "destroy"])
def test_version_operations_name_versions_and_accept_missing_secrets(operation: str) -> None:
    async def scenario(node: CoreNode) -> None:
        assert await node.ask("update", f"secret/{operation}/nothing", {"versions": [1]}) is None
        for versions in (None, [], "", "1,x", [0], [-1], [1.5], [True], {"a": 1}, [2**63], list(range(1, 1002))):
            with pytest.raises(InvalidArgument) as refusal:
                await node.ask("update", f"secret/{operation}/x", {} if versions is None else {"versions": versions})
            assert refusal.value.field == "versions"

    run(scenario)


def test_ten_versions_are_kept_and_the_oldest_is_destroyed_for_good() -> None:
    async def scenario(node: CoreNode) -> None:
        for n in range(1, 13):
            await put(node, "x", {"n": n})
        meta = await node.ask("read", "secret/metadata/x")
        assert list(meta["versions"]) == [str(n) for n in range(3, 13)]
        assert (meta["current_version"], meta["oldest_version"]) == (12, 3)
        with pytest.raises(NotFound):
            await get(node, "x", 2)
        assert (await get(node, "x", 3))["data"] == {"n": 3}
        bodies = len(node.consensus.records)
        await put(node, "x", {})
        assert len(node.consensus.records) == bodies

    run(scenario)


def test_a_lowered_maximum_takes_effect_with_the_next_write() -> None:
    async def scenario(node: CoreNode) -> None:
        for n in range(5):
            await put(node, "x", {"n": n})
        await node.ask("update", "secret/metadata/x", {"max_versions": 2})
        assert len((await node.ask("read", "secret/metadata/x"))["versions"]) == 5
        await put(node, "x", {"n": 5})
        assert list((await node.ask("read", "secret/metadata/x"))["versions"]) == ["5", "6"]

    run(scenario)


def test_delete_version_after_hides_new_versions_in_time_and_undelete_starts_it_again() -> None:
    async def scenario(node: CoreNode) -> None:
        await node.ask("update", "secret/metadata/x", {"delete_version_after": "24h"})
        written = await put(node, "x", {"a": 1})
        assert written["deletion_time"] == "2027-01-16T08:00:00.000000000Z"
        node.time += DAY_S - 1
        assert (await get(node, "x"))["data"] == {"a": 1}
        node.time += 1
        assert (await get(node, "x"))["data"] is None
        await node.ask("update", "secret/undelete/x", {"versions": [1]})
        assert (await get(node, "x"))["data"] == {"a": 1}
        assert (await get(node, "x"))["metadata"]["deletion_time"] == "2027-01-17T08:00:00.000000000Z"

    run(scenario)


def test_metadata_is_written_read_and_replaced() -> None:
    async def scenario(node: CoreNode) -> None:
        settings = {
            "max_versions": "3", "cas_required": "true", "delete_version_after": "3h25m19s",
            "custom_metadata": {"owner": "team-a"},
        }  # fmt: skip
        assert await node.ask("create", "secret/metadata/x", settings) is None
        assert await node.ask("read", "secret/metadata/x") == {
            "cas_required": True,
            "created_time": "2027-01-15T08:00:00.000000000Z",
            "current_version": 0,
            "custom_metadata": {"owner": "team-a"},
            "delete_version_after": "3h25m19s",
            "max_versions": 3,
            "oldest_version": 0,
            "updated_time": "2027-01-15T08:00:00.000000000Z",
            "versions": {},
        }
        with pytest.raises(NotFound):
            await get(node, "x")
        await node.ask("update", "secret/metadata/x", {"custom_metadata": {"b": "c"}})
        node.time += 1
        written = await put(node, "x", {}, cas=0)
        assert written["custom_metadata"] == {"b": "c"}
        await node.ask("update", "secret/metadata/x", {"custom_metadata": {}, "delete_version_after": 0})
        meta = await node.ask("read", "secret/metadata/x")
        assert meta["custom_metadata"] is None
        assert meta["delete_version_after"] == "0s"
        assert meta["updated_time"] == "2027-01-15T08:00:01.000000000Z"
        assert meta["created_time"] == "2027-01-15T08:00:00.000000000Z"

    run(scenario)


def test_a_metadata_write_without_settings_makes_nothing() -> None:
    async def scenario(node: CoreNode) -> None:
        await node.ask("update", "secret/metadata/x", {})
        with pytest.raises(NotFound):
            await node.ask("read", "secret/metadata/x")

    run(scenario)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("max_versions", -1), ("max_versions", MAX_VERSIONS_LIMIT + 1), ("max_versions", True), ("max_versions", "x"),
        ("cas_required", 1), ("cas_required", "yes"), ("delete_version_after", "-1s"), ("delete_version_after", "soon"),
        ("delete_version_after", "99999999h"), ("delete_version_after", True), ("delete_version_after", 1.5),
        ("custom_metadata", {f"k{n}": "v" for n in range(65)}), ("custom_metadata", {"": "v"}),
        ("custom_metadata", {"k": ""}), ("custom_metadata", {"k" * 129: "v"}), ("custom_metadata", {"k": "v" * 513}),
        ("custom_metadata", {"k": 1}), ("custom_metadata", {"k": "a\nb"}), ("custom_metadata", ["k"]),
    ],
)  # fmt: skip
def test_settings_out_of_limits_are_refused_with_the_field_named(member: str, value: Any) -> None:
    async def scenario(node: CoreNode) -> None:
        with pytest.raises(InvalidArgument) as refusal:
            await node.ask("update", "secret/metadata/x", {member: value})
        assert refusal.value.field == member

    run(scenario)


def test_deleting_metadata_removes_the_secret_whole_and_a_new_one_begins_at_version_one() -> None:
    async def scenario(node: CoreNode) -> None:
        before = len(node.consensus.records)
        for n in range(3):
            await put(node, "x", {"n": n})
        await node.ask("update", "secret/destroy/x", {"versions": [1]})
        assert await node.ask("delete", "secret/metadata/x") is None
        assert len(node.consensus.records) == before
        assert await node.ask("delete", "secret/metadata/x") is None
        with pytest.raises(NotFound):
            await node.ask("read", "secret/metadata/x")
        assert (await put(node, "x", {}))["version"] == 1

    run(scenario)


def test_list_shows_names_directly_below_and_pages_through_them() -> None:
    async def scenario(node: CoreNode) -> None:
        for path in ("a", "a/b", "c/d/e", "f"):
            await put(node, path, {})
        assert sorted((await node.ask("list", "secret/metadata"))["keys"]) == ["a", "a/", "c/", "f"]
        assert (await node.ask("list", "secret/metadata/a/"))["keys"] == ["b"]
        assert (await node.ask("list", "secret/metadata/c"))["keys"] == ["d/"]
        seen: list[str] = []
        while page := (await node.ask("list", "secret/metadata/", {"limit": 1, "after": seen[-1] if seen else ""}))[
            "keys"
        ]:
            seen += page
        assert sorted(seen) == ["a", "a/", "c/", "f"]
        with pytest.raises(NotFound):
            await node.ask("list", "secret/metadata/nothing")
        for limit in (0, 1001, "x"):
            with pytest.raises(InvalidArgument) as refusal:
                await node.ask("list", "secret/metadata", {"limit": limit})
            assert refusal.value.field == "limit"

    run(scenario)


def test_a_list_without_a_limit_that_is_cut_says_so() -> None:
    async def scenario(node: CoreNode) -> None:
        for n in range(1001):
            await node.ask("update", f"secret/metadata/n{n}", {"max_versions": 1})
        page = await node.core.handle(node.request("list", "secret/metadata"))
        assert page.data is not None
        assert len(page.data["keys"]) == 1000
        assert len(page.warnings) == 1
        rest = await node.core.handle(node.request("list", "secret/metadata", {"after": page.data["keys"][-1]}))
        assert rest.data is not None
        assert len(rest.data["keys"]) == 1
        assert rest.warnings == ()

    run(scenario)


def test_subkeys_show_the_structure_without_values() -> None:
    async def scenario(node: CoreNode) -> None:
        await put(node, "x", {"a": 1, "b": {"c": [1], "d": {"e": 2}}, "f": {}})
        answer = await node.ask("read", "secret/subkeys/x")
        assert answer["subkeys"] == {"a": None, "b": {"c": None, "d": {"e": None}}, "f": None}
        assert answer["metadata"]["version"] == 1
        assert (await node.ask("read", "secret/subkeys/x", {"depth": 1}))["subkeys"] == dict.fromkeys("abf")
        two = await node.ask("read", "secret/subkeys/x", {"depth": "2", "version": "1"})
        assert two["subkeys"] == {"a": None, "b": {"c": None, "d": None}, "f": None}
        await node.ask("delete", "secret/data/x")
        assert (await node.ask("read", "secret/subkeys/x"))["subkeys"] is None

    run(scenario)


@pytest.mark.parametrize(
    ("operation", "path", "data", "field"),
    [
        ("update", "secret/data/x", {}, "data"),
        ("update", "secret/data/x", {"data": None}, "data"),
        ("update", "secret/data/x", {"data": "text"}, "data"),
        ("update", "secret/data/x", {"data": ["a"]}, "data"),
        ("update", "secret/data/x", {"data": {}, "options": 1}, "options"),
        ("update", "secret/data/x", {"data": {}, "options": {"case": 1}}, "options"),
        ("update", "secret/data/x", {"data": {}, "options": {"cas": -1}}, "options.cas"),
        ("update", "secret/data/x", {"data": {}, "options": {"cas": "one"}}, "options.cas"),
        ("update", "secret/data/x", {"password": "p"}, "data"),
        ("read", "secret/data/x", {"version": -1}, "version"),
        ("read", "secret/subkeys/x", {"depth": -1}, "depth"),
        ("patch", "secret/data/x", {}, "data"),
        ("list", "secret/metadata", {"after": 1}, "after"),
    ],
)
def test_malformed_requests_are_refused_with_the_field_named(
    operation: str, path: str, data: dict[str, Any], field: str
) -> None:
    async def scenario(node: CoreNode) -> None:
        with pytest.raises(InvalidArgument) as refusal:
            await node.ask(operation, path, data)
        assert refusal.value.field == field

    run(scenario)


def test_operations_that_a_path_has_not_are_refused() -> None:
    async def scenario(node: CoreNode) -> None:
        for operation, path in (("list", "secret/data/x"), ("read", "secret/delete/x"), ("patch", "secret/subkeys/x")):
            with pytest.raises(Unimplemented):
                await node.ask(operation, path)
        for path in ("secret", "secret/data", "secret/config", "secret/metadata"):
            with pytest.raises(NotFound):
                await node.ask("read", path)

    run(scenario)
