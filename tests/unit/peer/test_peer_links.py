"""Raft's links: messages in order, sessions that come back, the newest session counts, limits, and a clean end."""

import asyncio
import contextlib
import gc
import os
import shutil
import ssl
from pathlib import Path

import pytest
from support.peers import Certs, Stranger, closed_port, cluster, eventually, impostor, node, run, stranger

from holdfast.cluster.peer.frames import RAFT_FRAME_BYTES_MAX
from holdfast.cluster.peer.network import PeerNetwork
from holdfast.cluster.peer.session import Opening
from holdfast.cluster.peer.settings import PeerLimits
from holdfast.cluster.peer.tls import Kind
from holdfast.proto.errors import FailedPrecondition, InvalidArgument
from holdfast.server.certs import issue_node

WELCOME = Opening.WELCOME.value


def test_messages_reach_every_peer_in_order_under_the_senders_own_name(certs: Certs, loop: str) -> None:
    async def main() -> None:
        async with cluster(certs, "node-1", "node-2", "node-3") as nodes:
            sent = [b"%d" % i * (i % 50) for i in range(500)]
            for sender in nodes:
                for receiver in nodes:
                    if sender is not receiver:
                        assert all(sender.network.send(receiver.node_id, payload) for payload in sent)
            for receiver in nodes:
                await eventually(lambda receiver=receiver: len(receiver.messages) == 1000)
                for sender in nodes:
                    if sender is not receiver:
                        got = [payload for peer, payload in receiver.messages if peer == sender.node_id]
                        assert got == sent

    run(main, loop)


def test_one_message_over_the_write_buffer_arrives_whole(certs: Certs, loop: str) -> None:
    async def main() -> None:
        large = os.urandom(1 << 20) * 40
        async with cluster(certs, "node-1", "node-2", limits=PeerLimits(write_buffer_bytes=1000)) as (one, two):
            assert one.network.send("node-2", large)
            await eventually(lambda: two.messages)
            assert two.messages == [("node-1", large)]

    run(main, loop)


def test_a_message_over_the_frame_limit_is_refused_before_it_is_sent(certs: Certs) -> None:
    async def main() -> None:
        async with cluster(certs, "node-1", "node-2") as (one, _):
            with pytest.raises(ValueError, match="limit"):
                one.network.send("node-2", bytes(RAFT_FRAME_BYTES_MAX + 1))
            assert one.connected("node-2")

    run(main)


