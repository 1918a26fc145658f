"""The certificates that the configuration names: whether they can serve, and for how long."""

from __future__ import annotations

import ipaddress
import itertools
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from holdfast.server.config import TlsFiles, parse_address
from holdfast.server.diagnose.finding import Context, Finding, failed, passed, warned

EXPIRY_WARNING = timedelta(days=30)


def check_certificates(context: Context) -> Iterator[Finding]:
    """Both identities, the client port's and the peer port's. When they are the same files, they are looked at twice:
    they have different purposes."""
    config = context.config
    for section, tls in (("api", config.api.tls), ("cluster", config.cluster.tls)):
        certificate = _load(tls.cert_file)
        if isinstance(certificate, str):
            yield failed(f"certificate.{section}", certificate, f"correct {section}.tls.cert_file, or issue one")
            continue
        yield check_key(section, tls, certificate)
        yield check_chain(section, tls)
        yield check_validity(section, certificate, context.now_s())
        if section == "cluster":
            yield check_name(certificate, config.node_id)
        else:
            yield check_coverage(certificate, config.api.advertise)


def check_key(section: str, tls: TlsFiles, certificate: x509.Certificate) -> Finding:
    """The private key is readable, private, and the certificate's."""
    check, path = f"certificate.{section}.key", Path(tls.key_file)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        return failed(check, f"{path} cannot be read: {error.strerror}", f"correct {section}.tls.key_file")
    except (ValueError, TypeError):
        return failed(check, f"{path} is not an unencrypted PEM private key", "issue the certificate again")
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        return failed(check, f"{path} is not the key of {tls.cert_file}", "name the files of one pair")
    if mode & 0o007:
        return failed(check, f"anyone on this machine can use {path} (mode {mode:04o})", f"chmod 0600 {path}")
    if mode & 0o070:
        return warned(check, f"the group can use {path} (mode {mode:04o})", f"chmod 0600 {path}")
    return passed(check, f"{path} is the certificate's key and private")


def check_chain(section: str, tls: TlsFiles) -> Finding:
    """The certificate leads to the CA, over those that follow it in its file."""
    check = f"certificate.{section}.chain"
    try:
        chain = x509.load_pem_x509_certificates(Path(tls.cert_file).read_bytes())
        authorities = x509.load_pem_x509_certificates(Path(tls.ca_file).read_bytes())
    except OSError as error:
        return failed(check, f"{error.filename} cannot be read: {error.strerror}", f"correct {section}.tls.ca_file")
    except ValueError:
        return failed(check, f"{tls.ca_file} holds no PEM certificate", f"correct {section}.tls.ca_file")
    for issued, issuer in itertools.pairwise(chain):
        if not _issued(issued, issuer):
            return failed(check, f"the chain in {tls.cert_file} is broken", "put each issuer after what it issued")
    if not any(_issued(chain[-1], authority) for authority in authorities):
        return failed(check, f"{tls.cert_file} was not issued by the CA in {tls.ca_file}", "issue it with this CA")
    return passed(check, f"issued by the CA in {tls.ca_file}")


def check_validity(section: str, certificate: x509.Certificate, now_s: float) -> Finding:
    """It is valid, and will be for a while."""
    check, now = f"certificate.{section}.validity", datetime.fromtimestamp(now_s, UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return failed(
            check, f"valid from {begin:%Y-%m-%d %H:%M} UTC on", "correct this host's clock, or issue it again"
        )
    if now >= end:
        return failed(check, f"expired on {end:%Y-%m-%d}", "issue a new one: holdfastd certs issue")
    if end - now < EXPIRY_WARNING:
        return warned(check, f"expires on {end:%Y-%m-%d}, in {(end - now).days} days", "issue a new one and restart")
    return passed(check, f"valid until {end:%Y-%m-%d}")


def check_name(certificate: x509.Certificate, node_id: str) -> Finding:
    """Peers know a node by the common name of its certificate."""
    names = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [node_id]:
        detail = f"issued to {', '.join(names) or 'nobody'}, but node_id is {node_id}"
        return failed("certificate.cluster.name", detail, f"issue one: holdfastd certs issue DIR {node_id}")
    return passed("certificate.cluster.name", f"issued to {node_id}")


def check_coverage(certificate: x509.Certificate, advertise: str) -> Finding:
    """Clients compare the address they dialled with the certificate's alternative names."""
    check, host = "certificate.api.names", parse_address(advertise).host
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return failed(check, "it has no alternative names, and clients accept none without", "issue it again")
    dns = names.get_values_for_type(x509.DNSName)
    try:
        covered = ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
        option = f"--ip {host}"
    except ValueError:
        covered = any(_matches(host.lower(), name.lower()) for name in dns)
        option = f"--dns {host}"
    if not covered:
        return failed(check, f"it does not name {host}, which clients are told to dial", f"issue it with {option}")
    return passed(check, f"it names {host}")


def _matches(host: str, name: str) -> bool:
    """RFC 6125, 6.4.3: a wildcard stands for one whole label."""
    return host == name or (name.startswith("*.") and host.partition(".")[2] == name[2:])


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _load(name: str) -> x509.Certificate | str:
    """The first certificate of a file, or what is wrong with it."""
    try:
        return x509.load_pem_x509_certificates(Path(name).read_bytes())[0]
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    except ValueError:
        return f"{name} is not a PEM certificate"
