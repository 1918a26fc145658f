"""Who is handed the root key, by whom, and when: every refusal, both ways, and the trace that each leaves."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from support.front_end import Port, Switchboard
from support.local_consensus import LocalConsensus
from support.seal_rig import Clock, initialized, manager_of, stream, unsealed

from holdfast.cluster.raft.consensus import Member, Role
from holdfast.cluster.seal import sharing
from holdfast.cluster.seal.handover import KeyRequest, PendingKey, wrap
from holdfast.cluster.seal.receiving import KeyReceiver
from holdfast.cluster.seal.shares import Shares
from holdfast.cluster.seal.sharing import ASK_CALL, DELIVER_CALL, OFFER_CALL, Delivery, KeyGiver, Result
from holdfast.proto.errors import (
    FailedPrecondition,
    Fatal,
    HoldfastError,
    InvalidArgument,
    NoLeader,
    Overloaded,
    PermissionDenied,
    Sealed,
)

NAMES = ("node-1", "node-2", "node-3")


class Node:
    """One of three nodes of a cluster: what holds the keys, gives and receives them."""

    def __init__(self, consensus: LocalConsensus, board: Switchboard, *, share: bool, ask: bool) -> None:
        self.consensus, self.name = consensus, consensus.node_id
        self.port: Port = board.port(self.name)
        self.clock = Clock(1000.0)
        self.handovers: list[tuple[str, str]] = []
        self.fatal: list[Fatal] = []
        self.distrusted: set[str] = set()
        self.lost_quorum = False
        self.share, self.ask = share, ask

    async def load(self) -> None:
        self.seal = await manager_of(self.consensus, seed=self.name)
        self.giver = KeyGiver(
            self.seal, self.consensus, self.port, node_id=self.name, share_with_peers=self.share, clock=self.clock,
            check=lambda: None, trusts=self.trusts,
            on_handover=lambda why, receiver, outcome: self.handovers.append((why, outcome)),
        )  # fmt: skip
        self.receiver = KeyReceiver(
            self.seal, self.consensus, self.port, node_id=self.name, ask=self.ask, clock=self.clock,
            lost_quorum=lambda: self.lost_quorum, random_bytes=stream(self.name + "r"), on_fatal=self.fatal.append,
        )  # fmt: skip
        self.receiver.start()

    async def trusts(self, node_id: str) -> bool:
        return node_id not in self.distrusted

    async def close(self) -> None:
        await self.receiver.stop()
        await self.seal.close()


class Three:
    """Three nodes; the first leads and is unsealed."""

    nodes: list[Node]
    shares: Shares

    async def asked_by_hand(self, giver: Node, receiver: Node, **changes: Any) -> bytes:
        request = PendingKey(
            cluster_id=giver.seal.status().cluster_id, receiver=receiver.name, random_bytes=stream("hand")
        ).request
        return await receiver.port.call(
            giver.name, ASK_CALL, msgspec.msgpack.encode(msgspec.structs.replace(request, **changes)), timeout_s=1
        )


def on_three(story: Callable[[Three], Awaitable[None]], *, share: bool = True, ask: bool = False) -> None:
    async def run() -> None:
        board, three = Switchboard(), Three()
        leader = LocalConsensus("node-1")
        consensuses = [leader]
        for name in NAMES[1:]:
            follower = LocalConsensus(name, role=Role.FOLLOWER, leader_id="node-1")
            leader.attach(follower)
            consensuses.append(follower)
        for consensus in consensuses:
            consensus.members = {
                name: Member(node_id=name, cluster_address=f"{name}:1", api_address=f"{name}:2") for name in NAMES
            }
        three.nodes = [Node(consensus, board, share=share, ask=ask) for consensus in consensuses]
        for node in three.nodes:
            await node.load()
        first = three.nodes[0]
        three.shares = await initialized(first.seal)
        await unsealed(first.seal, three.shares)
        try:
            async with asyncio.timeout(60):
                await until(lambda: all(node.seal.initialized for node in three.nodes))
                await story(three)
        finally:
            for node in three.nodes:
                await node.close()
        assert not any(node.fatal for node in three.nodes)

    asyncio.run(run())


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


# --- asking


def test_nodes_that_were_never_unsealed_ask_and_are_unsealed() -> None:
    async def story(three: Three) -> None:
        await until(lambda: not any(node.seal.sealed for node in three.nodes))
        first, second, _ = three.nodes
        assert first.handovers.count(("asked", "given")) == 2
        assert second.seal.barrier.physical("shared/x") == first.seal.barrier.physical("shared/x")

    on_three(story, ask=True)


def test_a_node_that_lost_its_quorum_asks_when_it_is_back_and_not_before() -> None:
    async def story(three: Three) -> None:
        await until(lambda: not any(node.seal.sealed for node in three.nodes))
        first, second, _ = three.nodes
        second.consensus.quorum_contact_age_s = 60
        second.lost_quorum = True
        second.seal.seal("contact lost")
        given = len(first.handovers)
        await asyncio.sleep(0.5)
        assert second.seal.sealed
        assert len(first.handovers) == given
        second.consensus.quorum_contact_age_s = 0
        await until(lambda: not second.seal.sealed)

    on_three(story, ask=True)


def test_a_node_that_people_sealed_does_not_ask() -> None:
    async def story(three: Three) -> None:
        await until(lambda: not any(node.seal.sealed for node in three.nodes))
        first, second, _ = three.nodes
        second.seal.seal("an operator sealed it")
        given = len(first.handovers)
        await asyncio.sleep(0.6)
        assert second.seal.sealed
        assert len(first.handovers) == given

    on_three(story, ask=True)


def test_a_node_that_is_not_to_share_refuses_and_the_others_stay_sealed() -> None:
    async def story(three: Three) -> None:
        first, second, _ = three.nodes
        await until(lambda: ("asked", "PERMISSION_DENIED") in first.handovers)
        with pytest.raises(PermissionDenied):
            await three.asked_by_hand(first, second)
        assert second.seal.sealed

    on_three(story, share=False, ask=True)


def refused(error: type[HoldfastError], prepare: Callable[[Three], None], **changes: Any) -> None:
    async def story(three: Three) -> None:
        prepare(three)
        first, second, _ = three.nodes
        with pytest.raises(error) as raised:
            await three.asked_by_hand(first, second, **changes)
        assert first.handovers == [("asked", raised.value.reason)]

    on_three(story)


def test_a_sealed_node_hands_nothing_over() -> None:
    refused(Sealed, lambda three: three.nodes[0].seal.seal("test"))


def test_a_node_without_quorum_hands_nothing_over() -> None:
    refused(NoLeader, lambda three: three.nodes[0].consensus.set_role(Role.CANDIDATE))


def test_who_is_no_member_any_more_is_refused() -> None:
    refused(PermissionDenied, lambda three: three.nodes[0].consensus.members.pop("node-2"))


def test_a_node_that_was_removed_itself_hands_nothing_over() -> None:
    refused(PermissionDenied, lambda three: three.nodes[0].consensus.members.pop("node-1"))


def test_another_cluster_is_refused() -> None:
    refused(PermissionDenied, lambda _: None, cluster_id="another")


def test_a_short_nonce_and_a_short_key_are_refused() -> None:
    refused(InvalidArgument, lambda _: None, nonce=b"short")
    refused(InvalidArgument, lambda _: None, public_key=b"short")


def test_a_node_that_is_sealed_while_it_waits_for_the_quorum_hands_nothing_over() -> None:
    async def story(three: Three) -> None:
        first, second, _ = three.nodes
        asked = asyncio.create_task(three.asked_by_hand(first, second))
        await asyncio.sleep(0)  # the request is under way: its read barrier takes a turn of the loop
        first.seal.seal("test")
        with pytest.raises(Sealed):
            await asked

    on_three(story)


def test_a_member_that_asks_too_often_waits_and_the_others_do_not() -> None:
    async def story(three: Three) -> None:
        first, second, third = three.nodes
        for _ in range(sharing.ASKS_MAX):
            await three.asked_by_hand(first, second)
        with pytest.raises(Overloaded):
            await three.asked_by_hand(first, second)
        await three.asked_by_hand(first, third)
        first.clock.now_s += sharing.ASKS_WINDOW_S + 1
        await three.asked_by_hand(first, second)

    on_three(story)


# --- one ceremony


def test_a_ceremony_unseals_every_member_without_anyone_being_configured_to_share() -> None:
    async def story(three: Three) -> None:
        first, *others = three.nodes
        assert await first.giver.unseal_members() == [
            Result("node-2", unsealed=True),
            Result("node-3", unsealed=True),
        ]
        assert not any(node.seal.sealed for node in others)
        assert first.handovers == [("ceremony", "given")] * 2
        assert await first.giver.unseal_members() == [
            Result("node-2", unsealed=True, already=True),
            Result("node-3", unsealed=True, already=True),
        ]

    on_three(story, share=False)


def test_a_ceremony_tells_of_each_node_that_it_could_not_unseal() -> None:
    async def story(three: Three) -> None:
        first, second, third = three.nodes
        first.port.down.add("node-2")
        third.consensus.quorum_contact_age_s = 60
        results = await first.giver.unseal_members()
        assert [(r.node_id, r.unsealed) for r in results] == [("node-2", False), ("node-3", False)]
        assert results[0].reason == "not delivered"
        assert "not in contact with a quorum" in results[1].reason
        assert second.seal.sealed
        assert third.seal.sealed

    on_three(story)


def test_a_stranger_cannot_offer_the_key() -> None:
    async def story(three: Three) -> None:
        first, second, _ = three.nodes
        del second.consensus.members["node-1"]
        for name in (OFFER_CALL, DELIVER_CALL):
            with pytest.raises(PermissionDenied):
                await first.port.call("node-2", name, b"", timeout_s=1)

    on_three(story)


def test_what_was_not_asked_for_twice_delivered_late_or_wrong_does_not_unseal() -> None:
    async def story(three: Three) -> None:
        first, second, third = three.nodes

        async def offer(giver: Node) -> KeyRequest:
            raw = await giver.port.call("node-2", OFFER_CALL, b"", timeout_s=1)
            request = msgspec.msgpack.decode(raw, type=sharing.Offered).request
            assert request is not None
            return request

        async def deliver(giver: Node, request: KeyRequest, key: bytes) -> None:
            wrapped = wrap(key, request, giver=giver.name, receiver="node-2")
            payload = msgspec.msgpack.encode(Delivery(request.nonce, wrapped))
            await giver.port.call("node-2", DELIVER_CALL, payload, timeout_s=1)

        key = first.seal.with_root_key(bytes)
        with pytest.raises(FailedPrecondition):  # offered to one, delivered by another
            await deliver(third, await offer(first), key)
        late = await offer(first)
        second.clock.now_s += 31
        with pytest.raises(FailedPrecondition):
            await deliver(first, late, key)
        old = await offer(first)
        await offer(first)
        with pytest.raises(FailedPrecondition):
            await deliver(first, old, key)
        with pytest.raises(FailedPrecondition, match="does not open this node's keyring"):
            await deliver(first, await offer(first), bytes(32))
        with pytest.raises(InvalidArgument):
            await first.port.call("node-2", DELIVER_CALL, b"?", timeout_s=1)
        assert second.seal.sealed
        await deliver(first, await offer(first), key)
        assert not second.seal.sealed

    on_three(story)


# --- the shares of a ceremony


def test_only_a_whole_threshold_given_for_the_cluster_counts() -> None:
    async def story(three: Three) -> None:
        second, third = three.nodes[1], three.nodes[2]
        one, two, last, *_ = three.shares.texts
        assert not await second.seal.unseal_for_cluster(one)
        await second.seal.unseal(two)
        assert not await second.seal.unseal_for_cluster(last)
        assert not second.seal.sealed, "the node itself had a threshold"
        for node in (second, third):  # an open node takes them too, and a sealed one
            assert [await node.seal.unseal_for_cluster(text) for text in (one, two, last)] == [False, False, True]
        assert not third.seal.sealed

    on_three(story)


def test_an_open_node_believes_no_forged_share() -> None:
    async def story(three: Three) -> None:
        first = three.nodes[0]
        one, two, *_ = three.shares.texts
        other = await initialized(await manager_of(LocalConsensus("elsewhere"), seed="other"))
        assert not await first.seal.unseal_for_cluster(one)
        assert not await first.seal.unseal_for_cluster(two)
        with pytest.raises(FailedPrecondition):
            await first.seal.unseal_for_cluster(other.texts[2])
        with pytest.raises(FailedPrecondition):
            await first.seal.unseal_for_cluster("garbage")

    on_three(story)


def test_a_member_that_is_not_trusted_is_given_the_key_neither_when_it_asks_nor_in_a_ceremony() -> None:
    async def story(three: Three) -> None:
        first, second, third = three.nodes
        first.distrusted = {third.name}
        with pytest.raises(PermissionDenied, match="join-token trust"):
            await three.asked_by_hand(first, third)
        results = {result.node_id: result for result in await first.giver.unseal_members()}
        assert results[second.name].unsealed
        assert not results[third.name].unsealed
        assert "join token" in results[third.name].reason
        assert third.seal.sealed

    on_three(story)
