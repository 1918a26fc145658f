"""Bringing a snapshot file to nodes, and letting go of it: from whom, what is refused, and who may still need it."""

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from support.snapshot_files import file_of

from holdfast.cluster.peer.calls import Handler
from holdfast.cluster.snapshot import distribution as distributing
from holdfast.cluster.snapshot import spool as spooling
from holdfast.cluster.snapshot.distribution import Distribution
from holdfast.cluster.snapshot.spool import Spool
from holdfast.proto.errors import Fatal, HoldfastError, InvalidArgument, NotFound, Overloaded, Unavailable
from holdfast.storage.home import Reception
from holdfast.storage.memoryhome import MemoryHome

FILE = file_of([(b"c\x00\x07keyring", b"k"), (b"l1", b"v" * 900_000), (b"s1", b"v")])
SHA256 = hashlib.sha256(FILE).digest()


class Net:
    """Calls between the nodes of a test."""

    def __init__(self) -> None:
        self.handlers: dict[tuple[str, str], Handler] = {}
        self.down: set[str] = set()


class Calls:
    """One node's end."""

    def __init__(self, net: Net, node_id: str) -> None:
        self.net, self.node_id = net, node_id

    def serve(self, name: str, handler: Handler) -> None:
        self.net.handlers[self.node_id, name] = handler

    async def call(self, node_id: str, name: str, payload: bytes, *, timeout_s: float) -> bytes:
        if node_id in self.net.down:
            raise Unavailable("down")
        return await self.net.handlers[node_id, name](self.node_id, payload)


class Peers:
    """As much of a consensus module's status as is looked at."""

    def __init__(self, members: str) -> None:
        class Member:
            def __init__(self, node_id: str) -> None:
                self.node_id = node_id

        class Peer:
            def __init__(self, node_id: str) -> None:
                self.member = Member(node_id)

        self.peers = tuple(Peer(name) for name in members)


class Contents:
    """A consensus module that keeps what was prepared."""

    def __init__(self, members: str) -> None:
        self.home = MemoryHome()
        self.members = members
        self.prepared: dict[bytes, Reception] = {}
        self.wanted = b""
        self.in_log: set[bytes] = set()
        self.on_content_wanted: Callable[[bytes], None] = lambda _sha256: None

    def status(self) -> Peers:
        return Peers(self.members)

    def stage_content(self) -> Reception:
        return self.home.stage()

    def prepare_content(self, sha256: bytes, content: Reception) -> None:
        self.prepared[sha256] = content

    def content_prepared(self, sha256: bytes) -> bool:
        return sha256 in self.prepared

    def give_up_content(self, sha256: bytes) -> Reception | None:
        return self.prepared.pop(sha256, None)

    def content_wanted(self) -> bytes:
        return self.wanted

    def content_in_log(self, sha256: bytes) -> bool:
        return sha256 in self.in_log


class Cluster:
    """Nodes "a", "b" and "c"."""

    def __init__(self, folder: Path) -> None:
        self.net = Net()
        self.fatal: list[Fatal] = []
        self.contents = {name: Contents("abc") for name in "abc"}
        self.nodes = {
            name: Distribution(
                self.contents[name],  # type: ignore[arg-type]
                Calls(self.net, name),
                Spool(folder / name),
                node_id=name,
                wall_clock=time.time,
                monotonic=time.monotonic,
                on_fatal=self.fatal.append,
            )
            for name in "abc"
        }

    def give(self, name: str, data: bytes = FILE, sha256: bytes = SHA256) -> None:
        """Put a file where a node keeps its own."""
        self.nodes[name].spool.path(sha256).write_bytes(data)


def run(tmp_path: Path, story: Callable[[Cluster], Awaitable[None]]) -> None:
    async def play() -> None:
        cluster = Cluster(tmp_path)
        try:
            await story(cluster)
        finally:
            for node in cluster.nodes.values():
                await node.stop()

    asyncio.run(play())


