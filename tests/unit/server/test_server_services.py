"""The typed services over the real core, seal and engine: what they answer, what they refuse, and by which name."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from support.front_end import FrontEndNode, Refused, one_node, two_nodes

from holdfast.core.request import Request, Response
from holdfast.proto.errors import Corruption, Diverged
from holdfast.proto.v1 import kv_pb2, logical_pb2, raft_pb2, sys_pb2

DATA = b'{"username":"admin","n":%d,"x":[1.5,null,{"y":true}]}' % 2**70


def with_node(test: Callable[[FrontEndNode], Awaitable[None]], **options: int) -> None:
    async def main() -> None:
        node = await one_node(**options)
        try:
            await test(node)
        finally:
            await node.seal.close()

    asyncio.run(main())


def with_two(test: Callable[[FrontEndNode, FrontEndNode], Awaitable[None]]) -> None:
    async def main() -> None:
        leader, follower = await two_nodes()
        try:
            await test(leader, follower)
        finally:
            await leader.seal.close()
            await follower.seal.close()

    asyncio.run(main())


def test_a_secret_goes_through_its_whole_life() -> None:
    async def life(node: FrontEndNode) -> None:
        kv, call = node.kv, node.call
        put = await call(kv.Put, kv_pb2.PutRequest(path="myapp/db", data=DATA, cas=0))
        assert put.metadata.version == 1
        got = await call(kv.Get, kv_pb2.GetRequest(path="myapp/db"))
        assert got.data == DATA
        assert got.metadata == put.metadata
        assert got.metadata.created_time.seconds > 1_500_000_000
        patched = await call(kv.Patch, kv_pb2.PatchRequest(path="myapp/db", data=b'{"username":null,"b":2}', cas=1))
        assert patched.metadata.version == 2
        await call(kv.Delete, kv_pb2.DeleteRequest(path="myapp/db"))
        deleted = await call(kv.Get, kv_pb2.GetRequest(path="myapp/db"))
        assert deleted.data == b""
        assert deleted.metadata.HasField("deletion_time")
        await call(kv.Undelete, kv_pb2.UndeleteRequest(path="myapp/db", versions=[2]))
        await call(kv.Delete, kv_pb2.DeleteRequest(path="myapp/db", versions=[1]))
        await call(kv.Destroy, kv_pb2.DestroyRequest(path="myapp/db", versions=[1]))
        metadata = kv_pb2.WriteMetadataRequest(
            path="myapp/db", max_versions=4, cas_required=True, delete_version_after=Duration(seconds=3661),
            custom_metadata={"owner": "me"}, set_custom_metadata=True,
        )  # fmt: skip
        await call(kv.WriteMetadata, metadata)
        read = await call(kv.ReadMetadata, kv_pb2.ReadMetadataRequest(path="myapp/db"))
        assert (read.current_version, read.max_versions, read.cas_required) == (2, 4, True)
        assert read.delete_version_after.seconds == 3661
        assert dict(read.custom_metadata) == {"owner": "me"}
        assert [(v.version, v.destroyed) for v in read.versions] == [(1, True), (2, False)]
        with pytest.raises(Refused) as caught:
            await call(kv.Put, kv_pb2.PutRequest(path="myapp/db", data=b"{}"))
        assert (caught.value.reason, caught.value.field) == ("INVALID_ARGUMENT", "cas")
        await call(kv.DeleteMetadata, kv_pb2.DeleteMetadataRequest(path="myapp/db"))
        with pytest.raises(Refused) as caught:
            await call(kv.Get, kv_pb2.GetRequest(path="myapp/db"))
        assert caught.value.code is grpc.StatusCode.NOT_FOUND

    with_node(life)


@pytest.mark.parametrize(
    ("method", "message", "field"),
    [
        ("Put", kv_pb2.PutRequest(path="", data=b"{}"), "path"),
        ("Put", kv_pb2.PutRequest(path="/a", data=b"{}"), "path"),
        ("Put", kv_pb2.PutRequest(mount="a//b", path="a", data=b"{}"), "mount"),
        ("Put", kv_pb2.PutRequest(path="a"), "data"),
        ("Put", kv_pb2.PutRequest(path="a", data=b"[1]"), "data"),
        ("Put", kv_pb2.PutRequest(path="a", data=b"{}", cas=2**63), "cas"),
        ("Patch", kv_pb2.PatchRequest(path="a", data=b"3"), "data"),
        ("Get", kv_pb2.GetRequest(path="a/../b"), "path"),
        ("Get", kv_pb2.GetRequest(path="a", version=2**63), "versions"),
        ("BatchGet", kv_pb2.BatchGetRequest(requests=[kv_pb2.GetRequest(path="a")] * 101), "requests"),
        ("List", kv_pb2.ListRequest(page_size=1001), "page_size"),
        ("List", kv_pb2.ListRequest(page_token="nonsense"), "page_token"),
        ("List", kv_pb2.ListRequest(path="/"), "path"),
        ("Delete", kv_pb2.DeleteRequest(path="a", versions=[0]), "versions"),
        ("Undelete", kv_pb2.UndeleteRequest(path="a"), "versions"),
        ("Destroy", kv_pb2.DestroyRequest(path="a"), "versions"),
        ("WriteMetadata", kv_pb2.WriteMetadataRequest(path="a", custom_metadata={"a": "b"}), "set_custom_metadata"),
        (
            "WriteMetadata",
            kv_pb2.WriteMetadataRequest(path="a", delete_version_after=Duration(seconds=-1)),
            "delete_version_after",
        ),
        ("ReadMetadata", kv_pb2.ReadMetadataRequest(path="a\nb"), "path"),
        ("DeleteMetadata", kv_pb2.DeleteMetadataRequest(path="a/"), "path"),
    ],
)
def test_a_wrong_field_of_a_kv_call_is_named(method: str, message: Any, field: str) -> None:
    async def refused(node: FrontEndNode) -> None:
        with pytest.raises(Refused) as caught:
            await node.call(getattr(node.kv, method), message)
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.field == field

    with_node(refused)


def test_a_listing_pages_to_its_end_and_no_further() -> None:
    async def listing(node: FrontEndNode) -> None:
        names = [f"n{i}" for i in range(6)]
        for name in names:
            await node.call(node.kv.Put, kv_pb2.PutRequest(path=f"f/{name}", data=b"{}"))
        for size in (1, 2, 3, 4, 6, 7, 0):
            seen: list[str] = []
            token = ""
            pages = 0
            while True:
                page = await node.call(node.kv.List, kv_pb2.ListRequest(path="f/", page_size=size, page_token=token))
                seen += page.keys
                pages += 1
                token = page.next_page_token
                if not token:
                    break
            assert sorted(seen) == names
            assert pages == -(-6 // (size or 1000)), "no empty last page"

    with_node(listing)


def test_batch_get_answers_each_item_and_waits_for_one_read_barrier() -> None:
    async def batch(node: FrontEndNode) -> None:
        await node.call(node.kv.Put, kv_pb2.PutRequest(path="a", data=b'{"v":1}'))
        barriers = 0
        inner = node.consensus.read_barrier

        async def counted(*, timeout_s: float) -> int:
            nonlocal barriers
            barriers += 1
            return await inner(timeout_s=timeout_s)

        node.consensus.read_barrier = counted  # type: ignore[method-assign]
        answer = await node.call(
            node.kv.BatchGet,
            kv_pb2.BatchGetRequest(
                requests=[
                    kv_pb2.GetRequest(path="a"),
                    kv_pb2.GetRequest(path="missing"),
                    kv_pb2.GetRequest(path="/bad"),
                    kv_pb2.GetRequest(path="a", version=9),
                ]
            ),
        )
        assert barriers == 1
        assert answer.results[0].secret.data == b'{"v":1}'
        assert [r.error.reason for r in answer.results[1:]] == ["NOT_FOUND", "INVALID_ARGUMENT", "NOT_FOUND"]

    with_node(batch)


def test_the_generic_service_reaches_any_path() -> None:
    async def logical(node: FrontEndNode) -> None:
        async def execute(operation: int, path: str, data: bytes = b"") -> Any:
            message = logical_pb2.ExecuteRequest(operation=operation, path=path, data=data)
            return await node.call(node.logical.Execute, message)

        written = await execute(logical_pb2.OPERATION_WRITE, "secret/data/a", b'{"data":{"n":%d}}' % 10**30)
        assert json.loads(written.data)["version"] == 1
        assert len(written.request_id) == 32
        read = await execute(logical_pb2.OPERATION_READ, "secret/data/a")
        assert json.loads(read.data)["data"] == {"n": 10**30}
        listed = await execute(logical_pb2.OPERATION_LIST, "secret/metadata/")
        assert json.loads(listed.data) == {"keys": ["a"]}
        assert (await execute(logical_pb2.OPERATION_DELETE, "secret/data/a")).data == b""
        assert "secret/" in json.loads((await execute(logical_pb2.OPERATION_READ, "sys/mounts")).data)
        wrong = [
            (logical_pb2.OPERATION_UNSPECIFIED, "secret/data/a", b"", "operation"),
            (99, "secret/data/a", b"", "operation"),
            (logical_pb2.OPERATION_READ, "", b"", "path"),
            (logical_pb2.OPERATION_READ, "secret/data/a/", b"", "path"),
            (logical_pb2.OPERATION_WRITE, "secret/data/a", b"{", "data"),
        ]
        for operation, path, data, field in wrong:
            with pytest.raises(Refused) as caught:
                await execute(operation, path, data)
            assert caught.value.field == field

    with_node(logical)


def test_a_token_is_needed_and_must_be_known() -> None:
    async def tokens(node: FrontEndNode) -> None:
        get = kv_pb2.GetRequest(path="a")
        for token in ("", "hvs.unknown"):
            node.token = token
            with pytest.raises(Refused) as caught:
                await node.call(node.kv.Get, get)
            assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED

    with_node(tokens)


def test_init_checks_its_counts() -> None:
    async def counts(node: FrontEndNode) -> None:
        for shares, threshold, field in [
            (256, 3, "secret_shares"),
            (3, 4, "secret_threshold"),
            (3, 1, "secret_threshold"),
        ]:
            with pytest.raises(Refused) as caught:
                await node.call(node.sys.Init, sys_pb2.InitRequest(secret_shares=shares, secret_threshold=threshold))
            assert caught.value.field == field
        with pytest.raises(Refused) as caught:
            await node.call(node.sys.Init, sys_pb2.InitRequest())
        assert caught.value.reason == "ALREADY_INITIALIZED"

    with_node(counts)


def test_seal_needs_a_token_and_then_nothing_is_served() -> None:
    async def seal(node: FrontEndNode) -> None:
        token, node.token = node.token, ""
        with pytest.raises(Refused) as caught:
            await node.call(node.sys.Seal, sys_pb2.SealRequest())
        assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
        node.token = token
        await node.call(node.sys.Seal, sys_pb2.SealRequest())
        health = await node.call(node.sys.Health, sys_pb2.HealthRequest())
        assert health.state == sys_pb2.HealthResponse.STATE_SEALED
        status = await node.call(node.sys.SealStatus, sys_pb2.SealStatusRequest())
        assert (status.sealed, status.last_seal_reason) == (True, "an operator sealed it")
        with pytest.raises(Refused) as caught:
            await node.call(node.kv.Get, kv_pb2.GetRequest(path="a"))
        assert (caught.value.reason, caught.value.code) == ("SEALED", grpc.StatusCode.UNAVAILABLE)
        assert caught.value.retry_ms > 0
        for share in ("", "x" * 2000, "schlüssel"):
            with pytest.raises(Refused) as caught:
                await node.call(node.sys.Unseal, sys_pb2.UnsealRequest(share=share))
            assert caught.value.field == "share"
        with pytest.raises(Refused) as caught:
            await node.call(node.sys.Unseal, sys_pb2.UnsealRequest(share="not-a-share"))
        assert caught.value.reason == "SHARE_REJECTED"

    with_node(seal)


def test_one_ceremony_at_an_unsealed_node_unseals_the_other_and_no_stranger_can_hold_it() -> None:
    async def ceremony(leader: FrontEndNode, follower: FrontEndNode) -> None:
        members = {**leader.consensus.members, **follower.consensus.members}
        leader.consensus.members = follower.consensus.members = members
        share = leader.shares[0]
        follower.seal.seal("test")
        for guess in ("not-a-share", "x" * 2000, ""):
            with pytest.raises(Refused):
                await leader.call(leader.sys.Unseal, sys_pb2.UnsealRequest(share=guess, cluster=True))
        plain = await leader.call(leader.sys.Unseal, sys_pb2.UnsealRequest(share=share))
        assert (plain.cluster_done, follower.seal.sealed) == (False, True)
        done = await leader.call(leader.sys.Unseal, sys_pb2.UnsealRequest(share=share, cluster=True))
        assert done.cluster_done
        assert [(m.node_id, m.unsealed, m.already, m.reason) for m in done.members] == [("node-2", True, False, "")]
        assert not follower.seal.sealed
        assert b'holdfast_root_key_handovers_total{outcome="given",why="ceremony"} 1.0' in leader.metrics.exposition()

    with_two(ceremony)


def test_a_follower_takes_writes_and_orders_to_the_leader_and_reads_by_itself() -> None:
    async def forwarded(leader: FrontEndNode, follower: FrontEndNode) -> None:
        calls = follower.port._board.calls
        calls.clear()
        put = await follower.call(follower.kv.Put, kv_pb2.PutRequest(path="a", data=DATA))
        assert put.metadata.version == 1
        assert calls == [("node-2", "node-1", "core.request")]
        got = await follower.call(follower.kv.Get, kv_pb2.GetRequest(path="a"))
        assert got.data == DATA
        assert len(calls) == 1, "a read stays on the node"
        listed = await follower.call(follower.raft.ListPeers, raft_pb2.ListPeersRequest())
        assert [p.node_id for p in listed.peers] == ["node-1"]
        peer = raft_pb2.Peer(node_id="node-3", cluster_address="127.0.0.1:1", api_address="127.0.0.1:2")
        assert (await follower.call(follower.raft.Join, raft_pb2.JoinRequest(peer=peer))).index > 0
        assert leader.consensus.members["node-3"].voter, "it is to vote once it has caught up"
        await follower.call(follower.raft.Join, raft_pb2.JoinRequest(peer=peer))
        elsewhere = raft_pb2.Peer(node_id="node-3", cluster_address="127.0.0.1:3", api_address="127.0.0.1:2")
        with pytest.raises(Refused) as caught:
            await follower.call(follower.raft.Join, raft_pb2.JoinRequest(peer=elsewhere))
        assert caught.value.reason == "ALREADY_EXISTS", "only the very same join may be repeated"
        await follower.call(follower.raft.RemovePeer, raft_pb2.RemovePeerRequest(node_id="node-3"))
        assert "node-3" not in leader.consensus.members
        with pytest.raises(Refused) as caught:
            await follower.call(follower.sys.Init, sys_pb2.InitRequest())
        assert caught.value.reason == "ALREADY_INITIALIZED"
        follower.token = "hvs.unknown"
        with pytest.raises(Refused) as caught:
            await follower.call(follower.sys.StepDown, sys_pb2.StepDownRequest())
        assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED

    with_two(forwarded)


def test_a_node_tells_whether_it_is_a_member() -> None:
    async def told(leader: FrontEndNode, follower: FrontEndNode) -> None:
        other, own = leader.consensus.members["node-1"], follower.consensus.members["node-2"]
        roles = []
        for known in ({"node-2": own}, {"node-1": other}, {}):
            follower.consensus.members = known
            roles.append((await follower.call(follower.sys.SealStatus, sys_pb2.SealStatusRequest())).role)
        assert roles == ["follower", "removed", "joining"]

    with_two(told)


def test_a_node_that_no_cluster_has_let_in_does_not_ask_for_new_keys() -> None:
    async def refused(leader: FrontEndNode, follower: FrontEndNode) -> None:
        del leader
        follower.consensus.members.clear()
        follower.consensus._leader_id = ""
        with pytest.raises(Refused) as caught:
            await follower.call(follower.sys.Init, sys_pb2.InitRequest())
        assert caught.value.reason == "UNINITIALIZED"
        assert "holdfast operator raft join" in str(caught.value)

    with_two(refused)


def test_who_leads_is_told_with_its_address() -> None:
    async def leader_told(leader: FrontEndNode, follower: FrontEndNode) -> None:
        told = await leader.call(leader.sys.Leader, sys_pb2.LeaderRequest())
        assert (told.is_self, told.leader_id, told.leader_address) == (True, "node-1", "127.0.0.1:8200")
        told = await follower.call(follower.sys.Leader, sys_pb2.LeaderRequest())
        assert (told.is_self, told.leader_id) == (False, "node-1")

    with_two(leader_told)


@pytest.mark.parametrize(
    ("peer", "field"),
    [
        (raft_pb2.Peer(node_id="Bad_", cluster_address="a:1", api_address="a:2"), "peer.node_id"),
        (raft_pb2.Peer(node_id="a", cluster_address="a", api_address="a:2"), "peer.cluster_address"),
        (raft_pb2.Peer(node_id="a", cluster_address="a:1", api_address="0.0.0.0:2"), "peer.api_address"),
    ],
)
def test_a_wrong_member_is_refused_by_field(peer: raft_pb2.Peer, field: str) -> None:
    async def refused(node: FrontEndNode) -> None:
        with pytest.raises(Refused) as caught:
            await node.call(node.raft.Join, raft_pb2.JoinRequest(peer=peer))
        assert caught.value.field == field

    with_node(refused)


def failing(node: FrontEndNode, error: Exception) -> None:
    async def handle(_request: Request) -> Response:
        raise error

    node.kv._handle = handle


def test_a_fatal_error_is_answered_and_then_stops_the_node() -> None:
    async def fatal(node: FrontEndNode) -> None:
        failing(node, Corruption("a record does not decrypt"))
        with pytest.raises(Refused) as caught:
            await node.call(node.kv.Get, kv_pb2.GetRequest(path="a"))
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.INTERNAL, "CORRUPTION")
        assert [type(e) for e in node.fatal] == [Corruption]
        node.fatal.clear()
        with pytest.raises(Refused):
            await node.call(node.kv.BatchGet, kv_pb2.BatchGetRequest(requests=[kv_pb2.GetRequest(path="a")]))
        assert [type(e) for e in node.fatal] == [Corruption]

    with_node(fatal)


def test_the_leaders_fatal_error_stops_the_leader_only() -> None:
    async def fatal(leader: FrontEndNode, follower: FrontEndNode) -> None:
        async def handle(_caller: str, _payload: bytes) -> bytes:
            raise Diverged("digests differ")

        leader.port._board.handlers["node-1", "core.request"] = handle
        with pytest.raises(Refused) as caught:
            await follower.call(follower.kv.Put, kv_pb2.PutRequest(path="a", data=b"{}"))
        assert caught.value.reason == "OUTCOME_UNKNOWN"
        assert follower.fatal == []

    with_two(fatal)


def test_an_unexpected_exception_is_answered_with_a_request_id_only() -> None:
    async def unexpected(node: FrontEndNode) -> None:
        failing(node, RuntimeError("secret-marker"))
        with pytest.raises(Refused) as caught:
            await node.call(node.kv.Get, kv_pb2.GetRequest(path="a"))
        assert caught.value.code is grpc.StatusCode.INTERNAL
        assert "secret-marker" not in str(caught.value)
        assert caught.value.details["request_id"] in str(caught.value)
        assert node.fatal == []

    with_node(unexpected)


def test_a_full_node_refuses_requests_with_a_retry_hint_and_still_answers_probes() -> None:
    async def full(node: FrontEndNode) -> None:
        release = asyncio.Event()

        async def handle(_request: Request) -> Response:
            await release.wait()
            return Response(data={"keys": []})

        node.kv._handle = handle
        waiting = [asyncio.create_task(node.call(node.kv.List, kv_pb2.ListRequest())) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Refused) as caught:
            await node.call(node.kv.List, kv_pb2.ListRequest())
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.retry_ms > 0
        await node.call(node.sys.Health, sys_pb2.HealthRequest())
        release.set()
        await asyncio.gather(*waiting)
        await node.call(node.kv.List, kv_pb2.ListRequest())

    with_node(full, in_flight_max=2)


def test_calls_are_counted_by_method_and_outcome() -> None:
    async def counted(node: FrontEndNode) -> None:
        await node.call(node.kv.Put, kv_pb2.PutRequest(path="a", data=b"{}"))
        with pytest.raises(Refused):
            await node.call(node.kv.Get, kv_pb2.GetRequest(path="missing"))
        text = node.metrics.exposition().decode()
        assert 'holdfast_requests_total{method="KvService/Put",outcome="OK"} 1.0' in text
        assert 'holdfast_requests_total{method="KvService/Get",outcome="NOT_FOUND"} 1.0' in text
        assert "missing" not in text

    with_node(counted)


def test_a_retried_write_takes_effect_once_whichever_node_takes_it() -> None:
    async def once(leader: FrontEndNode, follower: FrontEndNode) -> None:
        message = kv_pb2.PutRequest(path="a", data=b'{"v":1}')
        request_id = "0" * 31 + "7-1"
        first = await leader.call(leader.kv.Put, message, request_id=request_id)
        again = await follower.call(follower.kv.Put, message, request_id=request_id, request_age_ms="10")
        assert first == again
        assert (await leader.call(leader.kv.Get, kv_pb2.GetRequest(path="a"))).metadata.version == 1

    with_two(once)