def test_sending_without_a_session_says_so(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1") as one:
            one.network.set_peers({"node-2": closed_port()})
            assert not one.network.send("node-2", b"x")
            assert not one.network.send("node-9", b"x")
            await eventually(lambda: one.network.stats().dial_failures.get("connection_refused", 0) >= 2)

    run(main)


def test_a_peer_that_restarts_is_found_again(certs: Certs, loop: str) -> None:
    async def main() -> None:
        async with node(certs, "node-1") as one:
            async with node(certs, "node-2") as two:
                address = two.network.address
                one.network.set_peers({"node-2": address})
                two.network.set_peers({"node-1": one.network.address})
                await eventually(lambda: one.connected("node-2") and two.connected("node-1"))
            await eventually(lambda: not one.connected("node-2"))
            assert not one.network.send("node-2", b"lost")
            async with node(certs, "node-2", bind=address) as two:
                two.network.set_peers({"node-1": one.network.address})
                await eventually(lambda: one.connected("node-2") and two.connected("node-1"))
                assert one.network.send("node-2", b"again")
                await eventually(lambda: two.messages)
                assert two.messages == [("node-1", b"again")]

    run(main, loop)


def test_a_peer_that_moves_is_dialled_at_its_new_address(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1") as one:
            one.network.set_peers({"node-2": closed_port()})
            async with node(certs, "node-2") as two:
                two.network.set_peers({"node-1": one.network.address})
                one.network.set_peers({"node-2": two.network.address})
                await eventually(lambda: one.connected("node-2"))
                async with node(certs, "node-2") as moved:
                    moved.network.set_peers({"node-1": one.network.address})
                    one.network.set_peers({"node-2": moved.network.address})
                    assert not one.network.send("node-2", b"to the old address")
                    await eventually(lambda: one.events.count(("up", "node-2")) == 2)
                    assert one.network.send("node-2", b"hello")
                    await eventually(lambda: moved.messages)
                    assert moved.messages == [("node-1", b"hello")]
                    assert two.messages == []

    run(main)


def test_an_address_that_is_no_host_name_does_not_end_the_link(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1") as one, node(certs, "node-2", allow=lambda *_: True) as two:
            one.network.set_peers({"node-2": "a" * 64 + ".test:8201"})
            await eventually(lambda: one.network.stats().dial_failures.get("address", 0) >= 2)
            one.network.set_peers({"node-2": two.network.address})
            await eventually(lambda: one.connected("node-2"))

    run(main)


def test_peers_that_are_dropped_lose_their_sessions_in_both_directions(certs: Certs) -> None:
    async def main() -> None:
        async with cluster(certs, "node-1", "node-2") as (one, two):
            one.network.set_peers({})
            await eventually(lambda: not one.connected("node-2") and not two.connected("node-1"))
            assert not one.network.send("node-2", b"x")
            await eventually(lambda: two.network.stats().dial_failures.get("not_a_member"))
            one.network.set_peers({"node-2": two.network.address})
            await eventually(lambda: one.connected("node-2") and two.connected("node-1"))

    run(main)


def test_a_node_is_never_its_own_peer(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda *_: True) as one:
            one.network.set_peers({"node-1": one.network.address})
            assert one.network._raft_links == {}
            async with stranger(one.network.address, certs.context("node-1", Kind.RAFT)) as twin:
                assert await twin.frame() == Opening.NOT_A_MEMBER.value

    run(main)


def test_the_newest_session_of_a_peer_mutes_and_closes_the_older(certs: Certs, loop: str) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda *_: True) as one:
            context = certs.context("node-2", Kind.RAFT)
            async with stranger(one.network.address, context) as old, stranger(one.network.address, context) as new:
                assert await old.frame() == WELCOME
                assert await new.frame() == WELCOME
                for i in range(100):
                    old.send(b"old %d" % i)
                new.send(b"new")
                await old.ended()
                await eventually(lambda: one.messages)
                assert one.messages == [("node-2", b"new")]
                stats = one.network.stats()
                assert stats.closed == {"superseded": 1}
                assert stats.sessions_incoming == 1

    run(main, loop)


def test_an_older_connection_that_finishes_tls_later_does_not_displace_the_newer(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda *_: True) as one:
            context = certs.context("node-2", Kind.RAFT)
            async with stranger(one.network.address) as old:
                await eventually(lambda: one.network.stats().handshakes == 1)
                async with stranger(one.network.address, context) as new:
                    assert await new.frame() == WELCOME
                    await old.writer.start_tls(context, server_hostname="")
                    await old.ended()
                    new.send(b"still here")
                    await eventually(lambda: one.messages)
                    assert one.network.stats().refusals == {"superseded": 1}

    run(main)


def test_a_message_that_consensus_calls_malformed_costs_the_peer_both_sessions(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1") as one, node(certs, "node-2") as two:

            def judge(peer: str, payload: bytes) -> None:
                raise ValueError(payload)

            events: list[str] = []
            network = PeerNetwork(node_id="node-3", bind="127.0.0.1:0", tls=certs.tls("node-3"))
            network.bind(on_message=judge, on_connected=events.append, on_disconnected=lambda peer: events.append("-"))
            await network.start()
            one.network.set_peers({"node-3": network.address})
            two.network.set_peers({"node-3": network.address})
            network.set_peers({"node-1": one.network.address, "node-2": two.network.address})
            await eventually(lambda: one.connected("node-3") and two.connected("node-3") and len(events) == 2)
            assert one.network.send("node-3", b"nonsense")
            await eventually(lambda: ("down", "node-3") in one.events and events.count("node-1") == 2)
            assert events.count("-") == 1
            assert two.events == [("up", "node-3")]
            await network.stop()

    run(main)


def test_a_peer_that_stops_reading_is_dropped_at_the_buffer_limit(certs: Certs, loop: str) -> None:
    async def main() -> None:
        async def deaf(peer: Stranger) -> None:
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            peer.send(WELCOME)
            await asyncio.Event().wait()

        async with (
            impostor(certs.context("node-2", Kind.RAFT, server=True), deaf) as address,
            node(certs, "node-1", limits=PeerLimits(write_buffer_bytes=1 << 20)) as one,
        ):
            one.network.set_peers({"node-2": address})
            await eventually(lambda: one.connected("node-2"))
            payload = bytes(1 << 19)
            sent = 0
            while one.network.send("node-2", payload):
                sent += 1
                await asyncio.sleep(0)
            assert sent >= 2
            assert not one.network.send("node-2", b"after")
            await eventually(lambda: not one.connected("node-2"))
            assert one.network.stats().closed["buffer_full"] == 1

    run(main, loop)


def test_raft_sessions_wait_until_consensus_is_bound(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1") as one:
            network = PeerNetwork(node_id="node-2", bind="127.0.0.1:0", tls=certs.tls("node-2"))
            network.set_peers({"node-1": one.network.address})
            await network.start()
            one.network.set_peers({"node-2": network.address})
            await eventually(lambda: one.network.stats().dial_failures.get("not_ready"))
            got: list[bytes] = []
            network.bind(on_message=lambda _, m: got.append(m), on_connected=lambda _: None,
                         on_disconnected=lambda _: None)  # fmt: skip
            await eventually(lambda: one.connected("node-2"))
            one.network.send("node-2", b"now")
            await eventually(lambda: got == [b"now"])
            await network.stop()

    run(main)


def test_stopping_leaves_no_task_socket_or_file_behind(certs: Certs, loop: str) -> None:
    def open_files() -> set[str]:
        gc.collect()
        links = set()
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the listing's own
                links.add(os.readlink(f"/proc/self/fd/{name}"))
        return {link for link in links if link.startswith("socket:")}

    async def main() -> None:
        await asyncio.sleep(0)
        before = open_files()
        async with cluster(certs, "node-1", "node-2") as (one, two):
            two.network.serve("echo", lambda _, payload: asyncio.sleep(0, payload))
            assert await one.network.call("node-2", "echo", b"x", timeout_s=30) == b"x"
            async with stranger(one.network.address), stranger(two.network.address):
                await eventually(lambda: one.network.stats().handshakes + two.network.stats().handshakes == 2)
                await one.network.stop()
                await one.network.stop()
                assert one.network.stats().sessions_incoming == one.network.stats().sessions_outgoing == 0
                assert one.network._sessions == set()
        await eventually(lambda: open_files() == before)
        assert not one.network.send("node-2", b"x")

    run(main, loop)


def test_new_certificates_count_for_new_sessions(certs: Certs, tmp_path: Path) -> None:
    async def main() -> None:
        for name in ("node-1.crt", "node-1.key"):
            shutil.copy2(certs.good / name, tmp_path / name)
        async with node(certs, "node-1", tls=certs.tls("node-1", tmp_path), allow=lambda *_: True) as one:
            context = certs.context("node-2", Kind.RAFT)
            async with stranger(one.network.address, context) as before:
                first = before.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                assert await before.frame() == WELCOME
                (tmp_path / "node-1.key").write_bytes(b"half a key")
                with pytest.raises(FailedPrecondition, match="private key"):
                    one.network.reload_certificates()
                for name in ("ca.crt", "ca.key"):
                    shutil.copy2(certs.good / name, tmp_path / name)
                for name in ("node-1.crt", "node-1.key"):
                    (tmp_path / name).unlink()
                issue_node(tmp_path, "node-1")
                one.network.reload_certificates()
                async with stranger(one.network.address, certs.context("node-3", Kind.RAFT)) as after:
                    assert await after.frame() == WELCOME
                    second = after.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                    assert first != second
                    before.send(b"the open session stays")
                    await eventually(lambda: one.messages)

    run(main)


def test_unfit_settings_are_refused_at_once_and_say_what_to_do(certs: Certs, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        PeerNetwork(node_id="node-1", bind="nowhere", tls=certs.tls("node-1"))
    assert caught.value.field == "cluster.bind"
    with pytest.raises(FailedPrecondition, match="node id"):
        PeerNetwork(node_id="node-2", bind="127.0.0.1:0", tls=certs.tls("node-1"))
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        PeerNetwork(node_id="node-4", bind="127.0.0.1:0", tls=certs.tls("node-4"))
    mixed = certs.tls("node-1")
    with pytest.raises(FailedPrecondition, match="private key"):
        PeerNetwork(node_id="node-1", bind="127.0.0.1:0", tls=type(mixed)(
            mixed.cert_file, certs.good / "node-2.key", mixed.ca_file))  # fmt: skip
    (tmp_path / "ca.crt").write_text("nothing")
    with pytest.raises(FailedPrecondition, match="CA"):
        PeerNetwork(node_id="node-1", bind="127.0.0.1:0", tls=type(mixed)(
            mixed.cert_file, mixed.key_file, tmp_path / "ca.crt"))  # fmt: skip


def test_a_port_that_is_taken_is_a_clear_error(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1") as one:
            second = PeerNetwork(node_id="node-2", bind=one.network.address, tls=certs.tls("node-2"))
            with pytest.raises(FailedPrecondition, match="cannot be opened"):
                await second.start()

    run(main)


def test_the_port_speaks_tls_1_3_only(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda *_: True) as one:
            old = certs.context("node-2", Kind.RAFT)
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with stranger(one.network.address, old):
                    pass
            async with stranger(one.network.address, certs.context("node-2", Kind.RAFT)) as new:
                assert new.writer.get_extra_info("ssl_object").version() == "TLSv1.3"

    run(main)
