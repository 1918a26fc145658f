"""A node that was removed drops its keys, and does not keep any that it is given afterwards."""

import asyncio

from support.local_consensus import LocalConsensus
from support.seal_rig import initialized, manager_of, unsealed

from holdfast.cluster.raft.consensus import Member
from holdfast.cluster.seal.removal_guard import REASON, RemovalGuard
from holdfast.storage.batch import Batch, Put


def test_a_node_that_its_log_does_not_name_yet_may_be_unsealed() -> None:
    async def story() -> None:
        consensus = LocalConsensus()
        consensus.members["node-2"] = Member(node_id="node-2", cluster_address="h:1", api_address="h:2")
        seal = await manager_of(consensus)
        shares = await initialized(seal)
        del consensus.members[consensus.node_id]
        guard = RemovalGuard(seal, consensus)
        guard.start()
        await unsealed(seal, shares)
        await consensus.propose(Batch(puts=(Put(b"k", b"v"),)), timeout_s=5)
        assert not seal.sealed
        guard.stop()
        await seal.close()

    asyncio.run(story())


def test_a_removed_node_seals_itself_and_a_member_does_not() -> None:
    async def story() -> None:
        consensus = LocalConsensus()
        consensus.members["node-2"] = Member(node_id="node-2", cluster_address="h:1", api_address="h:2")
        seal = await manager_of(consensus)
        shares = await initialized(seal)
        guard = RemovalGuard(seal, consensus)
        guard.start()
        await unsealed(seal, shares)
        await consensus.propose(Batch(puts=(Put(b"k", b"v"),)), timeout_s=5)
        assert not seal.sealed
        del consensus.members[consensus.node_id]
        await consensus.propose(Batch(puts=(Put(b"k", b"w"),)), timeout_s=5)
        assert seal.sealed
        assert seal.status().last_seal_reason == REASON
        for text in shares.texts[: shares.threshold]:
            await seal.unseal(text)
        assert seal.sealed
        guard.stop()
        await seal.close()

    asyncio.run(story())
