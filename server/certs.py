"""The cluster's certificates: one CA, one certificate a node. Files in, files out; nothing here talks to a node.

A node is known by the common name of its certificate (its node id), wherever its address is. The subject alternative
names serve clients, which verify the address they dialled. Profile: RFC 5280 as OpenSSL's strict mode reads it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.proto.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from holdfast.storage.folder import sync_folder

CA_DAYS = 3650
"""Validity of the cluster CA."""

NODE_DAYS = 397
"""Default validity of a node's certificate."""

BACKDATE = timedelta(hours=1)
"""How far before now a certificate starts to be valid, so that a peer whose clock is behind accepts it."""

_NAME_LENGTH_MAX = 64  # ub-common-name, RFC 5280 appendix A.1
_NODE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DNS_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*")


@dataclass(frozen=True)
class IssuedFiles:
    """Where a certificate and its private key were written."""

    cert_file: Path
    key_file: Path


def create_ca(directory: Path, name: str, *, now: datetime | None = None) -> IssuedFiles:
    """Make the cluster CA: `ca.crt` and `ca.key` in `directory`, which is created with mode 0700 when it is missing.

    `name` is 1 to 64 characters and shows as "<name> CA". `now` replaces the wall clock. Raises AlreadyExists when
    there is a CA (it is never overwritten: every node's certificate hangs on it), InvalidArgument, FailedPrecondition.
    """
    common_name = f"{name} CA"
    if not name.strip() or not name.isprintable() or len(common_name) > _NAME_LENGTH_MAX:
        raise InvalidArgument(f"A CA's name is 1 to {_NAME_LENGTH_MAX - 3} printable characters.", field="name")
    files = _files(directory, "ca")
    start = _now(now)
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        _builder(subject, subject, key.public_key(), start, start + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
            critical=False,
        )
    )
    return _write(files, builder.sign(key, hashes.SHA256()), key)


def issue_node(
    directory: Path,
    node_id: str,
    dns_names: Sequence[str] = (),
    ip_addresses: Sequence[str] = (),
    days: int = NODE_DAYS,
    *,
    now: datetime | None = None,
) -> IssuedFiles:
    """Issue a node's certificate with the CA in `directory`: `<node_id>.crt` and `<node_id>.key` beside it.

    node_id: a DNS label (lower-case letters, digits, hyphens; at most 63 characters), other than "ca".
    dns_names, ip_addresses: what clients dial; the node id is always among the names.
    days: validity, 1 or more; cut off at the CA's own end.
    Raises AlreadyExists when the node has files there, InvalidArgument, FailedPrecondition when there is no usable CA.
    """
    _check_node(node_id, days)
    _alternative_names(node_id, dns_names, ip_addresses)
    files = _files(directory, node_id)
    authority = _load_ca(directory)
    key = new_key()
    certificate = authority.sign_node(
        key.public_key(), node_id, dns_names=dns_names, ip_addresses=ip_addresses, days=days, now=_now(now)
    )
    return _write(files, certificate, key)


