"""Who a peer is: TLS 1.3 both ways with certificates of the cluster CA, and the common name of a verified certificate.

Host names are not checked: a member is its key, not its address. The common name is checked instead, by both ends and
before a byte of a frame is parsed.
"""

from __future__ import annotations

import asyncio
import enum
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from holdfast.cluster.peer.frames import CALL_FRAME_BYTES_MAX, RAFT_FRAME_BYTES_MAX
from holdfast.proto.errors import FailedPrecondition


class Kind(enum.Enum):
    """What a session carries; the value is its ALPN protocol (RFC 7301)."""

    RAFT = "holdfast-raft/1"
    CALL = "holdfast-call/1"

    @property
    def frame_bytes_max(self) -> int:
        """The longest payload of a frame on a session of this kind."""
        return RAFT_FRAME_BYTES_MAX if self is Kind.RAFT else CALL_FRAME_BYTES_MAX


@dataclass(frozen=True)
class PeerTls:
    """PEM files: this node's certificate chain, its unencrypted private key, and the cluster CA."""

    cert_file: Path
    key_file: Path
    ca_file: Path


@dataclass(frozen=True)
class Contexts:
    """The TLS contexts made from one reading of the files. `not_after_s`: the certificate's end, in epoch seconds."""

    server: ssl.SSLContext
    clients: dict[Kind, ssl.SSLContext]
    not_after_s: float


def load_contexts(tls: PeerTls, node_id: str) -> Contexts:
    """Read the files. Raises FailedPrecondition when one cannot be used, or the certificate is not `node_id`'s."""
    try:
        own = x509.load_pem_x509_certificate(tls.cert_file.read_bytes())
    except OSError as error:
        raise FailedPrecondition(f"The certificate {tls.cert_file} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise FailedPrecondition(f"{tls.cert_file} is not a PEM certificate.") from None
    names = [name.value for name in own.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [node_id]:
        raise FailedPrecondition(
            f"The certificate {tls.cert_file} is of {names!r}, and this node is {node_id!r}. Its common name must be"
            " the node id: issue a certificate for this node, or correct node_id."
        )
    server = _context(ssl.PROTOCOL_TLS_SERVER, tls)
    server.num_tickets = 0  # a resumed session would outlive the certificate it was made with
    server.set_alpn_protocols([kind.value for kind in Kind])
    clients = {kind: _context(ssl.PROTOCOL_TLS_CLIENT, tls) for kind in Kind}
    for kind, context in clients.items():
        context.set_alpn_protocols([kind.value])
    return Contexts(server, clients, own.not_valid_after_utc.timestamp())


def _context(protocol: int, tls: PeerTls) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file, password=_no_password)
    except ssl.SSLError as error:
        raise FailedPrecondition(
            f"{tls.key_file} is not the unencrypted private key of {tls.cert_file} ({error.reason})."
        ) from None
    except OSError as error:
        raise FailedPrecondition(f"The private key {tls.key_file} cannot be read: {error.strerror}.") from None
    try:
        context.load_verify_locations(cafile=tls.ca_file)
    except ssl.SSLError as error:
        raise FailedPrecondition(f"{tls.ca_file} holds no PEM certificate of a CA ({error.reason}).") from None
    except OSError as error:
        raise FailedPrecondition(f"The CA certificate {tls.ca_file} cannot be read: {error.strerror}.") from None
    return context


def _no_password() -> str:
    return ""  # without it OpenSSL would ask on the terminal


def identity(transport: asyncio.Transport) -> tuple[str, Kind | None]:
    """The peer's node id (empty when the certificate has not exactly one common name) and what ALPN agreed on."""
    certificate: dict[str, Any] = transport.get_extra_info("peercert") or {}
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    chosen = transport.get_extra_info("ssl_object").selected_alpn_protocol()
    kind = next((kind for kind in Kind if kind.value == chosen), None)
    return (names[0] if len(names) == 1 else ""), kind


def describe(error: BaseException | None) -> tuple[str, str]:
    """Why a connection failed: a cause fit for a metric's label, and a detail for the log."""
    if error is None:
        return "closed_by_peer", ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate", error.verify_message
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "unknown"
        return ("refused_by_peer" if "ALERT" in reason else "tls"), reason
    if isinstance(error, TimeoutError):
        return "timeout", ""
    if isinstance(error, ConnectionRefusedError):
        return "connection_refused", ""
    if isinstance(error, OSError):
        return "connection_lost", error.strerror or type(error).__name__
    return "failed", type(error).__name__
