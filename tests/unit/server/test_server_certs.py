"""The cluster's certificates: their profile, their files, and that TLS and gRPC accept them."""

import os
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.proto.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from holdfast.server.certs import IssuedFiles, create_ca, issue_node, renew_node


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    directory = tmp_path / "certs"
    create_ca(directory, "demo")
    return directory


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, server_hostname: str | None) -> ssl.SSLObject:
    """Shake hands in memory; the client's side, once both have verified the other. Raises what either raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    client_side = client.wrap_bio(to_client, to_server, server_hostname=server_hostname)
    for _ in range(3):
        for side in (client_side, server_side):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client_side


def contexts(directory: Path, files: IssuedFiles) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(directory / "ca.crt")
        context.load_cert_chain(files.cert_file, files.key_file)
    return server, client


def test_the_ca_signs_certificates_and_nothing_else(folder: Path) -> None:
    ca = load(folder / "ca.crt")
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not usage.digital_signature
    assert isinstance(ca.public_key(), ec.EllipticCurvePublicKey)
    days = (ca.not_valid_after_utc - ca.not_valid_before_utc).days
    assert days == 3650


def test_a_node_certificate_names_the_node_and_serves_both_directions(folder: Path) -> None:
    files = issue_node(folder, "node-1", ["vault.example.com", "node-1"], ["127.0.0.1", "::1"])
    certificate = load(files.cert_file)
    (common_name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common_name.value == "node-1"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node-1", "vault.example.com"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 397
    certificate.verify_directly_issued_by(load(folder / "ca.crt"))


def test_a_node_certificate_ends_no_later_than_its_ca(folder: Path) -> None:
    certificate = load(issue_node(folder, "node-1", days=100_000).cert_file)
    assert certificate.not_valid_after_utc == load(folder / "ca.crt").not_valid_after_utc


def test_strict_tls_accepts_the_certificates_in_both_directions(folder: Path) -> None:
    server, client = contexts(folder, issue_node(folder, "node-1", ["localhost"], ["127.0.0.1"]))
    for name in ("node-1", "localhost", "127.0.0.1"):
        assert handshake(server, client, name).getpeercert()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, "elsewhere.example.com")


def test_strict_tls_refuses_a_certificate_of_another_ca(folder: Path, tmp_path: Path) -> None:
    create_ca(tmp_path / "other", "demo")
    server, client = contexts(folder, issue_node(tmp_path / "other", "node-1"))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, "node-1")


def test_an_expired_certificate_is_refused(folder: Path) -> None:
    past = datetime.now(UTC) - timedelta(days=30)
    server, client = contexts(folder, issue_node(folder, "node-1", days=7, now=past))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(server, client, "node-1")


def test_grpc_accepts_the_certificates_in_both_directions(folder: Path) -> None:
    node = issue_node(folder, "node-1", ["localhost"], ["127.0.0.1"])
    ca, chain, key = (path.read_bytes() for path in (folder / "ca.crt", node.cert_file, node.key_file))
    echo = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test", {"echo": echo})])
        credentials = grpc.ssl_server_credentials([(key, chain)], ca, require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(ca, key, chain)) as channel:
                assert channel.unary_unary("/test/echo")(b"hello", timeout=30) == b"hello"
        finally:
            server.stop(None).wait()


def test_private_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = tmp_path / "open"
        create_ca(folder, "demo")
        issue_node(folder, "node-1")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "node-1.crt": 0o644, "node-1.key": 0o600}


def test_nothing_is_overwritten(folder: Path) -> None:
    issue_node(folder, "node-1")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(AlreadyExists):
        create_ca(folder, "demo")
    with pytest.raises(AlreadyExists):
        issue_node(folder, "node-1")
    (folder / "node-1.key").unlink()
    with pytest.raises(AlreadyExists):
        issue_node(folder, "node-1")
    assert all(path.read_bytes() == content for path, content in before.items() if path.exists())


@pytest.mark.parametrize("node_id", ["", "ca", "Node", "a/b", "..", "-a", "a-", "a" * 64, "n\n"])
def test_an_unfit_node_id_is_refused(folder: Path, node_id: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        issue_node(folder, node_id)
    assert caught.value.field == "node_id"


def test_unfit_names_addresses_and_days_are_refused_by_field(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        issue_node(folder, "node-1", dns_names=["not a name"])
    assert caught.value.field == "dns_names"
    with pytest.raises(InvalidArgument) as caught:
        issue_node(folder, "node-1", ip_addresses=["999.1.1.1"])
    assert caught.value.field == "ip_addresses"
    with pytest.raises(InvalidArgument) as caught:
        issue_node(folder, "node-1", days=0)
    assert caught.value.field == "days"
    for name in ("", " ", "a" * 62, "a\nb"):
        with pytest.raises(InvalidArgument) as caught:
            create_ca(tmp_path / "unnamed", name)
        assert caught.value.field == "name"
    assert not (folder / "node-1.key").exists()


def test_issuing_without_a_usable_ca_says_what_to_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="Create the CA first"):
        issue_node(tmp_path / "empty", "node-1")
    create_ca(tmp_path / "other", "demo")
    (folder / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(FailedPrecondition, match="not the key"):
        issue_node(folder, "node-1")
    (folder / "ca.key").write_bytes(b"garbage")
    with pytest.raises(FailedPrecondition, match="PEM"):
        issue_node(folder, "node-1")


def test_a_folder_that_others_can_write_in_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    with pytest.raises(FailedPrecondition, match="chmod"):
        create_ca(tmp_path / "shared", "demo")


def test_an_expired_ca_issues_nothing(tmp_path: Path) -> None:
    create_ca(tmp_path / "old", "demo", now=datetime.now(UTC) - timedelta(days=4000))
    with pytest.raises(FailedPrecondition, match="ended"):
        issue_node(tmp_path / "old", "node-1")


def test_a_renewed_certificate_is_for_the_same_key_and_names_and_later(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    create_ca(tmp_path, "test")
    files = issue_node(tmp_path, "node-1", ["one.example.org"], ["10.0.0.1"], days=2)
    old, key = x509.load_pem_x509_certificate(files.cert_file.read_bytes()), files.key_file.read_bytes()
    renew_node(tmp_path, "node-1", days=30)
    new = x509.load_pem_x509_certificate(files.cert_file.read_bytes())
    assert (new.public_key(), new.subject) == (old.public_key(), old.subject)
    assert new.extensions.get_extension_for_class(x509.SubjectAlternativeName) == (
        old.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    )
    assert new.not_valid_after_utc > old.not_valid_after_utc
    assert new.serial_number != old.serial_number
    assert files.key_file.read_bytes() == key
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.crt", "ca.key", "node-1.crt", "node-1.key"]


def test_only_a_nodes_certificate_is_renewed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    create_ca(tmp_path, "test")
    with pytest.raises(FailedPrecondition, match="no node's certificate"):
        renew_node(tmp_path, "node-1")
    issue_node(tmp_path, "node-2")
    (tmp_path / "node-2.crt").rename(tmp_path / "node-1.crt")
    with pytest.raises(FailedPrecondition, match="not the certificate of node-1"):
        renew_node(tmp_path, "node-1")
