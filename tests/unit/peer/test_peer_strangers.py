"""The peer port and those who have no business there: nothing they do has an effect, beyond a line in the log."""

import asyncio
import contextlib
import pickle
import ssl
import zlib
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.peers import Certs, Node, Stranger, cluster, eventually, impostor, node, run, stranger

from holdfast.cluster.peer.frames import CALL_FRAME_BYTES_MAX, RAFT_FRAME_BYTES_MAX
from holdfast.cluster.peer.session import Opening
from holdfast.cluster.peer.settings import PeerLimits
from holdfast.cluster.peer.tls import Kind, PeerTls
from holdfast.cluster.peer.wire import Cancel, Reply, encode_message
from holdfast.proto.errors import Unavailable

WELCOME = Opening.WELCOME.value


async def turned_away(member: Node, context: ssl.SSLContext | None, payload: bytes = b"hello") -> None:
    """Connect, send, and wait until the node has closed."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        async with stranger(member.network.address, context) as visitor:
            visitor.send(payload)
            assert await visitor.frame() != WELCOME
            await visitor.ended()


@pytest.mark.parametrize("kind", list(Kind))
def test_a_certificate_of_another_ca_gets_no_session(certs: Certs, kind: Kind, loop: str) -> None:
    async def main() -> None:
        async with cluster(certs, "node-1", "node-3") as (one, _):
            await turned_away(one, certs.context("node-2", kind, certs.foreign))
            await eventually(lambda: one.network.stats().refusals == {"certificate": 1})
            assert one.messages == []
            assert one.connected("node-3")

    run(main, loop)


def test_a_certificate_that_has_expired_gets_no_session(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda *_: True) as one:
            await turned_away(one, certs.context("node-2", Kind.RAFT, certs.expired))
            await eventually(lambda: one.network.stats().refusals == {"certificate": 1})
            assert one.messages == []

    run(main)


def test_no_certificate_gets_no_session(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda *_: True) as one:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols([Kind.RAFT.value])
            await turned_away(one, context)
            await eventually(lambda: sum(one.network.stats().refusals.values()) == 1)
            assert one.messages == []

    run(main)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_node_of_the_ca_that_is_no_member_is_refused_and_told_so(certs: Certs, kind: Kind) -> None:
    async def main() -> None:
        async with node(certs, "node-1") as one:
            async with stranger(one.network.address, certs.context("node-2", kind)) as visitor:
                visitor.send(b"let me in")
                assert await visitor.frame() == Opening.NOT_A_MEMBER.value
                await visitor.ended()
            await eventually(lambda: one.network.stats().closed)
            assert one.network.stats().refusals == {"not_a_member": 1}
            assert one.messages == []

    run(main)


def test_a_guest_may_send_rafts_messages_but_no_calls(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda _, kind: kind is Kind.RAFT) as one:
            for _ in range(2):
                async with stranger(one.network.address, certs.context("node-2", Kind.RAFT)) as visitor:
                    assert await visitor.frame() == WELCOME
                async with stranger(one.network.address, certs.context("node-2", Kind.CALL)) as visitor:
                    assert await visitor.frame() == Opening.NOT_A_MEMBER.value
                one.network.set_peers({"node-2": "127.0.0.1:1"}, guests={"node-2"})
            async with stranger(one.network.address, certs.context("node-2", Kind.RAFT)) as raft:
                assert await raft.frame() == WELCOME
                one.network.set_peers({"node-2": "127.0.0.1:1"})
                async with stranger(one.network.address, certs.context("node-2", Kind.CALL)) as visitor:
                    assert await visitor.frame() == WELCOME
                    one.network.set_peers({"node-2": "127.0.0.1:1"}, guests={"node-2"})
                    await visitor.ended()

    run(main)


def test_the_allow_hook_lets_a_joining_node_in(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda node_id, _: node_id == "node-2") as one:
            async with stranger(one.network.address, certs.context("node-2", Kind.RAFT)) as visitor:
                assert await visitor.frame() == WELCOME
                visitor.send(b"hello")
                await eventually(lambda: one.messages == [("node-2", b"hello")])
            async with stranger(one.network.address, certs.context("node-3", Kind.RAFT)) as visitor:
                assert await visitor.frame() == Opening.NOT_A_MEMBER.value

    run(main)


def test_whoever_dials_is_told_the_lineage_whether_welcome_or_not(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda node_id, _: node_id == "node-2", lineage=lambda: b"l1") as one:
            for visitor_id, opening in (("node-2", Opening.WELCOME), ("node-3", Opening.NOT_A_MEMBER)):
                async with stranger(one.network.address, certs.context(visitor_id, Kind.RAFT)) as visitor:
                    assert await visitor.frame() == opening.value + b"l1"

    run(main)


@pytest.mark.parametrize("opening", [Opening.WELCOME, Opening.NOT_A_MEMBER])
def test_a_dialled_peer_is_judged_by_its_lineage_before_anything_is_sent(certs: Certs, opening: Opening) -> None:
    async def main() -> None:
        async def other(peer: Stranger) -> None:
            peer.send(opening.value + b"l2")
            await peer.ended()

        judged: list[tuple[str, bytes]] = []

        def judge(peer: str, lineage: bytes) -> bool:
            judged.append((peer, lineage))
            return False

        context = certs.context("node-2", Kind.RAFT, server=True)
        async with impostor(context, other) as address, node(certs, "node-1", judge=judge) as one:
            one.network.set_peers({"node-2": address})
            await eventually(lambda: one.network.stats().dial_failures.get("other_lineage"))
            assert judged[0] == ("node-2", b"l2")
            assert one.events == []

    run(main)


@pytest.mark.parametrize("alpn", [None, "http/1.1"])
def test_another_protocol_is_refused(certs: Certs, alpn: str | None) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda *_: True) as one:
            context = certs.context("node-2", None)
            if alpn is not None:
                context.set_alpn_protocols([alpn])
            await turned_away(one, context)
            await eventually(lambda: one.network.stats().refusals == {"protocol": 1})

    run(main)


def test_a_plain_tcp_stranger_is_closed_whatever_it_sends(certs: Certs, loop: str) -> None:
    class Opened:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (marker,))

    marker = certs.good.parent / "code-ran"
    pickled = zlib.compress(pickle.dumps("readonly"))
    harmful = pickle.dumps(Opened())
    garbage = [
        b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64, b"\xff" * 4096, pickle.dumps("readonly"), pickled,
        len(pickled).to_bytes(4, "little") + pickled, len(pickled).to_bytes(4, "big") + pickled,
        harmful, len(harmful).to_bytes(4, "big") + harmful, zlib.compress(harmful),
    ]  # fmt: skip

    async def main() -> None:
        async with node(certs, "node-1", limits=PeerLimits(handshake_timeout_s=0.2)) as one:
            for content in garbage:
                async with stranger(one.network.address) as visitor:
                    visitor.writer.write(content)
                    received = b""
                    with contextlib.suppress(ConnectionError):
                        received = await visitor.reader.read()
                    assert len(received) < 16, "at most a TLS alert"
            await eventually(lambda: sum(one.network.stats().refusals.values()) == len(garbage))
            assert one.messages == []

    run(main, loop)
    assert not marker.exists()


def test_a_members_pickle_is_bytes_like_any_other(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda *_: True) as one:
            payload = pickle.dumps("readonly")
            async with stranger(one.network.address, certs.context("node-2", Kind.RAFT)) as visitor:
                visitor.send(payload)
                await eventually(lambda: one.messages == [("node-2", payload)])
            async with stranger(one.network.address, certs.context("node-2", Kind.CALL)) as visitor:
                assert await visitor.frame() == WELCOME
                visitor.send(payload)
                assert await visitor.frame() == b""
            await eventually(lambda: one.network.stats().closed.get("malformed") == 1)

    run(main)


def test_a_stranger_who_says_nothing_is_closed_after_a_while(certs: Certs, loop: str) -> None:
    async def main() -> None:
        async with node(certs, "node-1", limits=PeerLimits(handshake_timeout_s=0.05)) as one:
            async with stranger(one.network.address) as visitor:
                await visitor.ended()
            await eventually(lambda: one.network.stats().handshakes == 0)
            assert sum(one.network.stats().refusals.values()) == 1

    run(main, loop)


def test_half_open_strangers_do_not_keep_members_out(certs: Certs, loop: str) -> None:
    async def main() -> None:
        limits = PeerLimits(handshakes_max=8, handshake_timeout_s=600)
        async with node(certs, "node-1", limits=limits) as one, contextlib.AsyncExitStack() as stack:
            for _ in range(40):
                await stack.enter_async_context(stranger(one.network.address))
            await eventually(lambda: one.network.stats().refusals.get("too_many_handshakes") == 32)
            assert one.network.stats().handshakes == 8
            async with node(certs, "node-2") as two:
                one.network.set_peers({"node-2": two.network.address})
                two.network.set_peers({"node-1": one.network.address})
                await eventually(lambda: one.connected("node-2") and two.connected("node-1"))
                assert one.network.stats().handshakes <= 8

    run(main, loop)


@pytest.mark.parametrize(("kind", "limit"), [(Kind.RAFT, RAFT_FRAME_BYTES_MAX), (Kind.CALL, CALL_FRAME_BYTES_MAX)])
def test_an_oversized_frame_closes_the_session_at_its_header(certs: Certs, kind: Kind, limit: int) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda *_: True) as one:
            async with stranger(one.network.address, certs.context("node-2", kind)) as visitor:
                assert await visitor.frame() == WELCOME
                visitor.writer.write((limit + 1).to_bytes(4, "big"))
                await visitor.ended()
            await eventually(lambda: one.network.stats().closed == {"frame_too_large": 1})

    run(main)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x00", b"\xc0", b"\x90", b"\x91\x01", encode_message(Reply(1, b"")), encode_message(Cancel(1)) + b"x"],
)
def test_a_malformed_call_closes_the_session(certs: Certs, payload: bytes) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda *_: True) as one:
            async with stranger(one.network.address, certs.context("node-2", Kind.CALL)) as visitor:
                assert await visitor.frame() == WELCOME
                visitor.send(encode_message(Cancel(7)))  # an unknown call: no harm
                visitor.send(payload)
                assert await visitor.frame() == b""
            await eventually(lambda: one.network.stats().closed == {"malformed": 1})

    run(main)


def test_a_dialled_peer_must_be_the_one_that_was_asked_for(certs: Certs, loop: str) -> None:
    async def main() -> None:
        async with node(certs, "node-1") as one, node(certs, "node-2", allow=lambda *_: True) as two:
            two.network.serve("echo", lambda _, payload: asyncio.sleep(0, payload))
            one.network.set_peers({"node-3": two.network.address})
            await eventually(lambda: one.network.stats().dial_failures.get("wrong_identity"))
            with pytest.raises(Unavailable):
                await one.network.call("node-3", "echo", b"x", timeout_s=30)
            assert not one.network.send("node-3", b"x")
            assert one.events == two.messages == []
            assert two.network.stats().calls_served == 0

    run(main, loop)


@pytest.mark.parametrize("which", ["foreign", "expired"])
def test_a_dialled_peer_must_have_a_valid_certificate_of_the_ca(certs: Certs, which: str) -> None:
    async def main() -> None:
        seen: list[bytes] = []

        async def collect(peer: Stranger) -> None:
            seen.append(await peer.reader.read())

        context = certs.context("node-2", Kind.RAFT, getattr(certs, which), server=True)
        async with impostor(context, collect) as address, node(certs, "node-1") as one:
            one.network.set_peers({"node-2": address})
            await eventually(lambda: one.network.stats().dial_failures.get("certificate", 0) >= 2)
            assert one.events == []
            assert not any(seen)

    run(main)


@pytest.mark.parametrize("opening", [b"", b"\x07", b"welcome", Opening.WELCOME.value + bytes(4096)])
def test_a_dialled_peer_that_opens_with_something_else_is_dropped(certs: Certs, opening: bytes) -> None:
    async def main() -> None:
        async def odd(peer: Stranger) -> None:
            peer.send(opening)
            await peer.ended()

        context = certs.context("node-2", Kind.RAFT, server=True)
        async with impostor(context, odd) as address, node(certs, "node-1") as one:
            one.network.set_peers({"node-2": address})
            await eventually(lambda: one.network.stats().dial_failures.get("malformed"))
            assert one.events == []

    run(main)


def test_nothing_may_come_back_on_a_raft_session(certs: Certs) -> None:
    async def main() -> None:
        async def chatty(peer: Stranger) -> None:
            peer.send(WELCOME)
            peer.send(b"an unasked word")
            await peer.ended()

        context = certs.context("node-2", Kind.RAFT, server=True)
        async with impostor(context, chatty) as address, node(certs, "node-1") as one:
            one.network.set_peers({"node-2": address})
            await eventually(lambda: one.network.stats().closed.get("malformed"))
            assert one.messages == []

    run(main)


def test_a_peer_that_never_answers_a_dial_is_given_up(certs: Certs) -> None:
    async def main() -> None:
        async def silent(peer: Stranger) -> None:
            await peer.ended()

        context = certs.context("node-2", Kind.RAFT, server=True)
        limits = PeerLimits(connect_timeout_s=0.1)
        async with impostor(context, silent) as address, node(certs, "node-1", limits=limits) as one:
            one.network.set_peers({"node-2": address})
            await eventually(lambda: one.network.stats().dial_failures.get("timeout", 0) >= 2)
            assert one.events == []

    run(main)


def test_strangers_do_not_flood_the_log(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1", limits=PeerLimits(log_interval_s=600)) as one:
            for _ in range(20):
                await turned_away(one, None, b"x" * 100)
                await turned_away(one, certs.context("node-2", Kind.RAFT))
            await eventually(lambda: sum(one.network.stats().refusals.values()) == 40)

    with capture_logs() as lines:
        run(main)
    refused = [line for line in lines if line["event"] == "peer_refused"]
    assert sorted(line["cause"] for line in refused) == ["not_a_member", "tls"]


def test_a_certificate_without_exactly_one_common_name_is_nobody(certs: Certs, tmp_path: Path) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda *_: True) as one:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.load_cert_chain(tls.cert_file, tls.key_file)
            context.set_alpn_protocols([Kind.RAFT.value])
            await turned_away(one, context)
            await eventually(lambda: one.network.stats().refusals == {"no_identity": 1})

    tls = two_names(certs, tmp_path)
    run(main)


def two_names(certs: Certs, folder: Path) -> PeerTls:
    """A certificate of the CA with two common names, node-2 and node-3."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    ca = x509.load_pem_x509_certificate((certs.good / "ca.crt").read_bytes())
    ca_key = serialization.load_pem_private_key((certs.good / "ca.key").read_bytes(), None)
    model = x509.load_pem_x509_certificate((certs.good / "node-2.crt").read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in ("node-2", "node-3")]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(model.not_valid_before_utc)
        .not_valid_after(model.not_valid_after_utc)
    )
    for extension in model.extensions:
        if not isinstance(extension.value, x509.SubjectKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    certificate = builder.sign(ca_key, hashes.SHA256())  # type: ignore[arg-type]
    pem = serialization.Encoding.PEM
    tls = PeerTls(folder / "two.crt", folder / "two.key", certs.good / "ca.crt")
    tls.cert_file.write_bytes(certificate.public_bytes(pem))
    tls.key_file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return tls
