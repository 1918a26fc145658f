"""Joining by token: the token's line, what redeeming it demands, and that it can be done once."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from support.core_node import CoreNode

from holdfast.cluster.raft.consensus import Member
from holdfast.core.request import Operation, Request
from holdfast.proto.errors import (
    Corruption,
    FailedPrecondition,
    HoldfastError,
    InvalidArgument,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
)
from holdfast.server import join_client, join_token
from holdfast.server.certs import create_ca
from holdfast.server.config import ApiConfig, ClusterConfig, NodeConfig, TlsFiles
from holdfast.server.join_engine import TOKENS_MAX, Place, join_mounts
from holdfast.server.join_records import StoredNode, StoredToken, decode
from holdfast.server.join_service import FAILURES_PER_ADDRESS, FAILURES_TOGETHER, UNDER_WAY_MAX, WINDOW_S, Attempts
from holdfast.server.join_token import JoinToken
from holdfast.server.joining import Joining
from holdfast.storage.transaction import Transaction

NOW = datetime.fromtimestamp(1_800_000_000, UTC)
MEMBERS = [
    Member(node_id="node-1", cluster_address="n1.example.org:8201", api_address="n1.example.org:8200"),
    Member(node_id="node-2", cluster_address="10.0.0.9:8201", api_address="DB:8200"),
]


class Joins:
    """A cluster of one with its CA imported."""

    def __init__(self, folder: Path) -> None:
        self.ca = create_ca(folder / "ca", "production", now=NOW)
        self.ca_pem = self.ca.cert_file.read_bytes()
        self.place = Place("production", self.ca_pem, x509.load_pem_x509_certificate(self.ca_pem), lambda: MEMBERS)

    async def start(self, **changes: Any) -> CoreNode:
        node = await CoreNode(system=join_mounts(replace(self.place, **changes))).bootstrap()
        await node.ask("update", "sys/cluster-ca", self.pair())
        return node

    def pair(self) -> dict[str, str]:
        return {"certificate": self.ca_pem.decode(), "private_key": self.ca.key_file.read_text()}


@pytest.fixture(scope="module")
def joins(tmp_path_factory: pytest.TempPathFactory) -> Joins:
    return Joins(tmp_path_factory.mktemp("joins"))


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def csr(key: Any = None) -> str:
    made = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node-1")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(made, hashes.SHA256())
    return base64.b64encode(request.public_bytes(serialization.Encoding.DER)).decode()


async def create(node: CoreNode, **options: Any) -> JoinToken:
    return join_token.decode((await node.ask("update", "sys/join-token", options))["join_token"])


async def redeem(node: CoreNode, token: JoinToken, **changes: Any) -> dict[str, Any]:
    data = {
        "secret": token.secret.hex(), "node_id": "node-4", "certificate_request": csr(),
        "cluster_address": "n4.example.org:8201", "api_address": "10.0.0.4:8200",
    }  # fmt: skip
    request = Request(operation=Operation.UPDATE, path="sys/join", data=data | changes)
    return (await node.core.serve_open(request)).data or {}


def test_a_redeemed_token_gives_a_certificate_of_the_nodes_own_key_and_name(joins: Joins) -> None:
    async def story() -> None:
        node = await joins.start()
        token = await create(node)
        assert token.addresses == ("n1.example.org:8200", "DB:8200")
        key = ec.generate_private_key(ec.SECP256R1())
        told = await redeem(node, token, certificate_request=csr(key))
        certificate = x509.load_pem_x509_certificate(told["certificate"].encode())
        certificate.verify_directly_issued_by(joins.place.api_ca)
        assert certificate.public_key() == key.public_key()
        assert certificate.subject.rfc4514_string() == "CN=node-4", "whatever the request says"
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["node-4", "n4.example.org"]
        assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.4"]
        assert (told["cluster_name"], told["voter"]) == ("production", True)
        assert told["ca_certificate"].encode() == joins.ca_pem

    run(story)


def test_of_many_machines_with_one_token_one_is_let_in(joins: Joins) -> None:
    async def story() -> None:
        node = await joins.start()
        token = await create(node)
        tries = [redeem(node, token, node_id=f"node-{number}") for number in range(4, 10)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(result, dict) for result in results) == 1
        assert sum(isinstance(result, FailedPrecondition) for result in results) == len(results) - 1

    run(story)


def test_two_tokens_do_not_give_two_certificates_in_one_name(joins: Joins) -> None:
    async def story() -> None:
        node = await joins.start()
        tokens = [await create(node) for _ in range(4)]
        results = await asyncio.gather(*[redeem(node, token) for token in tokens], return_exceptions=True)
        assert sum(isinstance(result, dict) for result in results) == 1
        await node.ask("delete", "sys/join-node/node-4")
        unused = results.index(next(result for result in results if not isinstance(result, dict)))
        assert await redeem(node, tokens[unused])

    run(story)


@pytest.mark.parametrize(
    ("options", "changes", "error", "said"),
    [
        ({}, {"secret": "00" * 32}, PermissionDenied, "knows no such join token"),
        ({}, {"secret": "xyz"}, InvalidArgument, "64 hexadecimal digits"),
        ({}, {"node_id": "node-1"}, FailedPrecondition, "node-1 is a member"),
        ({}, {"node_id": "ca"}, InvalidArgument, "no node id"),
        ({}, {"node_id": "Node 4"}, InvalidArgument, "no node id"),
        ({"node_id": "node-7"}, {}, PermissionDenied, "for node node-7 alone"),
        ({"hosts": ["10.0.0.4"]}, {}, PermissionDenied, "no certificate for n4.example.org"),
        ({}, {"cluster_address": "n1.example.org:9999"}, FailedPrecondition, "the host or the id of a member"),
        ({}, {"cluster_address": "N1.Example.ORG:9999"}, FailedPrecondition, "the host or the id of a member"),
        ({}, {"cluster_address": "[::ffff:10.0.0.9]:9999"}, FailedPrecondition, "the host or the id of a member"),
        ({}, {"cluster_address": "Node-1:9999"}, FailedPrecondition, "the host or the id of a member"),
        ({}, {"node_id": "db"}, FailedPrecondition, "db is the host of a member"),
        ({}, {"api_address": "n1.example.org:8200"}, FailedPrecondition, "a member's already"),
        ({}, {"api_address": "0.0.0.0:8200"}, InvalidArgument, "cannot be dialled"),
        ({}, {"api_address": "here"}, InvalidArgument, "api_address"),
        ({}, {"certificate_request": "AAAA"}, InvalidArgument, "does not parse"),
        ({}, {"certificate_request": csr(ec.generate_private_key(ec.SECP384R1()))}, InvalidArgument, "P-256"),
    ],
)  # fmt: skip
def test_what_a_token_does_not_allow_is_refused_and_spends_nothing(
    joins: Joins, options: dict[str, Any], changes: dict[str, Any], error: type[HoldfastError], said: str
) -> None:
    async def story() -> None:
        node = await joins.start()
        token = await create(node, **options)
        with pytest.raises(error, match=said):
            await redeem(node, token, **changes)
        read = await node.ask("read", f"sys/join-token/{join_token.secret_id(token.secret)}")
        assert read["used_by"] is None

    run(story)


def test_an_expired_token_says_so_and_is_forgotten_after_a_day(joins: Joins) -> None:
    async def story() -> None:
        node = await joins.start()
        token = await create(node, ttl="10m")
        node.time += 601
        with pytest.raises(FailedPrecondition, match="expired at 2027-01-15T08:10:00"):
            await redeem(node, token)
        node.time += 25 * 3600
        await create(node)
        with pytest.raises(PermissionDenied, match="knows no such"):
            await redeem(node, token)

    run(story)


def test_a_request_whose_signature_is_another_keys_is_refused(joins: Joins) -> None:
    async def story() -> None:
        node = await joins.start()
        token = await create(node)
        forged = bytearray(base64.b64decode(csr()))
        forged[-1] ^= 1
        with pytest.raises(InvalidArgument):
            await redeem(node, token, certificate_request=base64.b64encode(bytes(forged)).decode())

    run(story)


def test_nobody_without_a_token_of_holdfasts_reaches_the_paths_but_through_the_open_call(joins: Joins) -> None:
    async def story() -> None:
        node = await joins.start()
        for operation, path in (("update", "sys/join"), ("update", "sys/join-token"), ("read", "sys/cluster-ca")):
            with pytest.raises(Unauthenticated):
                await node.ask(operation, path, token="")

    run(story)


def test_the_ca_must_be_a_ca_the_nodes_trust_and_its_key_is_never_answered(joins: Joins, tmp_path: Path) -> None:
    async def story() -> None:
        node = await joins.start()
        other = create_ca(tmp_path / "other", "other", now=NOW)
        with pytest.raises(FailedPrecondition, match="not among those that the nodes trust"):
            await node.ask(
                "update", "sys/cluster-ca",
                {"certificate": other.cert_file.read_text(), "private_key": other.key_file.read_text()},
            )  # fmt: skip
        with pytest.raises(FailedPrecondition, match="not the key"):
            await node.ask("update", "sys/cluster-ca", joins.pair() | {"private_key": other.key_file.read_text()})
        shown = await node.ask("read", "sys/cluster-ca")
        assert shown["subject"] == "CN=production CA"
        assert "PRIVATE" not in str(shown)
        token = await create(node)
        await node.ask("delete", "sys/cluster-ca")
        with pytest.raises(FailedPrecondition, match="was not imported"):
            await redeem(node, token)
        with pytest.raises(FailedPrecondition, match="was not imported"):
            await create(node)

    run(story)


def test_without_a_ca_of_the_api_port_no_token_is_made(joins: Joins) -> None:
    async def story() -> None:
        node = await joins.start(api_ca=None)
        with pytest.raises(FailedPrecondition, match=r"api\.tls\.ca_file"):
            await create(node)

    run(story)


def test_the_number_of_tokens_has_a_limit(joins: Joins) -> None:
    async def story() -> None:
        node = await joins.start()
        for _ in range(TOKENS_MAX):
            await create(node)
        with pytest.raises(Overloaded, match="revoke some"):
            await create(node)
        name = (await node.ask("list", "sys/join-token"))["keys"][0]
        await node.ask("delete", f"sys/join-token/{name}")
        await create(node)
        with pytest.raises(NotFound):
            await node.ask("read", f"sys/join-token/{name}")

    run(story)


def test_a_node_that_a_token_let_in_is_trusted_with_keys_only_when_people_say_so(joins: Joins) -> None:
    async def story() -> None:
        node = await joins.start()
        await redeem(node, await create(node))
        assert (await node.ask("read", "sys/join-node/node-4"))["share_keys"] is False
        await node.ask("update", "sys/join-node/node-4", {"share_keys": True})
        assert (await node.ask("read", "sys/join-node/node-4"))["share_keys"] is True
        await redeem(node, await create(node, share_keys=True), node_id="node-5", api_address="10.0.0.5:1")
        assert (await node.ask("read", "sys/join-node/node-5"))["share_keys"] is True
        with pytest.raises(NotFound):
            await node.ask("update", "sys/join-node/node-6", {"share_keys": True})

    run(story)


def test_nothing_that_is_shown_holds_a_secret(joins: Joins) -> None:
    async def story() -> None:
        node = await joins.start()
        token = await create(node)
        assert token.secret.hex() not in repr(token) + str(token)
        assert join_token.encode(token) not in repr(token)
        listed = await node.ask("list", "sys/join-token")
        assert token.secret.hex() not in str(listed)

    run(story)


@pytest.mark.parametrize("form", [StoredToken, StoredNode])
def test_a_damaged_record_is_corruption(form: Any) -> None:
    with pytest.raises(Corruption):
        decode(b"\x81\xa1x\x01", form)


tokens = st.builds(
    JoinToken,
    st.binary(min_size=32, max_size=32),
    st.lists(st.text("abc.:0123[]", min_size=3, max_size=40), min_size=1, max_size=9).map(tuple),
    st.binary(min_size=32, max_size=32),
)


@given(tokens, st.data())
def test_a_token_is_one_printable_line_and_no_changed_character_passes(token: JoinToken, data: st.DataObject) -> None:
    line = join_token.encode(token)
    assert line.isascii()
    assert line.isprintable()
    assert " " not in line
    assert join_token.decode(f"  {line}\n") == token
    at = data.draw(st.integers(len(join_token.PREFIX), len(line) - 2))
    other = data.draw(st.sampled_from("ABCabc-_").filter(lambda c: c != line[at]))
    with pytest.raises(InvalidArgument, match="mangled"):
        join_token.decode(line[:at] + other + line[at + 1 :])
    with pytest.raises(InvalidArgument):
        join_token.decode(line[: data.draw(st.integers(0, len(line) - 2))])


@given(st.text(max_size=200))
def test_anything_else_is_no_token(text: str) -> None:
    for candidate in (text, join_token.PREFIX + text):
        with pytest.raises(InvalidArgument):
            join_token.decode(candidate)


def test_failed_attempts_are_bounded_by_address_and_together() -> None:
    now = [0.0]
    attempts = Attempts(lambda: now[0])

    def fail(host: str) -> None:
        attempts.begin(host)
        attempts.end(host, failed=True)

    for _ in range(FAILURES_PER_ADDRESS):
        fail("10.0.0.1")
    with pytest.raises(Overloaded, match="wait a minute"):
        attempts.begin("10.0.0.1")
    for number in range(FAILURES_TOGETHER - FAILURES_PER_ADDRESS):
        fail(f"10.1.0.{number}")
    with pytest.raises(Overloaded):
        attempts.begin("10.2.0.1")
    now[0] += WINDOW_S + 1
    for _ in range(3 * FAILURES_PER_ADDRESS):
        attempts.begin("10.0.0.1")
        attempts.end("10.0.0.1", failed=False)
    for _ in range(UNDER_WAY_MAX):
        attempts.begin("10.0.0.1")
    with pytest.raises(Overloaded, match="at this moment"):
        attempts.begin("10.0.0.1")


def test_a_machine_with_files_of_an_earlier_node_asks_nobody(tmp_path: Path) -> None:
    wanted = join_client.Wanted("node-4", tmp_path, tmp_path / "data", "10.0.0.4:8201", "10.0.0.4:8200")
    wanted.config_file.write_text("node_id: node-4\n")
    token = JoinToken(bytes(32), ("127.0.0.1:1",), bytes(32))
    with pytest.raises(HoldfastError, match=r"node\.yaml exists"):
        join_client.join(token, wanted, say=lambda _text: None)
    wanted.config_file.unlink()
    with pytest.raises(HoldfastError, match="nothing that speaks TLS answers"):
        join_client.join(token, wanted, say=lambda _text: None)
    assert not list(tmp_path.glob("*.key"))


class Trust:
    """What a node remembers of who may have the keys, on a cluster of one."""

    def __init__(self, joins: Joins, node: CoreNode) -> None:
        tls = TlsFiles(cert_file=str(joins.ca.cert_file), key_file="", ca_file=str(joins.ca.cert_file))
        config = NodeConfig(
            node_id="node-1", data_dir="", api=ApiConfig(bind="", tls=tls), cluster=ClusterConfig(bind="", tls=tls)
        )
        node.consensus.members = {member.node_id: member for member in MEMBERS}
        self.node = node
        self.joining = Joining(
            config, consensus=node.consensus, barrier=node.open_barrier, wall_clock=lambda: node.time
        )


def test_founders_and_nodes_added_by_hand_are_trusted_with_the_keys_and_nobody_else(joins: Joins) -> None:
    async def story() -> None:
        node = await joins.start()
        trust = Trust(joins, node).joining
        assert not await trust.trusts("node-1")
        txn = Transaction(node.consensus, node.barrier)
        trust.bootstrap(txn)
        await node.consensus.propose(txn.batch(), timeout_s=1)
        assert await trust.trusts("node-1")
        await redeem(node, await create(node))
        assert not await trust.trusts("node-4")
        await trust.admitted("node-4")  # joining it once more by hand does not lift what a token said
        assert not await trust.trusts("node-4")
        await trust.admitted("node-2")
        assert await trust.trusts("node-2")
        await node.ask("update", "sys/join-node/node-4", {"share_keys": True})
        assert await trust.trusts("node-4")
        await node.ask("delete", "sys/join-node/node-4")
        assert not await trust.trusts("node-4"), "without a record nobody is trusted: a lying leader can delete it"

    run(story)
