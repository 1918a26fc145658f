"""Paths, patterns, the mount table and the router: what is served, and how everything else is refused."""

import asyncio
from typing import Any

import pytest

from holdfast.core.mounts import MOUNTS_PATH, Mount, MountCache, MountTable
from holdfast.core.paths import Pattern, split
from holdfast.core.plugin import HandlerContext, Operation, OperationSpec, PathSpec, Response, StorageView
from holdfast.core.request import PATH_BYTES_MAX, Request
from holdfast.core.router import Router
from holdfast.core.system import system_mounts
from holdfast.proto.errors import Corruption, InvalidArgument, NotFound, Unimplemented


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/a", "a/", "a//b", "a/./b", "a/../b", "..", "a/b\x00", "a\n", "a\x7f", "a\x85b", "\ud800",
        "a" * 513, "/".join(["a" * 100] * 11),
    ],
)  # fmt: skip
def test_malformed_paths_are_refused_without_being_repeated(path: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        split(path, Operation.READ)
    assert refusal.value.field == "path"
    assert len(path) < 3 or path not in str(refusal.value)


def test_a_path_of_exactly_the_limit_is_taken() -> None:
    path = "/".join(["a" * 127] * 8) + "a"
    assert len(path) == PATH_BYTES_MAX
    assert len(split(path, Operation.READ)) == 8


def test_only_a_list_may_end_in_a_slash() -> None:
    assert split("a/b/", Operation.LIST) == ("a", "b")
    with pytest.raises(InvalidArgument):
        split("a/b//", Operation.LIST)


def test_patterns_capture_segments_and_the_rest() -> None:
    pattern = Pattern.compile("roles/{name}/keys/{path...}")
    assert pattern.match(["roles", "r", "keys", "a", "b"], Operation.READ) == {"name": "r", "path": "a/b"}
    assert pattern.match(["roles", "r", "keys"], Operation.READ) is None
    assert pattern.match(["roles", "r", "keys"], Operation.LIST) == {"name": "r", "path": ""}
    assert pattern.match(["roles", "r"], Operation.LIST) is None
    assert pattern.match(["other", "r", "keys", "a"], Operation.READ) is None
    assert Pattern.compile("config").match(["config"], Operation.READ) == {}
    assert Pattern.compile("config").match(["config", "x"], Operation.READ) is None


@pytest.mark.parametrize("pattern", ["a//b", "{a...}/b", "a{b}", "{A}", "{a}/{a}", "{a}/{a...}", "{}"])
def test_malformed_patterns_are_found_when_the_node_starts(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Pattern.compile(pattern)


def mount(uuid: str, engine: str = "probe") -> Mount:
    return Mount(type=engine, uuid=uuid, created="2027-01-15T08:00:00.000000000Z")


def test_the_longest_mount_wins_by_whole_segments() -> None:
    table = MountTable({"a/": mount("1"), "a/b/": mount("2")})
    assert table.lookup(["a", "b", "c"])[1].uuid == "2"
    assert table.lookup(["a", "bc"])[1].uuid == "1"
    assert table.lookup(["a", "b"])[2] == []
    with pytest.raises(NotFound):
        table.lookup(["ab"])


def test_the_mount_table_survives_storage_and_a_damaged_one_is_corruption() -> None:
    table = MountTable({"a/": Mount(type="kv", uuid="1", created="x", options={"version": "2"}, description="d")})
    assert MountTable.decode(table.encode()).mounts == table.mounts
    for record in (b"", b"\xc1", table.encode()[:-1]):
        with pytest.raises(Corruption):
            MountTable.decode(record)


def test_the_mount_cache_follows_its_record() -> None:
    class Txn:
        record: bytes | None = MountTable({"a/": mount("1")}).encode()

        async def get(self, path: str) -> bytes | None:
            assert path == MOUNTS_PATH
            return self.record

    async def main() -> None:
        cache, txn = MountCache(), Txn()
        first = await cache.table(txn)
        assert await cache.table(txn) is first
        txn.record = MountTable({"b/": mount("1")}).encode()
        assert list((await cache.table(txn)).mounts) == ["b/"]
        cache.forget()
        txn.record = None
        with pytest.raises(Corruption):
            await cache.table(txn)

    asyncio.run(main())


async def handler(ctx: HandlerContext, view: StorageView) -> Response:
    return Response()


class Probe:
    type = "probe"

    def paths(self) -> list[PathSpec]:
        taken = OperationSpec(handler, "", {"a": "help"})
        return [
            PathSpec("only-update/{name}", {Operation.UPDATE: taken}),
            PathSpec("only-create/{name}", {Operation.CREATE: taken}),
            PathSpec("free", {Operation.UPDATE: OperationSpec(handler, "", free_form=True)}),
            PathSpec("{name}", {Operation.READ: taken}),
        ]


def route(operation: str, path: str, data: dict[str, Any] | None = None) -> Any:
    router = Router({"probe": Probe()}, system_mounts({}))
    table = MountTable({"p/": mount("1"), "q/r/": mount("2", "unknown"), "sys/x/": mount("3")})
    return router.route(table, Request(operation=Operation(operation), path=path, data=data or {}))


def test_create_and_update_fall_back_to_each_other() -> None:
    assert route("create", "p/only-update/x").fields == {"name": "x"}
    assert route("update", "p/only-create/x").fields == {"name": "x"}
    with pytest.raises(Unimplemented, match="it has create"):
        route("delete", "p/only-create/x")


def test_the_first_matching_path_serves_and_knows_where_its_storage_is() -> None:
    found = route("read", "p/x")
    assert (found.view_prefix, found.path, found.object_key) == ("shared/mount/1", "x", "shared/mount/1/x")
    assert route("read", "sys/mounts").view_prefix == "shared/core"
    assert route("read", "auth/token/lookup-self").view_prefix == "local/token"


def test_what_nothing_serves_is_refused() -> None:
    for path in ("nothing", "p", "p/a/b", "sys/x/y", "auth/token", "q"):
        with pytest.raises(NotFound):
            route("read", path)
    with pytest.raises(Unimplemented):
        route("read", "q/r/x")


def test_members_that_an_operation_does_not_take_are_refused_without_being_repeated() -> None:
    assert route("update", "p/only-update/x", {"a": 1}).spec.handler is handler
    assert route("update", "p/free", {"anything": 1}).spec.handler is handler
    with pytest.raises(InvalidArgument, match=r"it takes: a$") as refusal:
        route("update", "p/only-update/x", {"a": 1, "hunter2": 1})
    assert refusal.value.field == "data"
    assert "hunter2" not in str(refusal.value)