def renew_node(directory: Path, node_id: str, days: int = NODE_DAYS, *, now: datetime | None = None) -> IssuedFiles:
    """Issue a node's certificate anew, for the same key and names, in place of `<node_id>.crt`: whoever reads the two
    files at any moment finds a pair that belongs together.

    Raises FailedPrecondition when there is no certificate to renew or no usable CA, InvalidArgument as `issue_node`."""
    _check_node(node_id, days)
    cert_file = directory / f"{node_id}.crt"
    try:
        old = x509.load_pem_x509_certificate(cert_file.read_bytes())
        names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        raise FailedPrecondition(f"{cert_file} is no node's certificate; put the node's here to renew it.") from None
    common_names = [attribute.value for attribute in old.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    public_key = old.public_key()
    if common_names != [node_id] or not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise FailedPrecondition(f"{cert_file} is not the certificate of {node_id} as `certs issue` makes them.")
    renewed = _load_ca(directory).sign_node(
        public_key,
        node_id,
        dns_names=names.get_values_for_type(x509.DNSName),
        ip_addresses=[str(address) for address in names.get_values_for_type(x509.IPAddress)],
        days=days,
        now=_now(now),
    )
    fresh = directory / f".{node_id}.crt.renewed"
    fresh.unlink(missing_ok=True)
    write_new(fresh, renewed.public_bytes(serialization.Encoding.PEM), mode=0o644)
    fresh.replace(cert_file)
    sync_folder(directory)
    return IssuedFiles(cert_file, directory / f"{node_id}.key")


def new_key() -> ec.EllipticCurvePrivateKey:
    """A node's private key: P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def _check_node(node_id: str, days: int) -> None:
    if not _NODE_ID.fullmatch(node_id) or node_id == "ca":
        raise InvalidArgument(
            'A node id is lower-case letters, digits and inner hyphens, at most 63 characters, and not "ca".',
            field="node_id",
        )
    if days < 1:
        raise InvalidArgument("A certificate is valid for at least 1 day.", field="days")


@dataclass(frozen=True)
class Authority:
    """A CA's certificate and its private key. The repr shows neither."""

    certificate: x509.Certificate = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def load(cls, certificate_pem: bytes, key_pem: bytes, where: str) -> Authority:
        """Raises FailedPrecondition, naming `where`, for anything but a CA's certificate and its unencrypted key."""
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            key = serialization.load_pem_private_key(key_pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise FailedPrecondition(f"ca.crt or ca.key {where} is not an unencrypted PEM file.") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise FailedPrecondition(f"ca.key {where} is not the key of ca.crt.")
        return cls(certificate, key)

    @property
    def is_ca(self) -> bool:
        """Whether the certificate says that it may sign others."""
        try:
            return self.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except x509.ExtensionNotFound:
            return False

    def sign_node(
        self,
        public_key: ec.EllipticCurvePublicKey,
        node_id: str,
        *,
        dns_names: Sequence[str],
        ip_addresses: Sequence[str],
        days: int,
        now: datetime,
    ) -> x509.Certificate:
        """A node's certificate; see `issue_node`. Raises InvalidArgument, and FailedPrecondition when the CA ended."""
        _check_node(node_id, days)
        names = _alternative_names(node_id, dns_names, ip_addresses)
        ca_certificate = self.certificate
        start = now.replace(microsecond=0)
        end = min(start + timedelta(days=days), ca_certificate.not_valid_after_utc)
        if end <= start:
            raise FailedPrecondition(
                f"The cluster's CA ended on {ca_certificate.not_valid_after_utc:%Y-%m-%d}. Make a new one."
            )
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node_id)])
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        ca_key_id = ca_certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            _builder(subject, ca_certificate.subject, public_key, start, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_key_id), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256())


def _now(now: datetime | None) -> datetime:
    return (now or datetime.now(UTC)).replace(microsecond=0)


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(node_id: str, dns_names: Sequence[str], ip_addresses: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for name in dict.fromkeys([node_id, *dns_names]):  # keeps the order, drops repeats
        if not _DNS_NAME.fullmatch(name) or len(name) > 253:
            raise InvalidArgument(f"{name!r} is not a DNS name.", field="dns_names")
        names.append(x509.DNSName(name))
    for address in dict.fromkeys(ip_addresses):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            raise InvalidArgument(f"{address!r} is not an IP address.", field="ip_addresses") from None
    return names


def _load_ca(directory: Path) -> Authority:
    try:
        certificate, key = (directory / "ca.crt").read_bytes(), (directory / "ca.key").read_bytes()
    except OSError as error:
        raise FailedPrecondition(
            f"{error.filename}: {error.strerror}. Create the CA first, or name the folder that holds ca.crt and ca.key."
        ) from None
    return Authority.load(certificate, key, f"in {directory}")


def _files(directory: Path, stem: str) -> IssuedFiles:
    """The two paths, once the folder is fit to hold a private key and neither file exists."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = directory.stat().st_mode
    except OSError as error:
        raise FailedPrecondition(f"The folder {directory} cannot be used: {error.strerror}.") from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise FailedPrecondition(f"Other users can write in {directory}. Run `chmod 0700 {directory}` first.")
    files = IssuedFiles(directory / f"{stem}.crt", directory / f"{stem}.key")
    for path in (files.cert_file, files.key_file):
        if path.exists():
            raise AlreadyExists(f"{path} exists and is not overwritten. Move both of its files away first.")
    return files


def _write(files: IssuedFiles, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> IssuedFiles:
    pem = serialization.Encoding.PEM
    key_pem = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_new(files.key_file, key_pem, mode=0o600)
    try:
        write_new(files.cert_file, certificate.public_bytes(pem), mode=0o644)
    except BaseException:
        files.key_file.unlink()  # a key without its certificate would only be in the way of the next attempt
        raise
    return files


def write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file that appears whole, synced and with its final mode, or not at all; never over another."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        try:
            with open(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)  # whatever the umask is
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)  # unlike rename, refuses to replace
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise AlreadyExists(f"{path} exists and is not overwritten. Move both of its files away first.") from None
    except OSError as error:
        raise FailedPrecondition(f"{path} cannot be written: {error.strerror}.") from None
