"""The service of unseal providers over a real core and seal: who may call it, where it runs, what it shows to whom."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from support.front_end import FrontEndNode, Refused, two_nodes
from support.providers import Vaults, entries

from holdfast.cluster.raft.consensus import Member
from holdfast.cluster.seal.providers.contract import Health, ProviderError
from holdfast.proto.v1 import seal_provider_pb2 as pb
from holdfast.proto.v1 import sys_pb2
from holdfast.server.seal_provider_metrics import SealProviderCollector
from holdfast.server.seal_provider_service import SealProviderService

RECIPIENT = "age1" + "q" * 58


def service_of(node: FrontEndNode, vaults: Vaults) -> SealProviderService:
    node.sealing.wraps._credentials, node.sealing.wraps._calls = entries("a", "b").get, vaults
    return SealProviderService(
        node.front_end, node_id=node.consensus.node_id, consensus=node.consensus, calls=node.port,
        wraps=node.sealing.wraps, keeper=node.sealing.providers, authorize=node.core.authorize,
        on_fatal=node.fatal.append,
    )  # fmt: skip


def adding(name: str = "a", **changes: object) -> pb.AddSealProviderRequest:
    given = {"name": name, "type": "age", "priority": 1, "parameters": {"recipient": RECIPIENT}, **changes}
    return pb.AddSealProviderRequest(**given)  # type: ignore[arg-type]


Story = Callable[[FrontEndNode, FrontEndNode, Vaults], Awaitable[None]]


def on_two(story: Story) -> None:
    async def run() -> None:
        vaults = Vaults()
        leader, follower = await two_nodes()
        try:
            await story(leader, follower, vaults)
        finally:
            await leader.seal.close()
            await follower.seal.close()

    asyncio.run(asyncio.wait_for(run(), 60))


async def refused(call: Awaitable[object]) -> str:
    with pytest.raises(Refused) as caught:
        await call
    return str(caught.value.reason)


def test_a_follower_has_the_leader_add_and_remove_and_shows_what_every_member_says() -> None:
    async def story(leader: FrontEndNode, follower: FrontEndNode, vaults: Vaults) -> None:
        service_of(leader, vaults)
        service = service_of(follower, vaults)
        added = (await follower.call(service.AddSealProvider, adding())).provider
        assert (added.name, added.enrolled_by, added.development) == ("a", "node-1", True)
        assert dict(added.parameters) == {"recipient": RECIPIENT}
        vaults["a"].failing = ProviderError(Health.UNREACHABLE, "10.0.0.9 does not answer")
        tested = await follower.call(service.TestSealProvider, pb.TestSealProviderRequest(name="a"))
        assert (tested.node_id, tested.provider.health) == ("node-2", "unreachable")
        assert tested.provider.message == "10.0.0.9 does not answer"
        for consensus in (leader.consensus, follower.consensus):
            names = ("node-1", "node-2", "node-3")
            consensus.members = {name: Member(node_id=name, cluster_address="", api_address="") for name in names}
        follower.port.down.add("node-3")
        listed = await follower.call(service.ListSealProviders, pb.ListSealProvidersRequest())
        assert [provider.name for provider in listed.providers] == ["a"]
        assert [member.node_id for member in listed.members] == ["node-1", "node-2", "node-3"]
        assert [bool(member.error) for member in listed.members] == [False, False, True]
        assert listed.members[1].providers[0].message == "10.0.0.9 does not answer"

        status = await follower.call(follower.sys.SealStatus, sys_pb2.SealStatusRequest())
        (shown,) = status.seal_providers
        assert (shown.name, shown.health, shown.message) == ("a", "unreachable", ""), "a stranger is not told where"
        registry = CollectorRegistry()
        registry.register(SealProviderCollector(lambda: follower.sealing.providers.statuses))
        text = generate_latest(registry).decode()
        assert 'holdfast_seal_provider_healthy{name="a",type="age"} 0.0' in text
        assert "last_success_timestamp_seconds{" not in text
        assert "10.0.0.9" not in text

        await follower.call(service.RemoveSealProvider, pb.RemoveSealProviderRequest(name="a"))
        assert not (await follower.call(service.ListSealProviders, pb.ListSealProvidersRequest())).providers

    on_two(story)


def test_nobody_without_a_token_adds_removes_lists_or_tests() -> None:
    async def story(leader: FrontEndNode, follower: FrontEndNode, vaults: Vaults) -> None:
        service_of(leader, vaults)
        for node in (leader, follower):
            service = service_of(node, vaults)
            for method, message in (
                (service.AddSealProvider, adding()),
                (service.RemoveSealProvider, pb.RemoveSealProviderRequest(name="a")),
                (service.ListSealProviders, pb.ListSealProvidersRequest()),
                (service.TestSealProvider, pb.TestSealProviderRequest(name="a")),
            ):
                assert await refused(node.call(method, message, token="hf.wrong")) == "UNAUTHENTICATED"
        assert not vaults.vaults

    on_two(story)


def test_what_cannot_be_is_refused_by_name() -> None:
    async def story(leader: FrontEndNode, _follower: FrontEndNode, vaults: Vaults) -> None:
        service = service_of(leader, vaults)
        for message in (
            adding(""), adding("x" * 65), adding("a/b"), adding("shamir"), adding(type="gcp"), adding(priority=0),
            adding(parameters={str(n): "x" for n in range(17)}),
        ):  # fmt: skip
            assert await refused(leader.call(service.AddSealProvider, message)) == "INVALID_ARGUMENT"
        remove, test = pb.RemoveSealProviderRequest, pb.TestSealProviderRequest
        assert await refused(leader.call(service.RemoveSealProvider, remove(name="shamir"))) == "INVALID_ARGUMENT"
        assert await refused(leader.call(service.RemoveSealProvider, remove(name="c"))) == "NOT_FOUND"
        assert await refused(leader.call(service.TestSealProvider, test(name="c"))) == "NOT_FOUND"
        vaults["a"].failing = ProviderError(Health.REFUSED, "no")
        assert await refused(leader.call(service.AddSealProvider, adding())) == "FAILED_PRECONDITION"

    on_two(story)
