"""RaftNodes in one event loop, joined by links that deliver in the next turn of the loop."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping

from support.raft_rig import members

from holdfast.cluster.peer.links import OnMessage, OnSession
from holdfast.cluster.raft.consensus import Member
from holdfast.cluster.raft.node import RaftNode
from holdfast.cluster.raft.timing import Limits, Timing
from holdfast.proto.errors import Fatal, Unavailable
from holdfast.storage.memory import MemoryStore
from holdfast.storage.memoryhome import MemoryHome

DEADLINE_S = 30.0


class LoopLinks:
    """One node's end of the links."""

    def __init__(self, network: LoopNetwork, node_id: str) -> None:
        self.network = network
        self.node_id = node_id
        self.wanted: set[str] = set()
        self.sessions: set[str] = set()

    def bind(self, *, on_message: OnMessage, on_connected: OnSession, on_disconnected: OnSession) -> None:
        self.on_message, self.on_connected, self.on_disconnected = on_message, on_connected, on_disconnected
        self.network.ends[self.node_id] = self
        self.network.settle()

    def set_peers(self, peers: Mapping[str, str], guests: Collection[str] = ()) -> None:
        self.wanted = set(peers)
        self.network.settle()

    def send(self, node_id: str, payload: bytes) -> bool:
        if node_id not in self.sessions:
            return False
        asyncio.get_running_loop().call_soon(self.network.deliver, self.node_id, node_id, payload)
        return True


class LoopNetwork:
    """Who can reach whom."""

    def __init__(self) -> None:
        self.ends: dict[str, LoopLinks] = {}
        self.cut: set[str] = set()
        self._settling = False

    def deliver(self, sender: str, receiver: str, payload: bytes) -> None:
        end = self.ends.get(receiver)
        if end is not None and sender in self.ends and receiver in self.ends[sender].sessions:
            end.on_message(sender, payload)

    def settle(self) -> None:
        """Bring sessions up and down as the nodes' wishes and the cuts say, in the next turn of the loop."""
        if not self._settling:
            self._settling = True
            asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        self._settling = False
        for a in sorted(self.ends):
            for b in sorted(self.ends):
                if a != b:
                    self._settle_session(self.ends[a], b)

    def _settle_session(self, dialler: LoopLinks, peer: str) -> None:
        """A session carries one way: from who dials to a node that knows the dialler or is in no cluster yet."""
        receiver = self.ends[peer]
        welcome = dialler.node_id in receiver.wanted or not receiver.wanted
        wanted = peer in dialler.wanted and welcome and not {peer, dialler.node_id} & self.cut
        if wanted and peer not in dialler.sessions:
            dialler.sessions.add(peer)
            dialler.on_connected(peer)
        elif not wanted and peer in dialler.sessions:
            dialler.sessions.discard(peer)
            dialler.on_disconnected(peer)

    def isolate(self, *node_ids: str) -> None:
        """Cut these nodes off from everyone; nobody when none is named."""
        self.cut = set(node_ids)
        self.settle()

    def gone(self, node_id: str) -> None:
        """The node's process ended."""
        self.ends.pop(node_id, None)
        for _, other in sorted(self.ends.items()):
            if node_id in other.sessions:
                other.sessions.discard(node_id)
                other.on_disconnected(node_id)


class LoopCluster:
    """A cluster whose nodes are named by letters."""

    def __init__(self, initial: str, *, limits: Limits | None = None, timing: Timing | None = None) -> None:
        self.initial = members(initial)
        self.limits = limits
        self.timing = timing
        self.network = LoopNetwork()
        self.stores: dict[str, tuple[MemoryStore, MemoryHome]] = {}
        self.nodes: dict[str, RaftNode] = {}
        self.fatal: dict[str, Fatal] = {}

    async def start(self, node_id: str, *, initial: tuple[Member, ...] | None = None) -> RaftNode:
        """Start a node, on the stores it had before if it ran before."""
        journal_store, state = self.stores.setdefault(node_id, (MemoryStore(), MemoryHome()))
        node = RaftNode(
            member=members(node_id)[0],
            initial_members=self.initial if initial is None else initial,
            journal_store=journal_store,
            state=state,
            links=LoopLinks(self.network, node_id),
            clock=time.monotonic,
            rng=random.Random(node_id),
            on_fatal=lambda error: self.fatal.__setitem__(node_id, error),
            limits=self.limits,
            timing=self.timing,
        )
        node.set_eligible(eligible=True)
        self.nodes[node_id] = node
        await node.start()
        return node

    async def start_all(self) -> None:
        for member in self.initial:
            await self.start(member.node_id)

    async def kill(self, node_id: str) -> None:
        """End a node as a loss of power does."""
        node = self.nodes.pop(node_id)
        self.network.gone(node_id)
        await node.stop()
        journal_store, state = self.stores[node_id]
        self.stores[node_id] = (journal_store.crash(), state.crash())

    async def stop(self) -> None:
        for node in self.nodes.values():
            await node.stop()

    async def leader(self) -> RaftNode:
        """The ready leader whom a majority follows."""
        found: list[RaftNode] = []

        def one_leads() -> bool:
            statuses = [(node, node.status()) for node in self.nodes.values()]
            found[:] = [node for node, status in statuses if status.ready]
            return len(found) == 1

        await until(one_leads)
        return found[0]

    async def everywhere(self, key: bytes, value: bytes) -> None:
        """Wait until every running node's own state holds the record."""
        for node in self.nodes.values():
            await until_async(lambda node=node: _holds(node, key, value))  # type: ignore[misc]


async def _holds(node: RaftNode, key: bytes, value: bytes) -> bool:
    record = await node.get(key)
    return record is not None and record.value == value


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline that only a failure reaches."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "the condition did not come about"
        await asyncio.sleep(0.005)


async def until_async(condition: Callable[[], Awaitable[bool]]) -> None:
    """As `until`, for a condition that is awaited. Unavailable counts as "not yet"."""
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            if await condition():
                return
        except Unavailable:
            pass
        assert time.monotonic() < end, "the condition did not come about"
        await asyncio.sleep(0.005)