def test_a_file_is_fetched_from_the_first_that_has_it_whole_and_prepared(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.give("c")
        cluster.net.down.add("b")
        await cluster.nodes["a"].prepare(SHA256, ["b", "c"])
        assert cluster.nodes["a"].spool.path(SHA256).read_bytes() == FILE
        store = cluster.contents["a"].prepared[SHA256].open()
        assert [key for key, _ in store.scan(b"d", b"e")] == [b"dc\x00\x07keyring", b"dl1", b"ds1"]
        await cluster.nodes["a"].prepare(SHA256, [])  # it is prepared already

    run(tmp_path, story)


def test_a_file_that_is_damaged_or_another_one_is_not_kept(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        damaged = bytearray(FILE)
        damaged[300_000] ^= 1
        cluster.give("b", bytes(damaged))
        cluster.give("c", file_of([(b"s1", b"other")]))
        for holder in "bc":
            with pytest.raises(InvalidArgument):
                await cluster.nodes["a"].prepare(SHA256, [holder])
        with pytest.raises(NotFound):
            await cluster.nodes["a"].prepare(SHA256, [])
        assert not list((tmp_path / "a").iterdir())
        assert not cluster.contents["a"].prepared

    run(tmp_path, story)


def test_a_file_that_was_damaged_since_it_came_is_fetched_again(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        damaged = bytearray(FILE)
        damaged[300_000] ^= 1
        cluster.give("a", bytes(damaged))
        cluster.give("b")
        with pytest.raises(InvalidArgument):
            await cluster.nodes["a"].prepare(SHA256, ["b"])
        await cluster.nodes["a"].prepare(SHA256, ["b"])
        assert cluster.contents["a"].content_prepared(SHA256)

    run(tmp_path, story)


def test_a_disk_without_room_refuses_and_the_node_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.give("b")
        monkeypatch.setattr(spooling, "ROOM_BYTES_MIN", 1 << 62)
        with pytest.raises(Overloaded, match="make room"):
            await cluster.nodes["a"].prepare(SHA256, ["b"])
        assert not cluster.fatal

    run(tmp_path, story)


def test_a_node_that_waits_for_content_goes_on_until_a_member_has_it(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        contents = cluster.contents["a"]
        contents.wanted = SHA256
        with pytest.raises(Unavailable, match="another restore"):
            await cluster.nodes["a"].prepare(b"x" * 32, ["b"])
        contents.on_content_wanted(SHA256)
        await asyncio.sleep(0.05)
        assert not contents.prepared
        cluster.give("b")
        for _ in range(600):
            if contents.prepared:
                break
            await asyncio.sleep(0.05)
        assert contents.content_prepared(SHA256)

    run(tmp_path, story)


@pytest.mark.parametrize("who", ["a", "b"])
def test_a_file_stays_while_a_log_may_lead_to_it_or_a_member_does_not_answer(tmp_path: Path, who: str) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.give("a")
        spool = cluster.nodes["a"].spool
        await cluster.nodes["a"].sweep()
        assert spool.use(SHA256), "it is young"
        cluster.contents[who].in_log.add(SHA256)
        await cluster.nodes["a"].sweep(age_s_min=-60)
        assert spool.use(SHA256)
        cluster.contents[who].in_log.clear()
        cluster.net.down.add("c")
        await cluster.nodes["a"].sweep(age_s_min=-60)
        assert spool.use(SHA256)
        cluster.net.down.clear()
        await cluster.nodes["a"].sweep(age_s_min=-60)
        assert not spool.use(SHA256)

    run(tmp_path, story)


def test_content_without_its_file_does_not_count_as_prepared(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.give("b")
        node = cluster.nodes["a"]
        await node.prepare(SHA256, ["b"])
        node.spool.remove(SHA256)
        with pytest.raises(NotFound):
            await node.prepare(SHA256, [])
        await node.prepare(SHA256, ["b"])
        assert node.spool.use(SHA256), "a restart would find it"

    run(tmp_path, story)


def test_a_file_that_is_used_while_the_others_are_asked_stays(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.give("a")
        node = cluster.nodes["a"]
        os.utime(node.spool.path(SHA256), (1, 1))
        asked = cluster.net.handlers["b", "snapshot.needed"]

        async def used_meanwhile(caller: str, payload: bytes) -> bytes:
            await node.prepare(SHA256, [])
            return await asked(caller, payload)

        cluster.net.handlers["b", "snapshot.needed"] = used_meanwhile
        await node.sweep()
        assert node.spool.use(SHA256)

    run(tmp_path, story)


def test_what_a_restore_that_came_to_nothing_has_made_goes_with_its_file(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.give("a")
        node = cluster.nodes["a"]
        await node.prepare(SHA256, [])
        await node.sweep(age_s_min=-60)
        assert not node.spool.use(SHA256)
        assert not cluster.contents["a"].prepared

    run(tmp_path, story)


def test_a_disk_that_fills_while_a_file_comes_keeps_room_for_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.give("b")
        node = cluster.nodes["a"]
        came: list[int] = []

        def full(size: int) -> None:
            came.append(size)
            raise Overloaded("make room")

        monkeypatch.setattr(node.spool, "check_room", full)
        with pytest.raises(Overloaded, match="make room"):
            await node.fetch(SHA256, ["b"])
        assert len(came) == 1, "it is looked at before the first part is written"
        assert not list((tmp_path / "a").iterdir())

    run(tmp_path, story)


def test_a_file_that_cannot_be_read_leaves_nothing_staged_and_the_node_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.give("a")
        node, contents = cluster.nodes["a"], cluster.contents["a"]
        discarded: list[bool] = []

        class Staged:
            def __init__(self, inner: Reception) -> None:
                self.open = inner.open

            def discard(self) -> None:
                discarded.append(True)

        def broken(_store: object, _records: object) -> Iterator[int]:
            raise OSError(5, "Input/output error")
            yield 0

        monkeypatch.setattr(contents, "stage_content", lambda: Staged(contents.home.stage()))
        monkeypatch.setattr(distributing, "fill", broken)
        with pytest.raises(Unavailable, match="Input/output error"):
            await node.prepare(SHA256, [])
        assert discarded

    run(tmp_path, story)


def test_what_never_became_whole_is_gone_after_a_restart(tmp_path: Path) -> None:
    Spool(tmp_path / "spool")
    (tmp_path / "spool" / "7.partial").write_bytes(b"half")
    Spool(tmp_path / "spool")
    assert not list((tmp_path / "spool").iterdir())


def test_calls_of_no_known_form_are_refused(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        for name in ("snapshot.fetch", "snapshot.prepare"):
            with pytest.raises(HoldfastError, match="unknown form"):
                await Calls(cluster.net, "b").call("a", name, b"\xc1", timeout_s=1)

    run(tmp_path, story)
