"""The blocking and the asyncio client do the same things: one scenario, carried out with both, over real TLS."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.fake_server import SHARES, TOKEN, FakeCluster, FakeNode

from holdfast.client import AsyncClient, Client, ClientConfig, LocalError, errors
from holdfast.client.results import HealthState


class Awaited:
    """Makes the blocking client look like the asyncio one, so that one scenario serves both."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not callable(attribute):
            return Awaited(attribute)

        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "list" and type(self._target).__name__ == "Kv":
                return self._iterate(attribute(*args, **kwargs))
            return self._await(attribute, *args, **kwargs)

        return call

    async def _await(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    async def _iterate(self, items: Iterator[str]) -> AsyncIterator[str]:
        for item in items:
            yield item


def carry_out(scenario: Callable[[Any, FakeNode], Awaitable[None]], kind: str, node: FakeNode) -> None:
    config = ClientConfig(addresses=node.address, token=TOKEN, ca_file=node.ca_file)

    async def with_asyncio() -> None:
        async with AsyncClient(config) as client:
            await scenario(client, node)

    async def blocking() -> None:
        with Client(config) as client:
            await scenario(Awaited(client), node)

    asyncio.run(with_asyncio() if kind == "asyncio" else blocking())


@pytest.fixture(params=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def secrets(client: Any, node: FakeNode) -> None:
    exact = {"n": 2**200, "nested": {"a": [1, None, True, "\u00fc\u2028"]}, "f": 0.1}
    first = await client.kv.put("myapp/db", exact, cas=0)
    assert first.version == 1
    assert first.created_time == datetime(2026, 11, 24, 4, 11, 17, 123000, tzinfo=UTC)
    with pytest.raises(errors.Conflict):
        await client.kv.put("myapp/db", {}, cas=0)
    secret = await client.kv.get("/myapp/db")
    assert secret.data == exact
    assert (await client.kv.patch("myapp/db", {"f": None, "g": "x"}, cas=1)).version == 2
    assert "f" not in (await client.kv.get("myapp/db")).data
    assert (await client.kv.get("myapp/db", version=1)).data == exact
    await client.kv.delete("myapp/db")
    deleted = await client.kv.get("myapp/db")
    assert deleted.data is None
    assert deleted.deletion_time is not None
    await client.kv.undelete("myapp/db", [2])
    await client.kv.destroy("myapp/db", [1])
    destroyed = await client.kv.get("myapp/db", version=1)
    assert destroyed.destroyed
    assert destroyed.data is None
    await client.kv.put_metadata(
        "myapp/db",
        max_versions=7,
        cas_required=True,
        delete_version_after=timedelta(hours=2),
        custom_metadata={"owner": "me"},
    )
    await client.kv.put_metadata("myapp/db", max_versions=8)
    known = await client.kv.get_metadata("myapp/db")
    assert (known.current_version, known.max_versions, known.cas_required) == (2, 8, True)
    assert known.delete_version_after == timedelta(hours=2)
    assert known.custom_metadata == {"owner": "me"}
    assert [version.destroyed for version in known.versions] == [True, False]
    await client.kv.delete_metadata("myapp/db")
    with pytest.raises(errors.NotFound):
        await client.kv.get_metadata("myapp/db")


async def many(client: Any, node: FakeNode) -> None:
    for number in range(7):
        await client.kv.put(f"app/{number}", {"n": number}, mount="other")
    assert [name async for name in client.kv.list("app", mount="other", page_size=3)] == [str(n) for n in range(7)]
    assert [name async for name in client.kv.list(mount="other")] == ["app/"]
    assert [name async for name in client.kv.list("nothing")] == []
    paths = [f"app/{number % 7}" for number in range(250)] + ["app/none", ("app/1", 1), ("app/1", 9)]
    results = await client.kv.get_many(paths, mount="other")
    assert [result.data["n"] for result in results[:250]] == [number % 7 for number in range(250)]
    assert isinstance(results[250], errors.NotFound)
    assert results[251].data == {"n": 1}
    assert isinstance(results[252], errors.NotFound)
    assert await client.kv.get_many([]) == []
    assert node.cluster.methods().count("BatchGet") == 3


async def keys_and_members(client: Any, node: FakeNode) -> None:
    with pytest.raises(errors.Uninitialized):
        await client.kv.get("a")
    made = await client.sys.init(shares=5, threshold=3)
    assert made.shares == SHARES
    with pytest.raises(errors.AlreadyInitialized):
        await client.sys.init()
    assert (await client.sys.health()).state is HealthState.SEALED
    with pytest.raises(errors.Sealed):
        await client.kv.get("a")
    with pytest.raises(errors.ShareRejected):
        await client.sys.unseal("wrong")
    for progress, share in enumerate(SHARES[:2], 1):
        assert (await client.sys.unseal(share)).progress == progress
    assert (await client.sys.unseal(reset=True)).progress == 0
    for share in SHARES[2:]:
        status = await client.sys.unseal(share)
    assert not status.sealed
    for share in SHARES[:3]:
        ceremony = await client.sys.unseal_cluster(share)
    assert ceremony.done
    assert [member.node_id for member in ceremony.members if not member.unsealed] == ["node-4"]
    assert (await client.sys.health()).state is HealthState.ACTIVE
    assert (await client.sys.leader()).leader_address == node.address
    assert await client.sys.step_down() == "node-2"
    assert await client.raft.join("node-4", cluster_address="10.0.0.4:8201", api_address="10.0.0.4:8200") == 41
    peers = await client.raft.list_peers()
    assert [peer.node_id for peer in peers.peers] == ["node-1", "node-2", "node-3", "node-4"]
    assert peers.peers[0].leader
    assert (await client.raft.autopilot_state()).servers[0].stable == timedelta(seconds=90)
    told = await client.raft.set_autopilot_config(max_trailing_logs=5)
    assert told == await client.raft.autopilot_config()
    assert told.max_trailing_logs == 5
    replica = await client.raft.replica_state()
    assert (replica.applied_index, replica.state_digest, replica.differing) == (40, (b"s" * 16).hex(), ("node-3",))
    assert await client.raft.remove_peer("node-4") == 42
    with pytest.raises(errors.NotFound):
        await client.raft.remove_peer("node-4")
    await client.sys.seal()
    status = await client.sys.seal_status()
    assert status.sealed
    assert status.last_seal_time is not None


async def any_engine(client: Any, node: FakeNode) -> None:
    answer = await client.logical.write("/x/y", {"a": 1})
    assert answer.data == {"operation": "OPERATION_WRITE", "path": "x/y", "given": {"a": 1}}
    assert (answer.warnings, answer.request_id) == (("mind the step",), "r1")
    assert (await client.logical.patch("x", {})).data["operation"] == "OPERATION_PATCH"
    assert (await client.logical.delete("x")).data["operation"] == "OPERATION_DELETE"
    assert (await client.logical.read("x", {"p": "q"})).data["given"] == {"p": "q"}
    assert (await client.logical.list("x")).data == {"keys": ["b", "a/"]}
    assert (await client.logical.read("empty")).data is None


async def mistakes(client: Any, node: FakeNode) -> None:
    for data in [{"a": float("nan")}, {"a": b"x"}, {1: "x"}, "text", {"a": "\udcff"}]:
        with pytest.raises(LocalError):
            await client.kv.put("a", data)
    for bad in (-1, 2**64, True, "1"):
        with pytest.raises(LocalError):
            await client.kv.put("a", {}, cas=bad)
    for versions in ([], [0], [-1]):
        with pytest.raises(LocalError):
            await client.kv.destroy("a", versions)
    with pytest.raises(LocalError):
        await client.kv.put_metadata("a", delete_version_after=timedelta(seconds=-1))
    with pytest.raises(LocalError):
        await client.kv.get("\udcff")
    with pytest.raises(LocalError):
        await client.sys.unseal(" ")
    assert node.cluster.calls == []


@pytest.mark.parametrize("scenario", [secrets, many, any_engine, mistakes], ids=lambda scenario: scenario.__name__)
def test_both_clients_carry_out(scenario: Any, kind: str, tmp_path: Path) -> None:
    with FakeNode(tmp_path / "ca") as node:
        carry_out(scenario, kind, node)


def test_both_clients_lead_a_cluster_from_its_first_day(kind: str, tmp_path: Path) -> None:
    with FakeNode(tmp_path / "ca", FakeCluster(initialized=False)) as node:
        carry_out(keys_and_members, kind, node)


@pytest.mark.parametrize("group", ["kv", "sys", "raft", "logical"])
def test_both_clients_have_the_same_methods_with_the_same_words(group: str, tmp_path: Path) -> None:
    async def groups() -> tuple[Any, Any]:
        async with AsyncClient(ClientConfig()) as client:
            return getattr(Client(ClientConfig()), group), getattr(client, group)

    blocking, awaited = asyncio.run(groups())
    names = [name for name in dir(blocking) if not name.startswith("_")]
    assert names == [name for name in dir(awaited) if not name.startswith("_")]
    for name in names:
        one, other = getattr(blocking, name), getattr(awaited, name)
        assert inspect.signature(one).parameters == inspect.signature(other).parameters
        assert one.__doc__ == other.__doc__
        assert "client." in (one.__doc__ or ""), f"{name} shows no example"


def test_a_closed_client_says_so(tmp_path: Path) -> None:
    client = Client(ClientConfig())
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.kv.get("a")


def test_a_file_that_is_missing_or_no_pem_is_a_local_error(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="CA file"):
        Client(ClientConfig(ca_file=tmp_path / "absent.crt"))
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(LocalError, match="PEM"):
        Client(ClientConfig(ca_file=tmp_path / "text"))
