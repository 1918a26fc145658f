"""A new machine's side of a join: its key is made here and stays here; a join token brings the rest.

The cluster is known by the CA's fingerprint in the token. A first connection takes whatever certificate the address
shows and asks for the CA; nothing is told to it. Only when that CA has the fingerprint is a second connection made,
which trusts this CA alone and dials the address by its name, and only that one is given the secret.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from holdfast.proto.errors import AlreadyExists, FailedPrecondition, HoldfastError, Unavailable, from_wire
from holdfast.proto.v1 import join_pb2 as pb
from holdfast.proto.v1.join_pb2_grpc import JoinServiceStub
from holdfast.server import join_token
from holdfast.server.certs import new_key, write_new
from holdfast.server.config import parse, parse_address
from holdfast.server.join_token import JoinToken

CONNECT_S, CALL_S = 5.0, 30.0

R = TypeVar("R")


class WrongCluster(FailedPrecondition):
    """What an address shows is not what the token names: somebody is in the middle, or the CA was replaced."""


@dataclass(frozen=True)
class Wanted:
    """The node to be. bind: the host to listen on; empty for those of the addresses. folder: where its configuration
    and certificates are written."""

    node_id: str
    folder: Path
    data_dir: Path
    cluster_address: str
    api_address: str
    bind: str = ""
    metrics_bind: str = ""

    @property
    def config_file(self) -> Path:
        """The node's configuration."""
        return self.folder / "node.yaml"

    @property
    def files(self) -> dict[str, Path]:
        """What is written."""
        return {
            "key": self.folder / f"{self.node_id}.key",
            "certificate": self.folder / f"{self.node_id}.crt",
            "ca": self.folder / "ca.crt",
            "config": self.config_file,
        }


def join(token: JoinToken, wanted: Wanted, *, say: Callable[[str], None]) -> int:
    """Redeem the token and write the node's files; returns the log index at which it became a member.

    Raises AlreadyExists when a file is there already (nothing was asked then), ConfigError when node.yaml would not be
    a good one, WrongCluster, Unavailable when no address answers, and what the cluster answers."""
    for path in (*wanted.files.values(), wanted.data_dir / "journal"):
        if path.exists():
            raise AlreadyExists(f"{path} exists: name an empty folder, or move away what is left of an earlier node")
    parse(_configuration(wanted, "holdfast"), wanted.config_file)
    wanted.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = new_key()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_new(wanted.files["key"], pem, mode=0o600)
    try:
        answer = _redeem_anywhere(token, wanted, _request(key, wanted.node_id), say)
    except HoldfastError:
        wanted.files["key"].unlink()
        raise
    write_new(wanted.files["certificate"], answer.certificate, mode=0o644)
    write_new(wanted.files["ca"], answer.ca_certificate, mode=0o644)
    write_new(wanted.config_file, _configuration(wanted, answer.cluster_name).encode(), mode=0o640)
    return answer.index


def _request(key: ec.EllipticCurvePrivateKey, node_id: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def _redeem_anywhere(
    token: JoinToken, wanted: Wanted, certificate_request: bytes, say: Callable[[str], None]
) -> pb.RedeemResponse:
    """At the first address that serves. What says that the token or the request is wrong is final."""
    last: HoldfastError | None = None
    for address in token.addresses:
        try:
            authority = authority_at(address, token.fingerprint)
            return _redeem(address, authority, token, wanted, certificate_request)
        except Unavailable as error:
            say(f"{address}: {error.message}")
            last = error
    assert last is not None, "a token names an address"
    raise last


def authority_at(address: str, fingerprint: bytes) -> bytes:
    """The CA that signed an address's certificate (PEM). Raises WrongCluster when it has another fingerprint, and
    Unavailable."""
    host, port = parse_address(address)
    try:
        shown = ssl.get_server_certificate((host, port), timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise Unavailable(f"nothing that speaks TLS answers at {address} ({type(error).__name__})") from None
    leaf = x509.load_pem_x509_certificate(shown.encode())
    # gRPC takes a certificate that is pinned itself for a root; its own name satisfies the check of names.
    options = [("grpc.ssl_target_name_override", name) for name in _names(leaf)[:1]]
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(shown.encode()), options) as channel:
        answer = _called(
            address, lambda: JoinServiceStub(channel).CaCertificate(pb.CaCertificateRequest(), timeout=CALL_S)
        )
    # Here for the clear error: what proves the address is that the second connection trusts this CA and nothing else.
    try:
        authority = x509.load_pem_x509_certificate(answer.certificate)
        leaf.verify_directly_issued_by(authority)
        genuine = join_token.fingerprint(authority) == fingerprint
    except (ValueError, TypeError, InvalidSignature):
        genuine = False
    if not genuine:
        raise WrongCluster(
            f"{address} is not of the cluster that made the join token: its certificate is not of the CA with "
            "that fingerprint. Nothing was told to it. Either somebody is between here and there, or the cluster's CA "
            "was replaced: make a new token"
        )
    return answer.certificate


def _names(leaf: x509.Certificate) -> list[str]:
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name for name in alternatives.get_values_for_type(x509.DNSName) if not name.startswith("*")]


def _redeem(
    address: str, authority: bytes, token: JoinToken, wanted: Wanted, certificate_request: bytes
) -> pb.RedeemResponse:
    request = pb.RedeemRequest(
        secret=token.secret,
        node_id=wanted.node_id,
        certificate_request=certificate_request,
        cluster_address=wanted.cluster_address,
        api_address=wanted.api_address,
    )
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(authority)) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_S)
        except grpc.FutureTimeoutError:
            raise Unavailable(f"{address} could not be reached, or its certificate is not for this address") from None
        return _called(address, lambda: JoinServiceStub(channel).Redeem(request, timeout=CALL_S))


def _called(address: str, call: Callable[[], R]) -> R:
    try:
        return call()
    except grpc.RpcError as failure:
        raise _meaning(address, failure) from None


def _meaning(address: str, failure: Any) -> HoldfastError:
    status = rpc_status.from_call(failure)
    for detail in () if status is None else status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            return from_wire(info.reason, status.message, details=dict(info.metadata))
    return Unavailable(f"the call to {address} failed ({failure.code().name})")


def _configuration(wanted: Wanted, cluster_name: str) -> str:
    """node.yaml. Paths in it start at its own folder, where the certificates are."""

    def bind(address: str) -> str:
        host, port = parse_address(address)
        host = wanted.bind or host
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    tls = {"cert_file": f"{wanted.node_id}.crt", "key_file": f"{wanted.node_id}.key", "ca_file": "ca.crt"}
    document: dict[str, Any] = {
        "node_id": wanted.node_id,
        "cluster_name": cluster_name,
        "data_dir": str(wanted.data_dir.resolve()),
        "api": {"bind": bind(wanted.api_address), "advertise": wanted.api_address, "tls": dict(tls)},
        "cluster": {
            "bind": bind(wanted.cluster_address),
            "advertise": wanted.cluster_address,
            "tls": dict(tls),
            "initial_members": [],
        },
    }
    if wanted.metrics_bind:
        document["metrics"] = {"bind": wanted.metrics_bind}
    return yaml.safe_dump(document, sort_keys=False)
