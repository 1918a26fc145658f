"""What is checked of a configuration before a node starts: that the files it names can serve their purpose.

A node that starts with an unreadable key or another node's certificate fails later and less clearly.
"""

from __future__ import annotations

import os
import stat
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from holdfast.server.config import ConfigError, NodeConfig, TlsFiles


def check(config: NodeConfig, *, file: Path, now: datetime) -> None:
    """Check the files and the data folder that `config` names. `file` is the configuration's own name, for errors.

    Raises ConfigError naming the field at fault.
    """
    check_certificates(config, file=file, now=now)
    _check_data_dir(Path(config.data_dir), f"{file}: data_dir")


def check_certificates(config: NodeConfig, *, file: Path, now: datetime) -> None:
    """Check the certificates and keys that `config` names. Raises ConfigError."""
    for section, tls in (("api", config.api.tls), ("cluster", config.cluster.tls)):
        prefix = f"{file}: {section}.tls"
        certificate = _check_tls(tls, prefix, now)
        if section == "cluster":
            _check_signed(tls, prefix, certificate)
        common_names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        names = [str(name.value) for name in common_names]
        # Peers know each other by this name; the client port is verified by host name and may have another certificate.
        if section == "cluster" and names != [config.node_id]:
            raise ConfigError(
                f"{prefix}.cert_file: issued to {', '.join(names) or 'nobody'}, but node_id is {config.node_id}; "
                f"issue one with 'holdfastd certs issue DIR {config.node_id}'"
            )


def _check_tls(tls: TlsFiles, prefix: str, now: datetime) -> x509.Certificate:
    certificate = _certificate(tls.cert_file, f"{prefix}.cert_file")
    _certificate(tls.ca_file, f"{prefix}.ca_file")
    if now >= certificate.not_valid_after_utc:
        raise ConfigError(f"{prefix}.cert_file: expired on {certificate.not_valid_after_utc:%Y-%m-%d}; issue a new one")
    key_field = f"{prefix}.key_file"
    key_pem = _read(tls.key_file, key_field)
    mode = stat.S_IMODE(Path(tls.key_file).stat().st_mode)
    if mode & 0o007:
        raise ConfigError(
            f"{key_field}: anyone on this machine can use it (mode {mode:04o}); chmod 0600 {tls.key_file}"
        )
    try:
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{key_field}: not an unencrypted PEM private key") from error
    key_form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*key_form) != certificate.public_key().public_bytes(*key_form):
        raise ConfigError(f"{key_field}: does not belong to the certificate in {prefix.rpartition(' ')[2]}.cert_file")
    return certificate


def _check_signed(tls: TlsFiles, prefix: str, certificate: x509.Certificate) -> None:
    """A certificate that stands alone, without a chain, must have been signed by the CA itself."""
    if len(x509.load_pem_x509_certificates(_read(tls.cert_file, f"{prefix}.cert_file"))) > 1:
        return
    for authority in x509.load_pem_x509_certificates(_read(tls.ca_file, f"{prefix}.ca_file")):
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return
    raise ConfigError(f"{prefix}.cert_file: not signed by the CA in {prefix.rpartition(' ')[2]}.ca_file")


def _certificate(name: str, field: str) -> x509.Certificate:
    """The first certificate of a PEM file."""
    try:
        return x509.load_pem_x509_certificates(_read(name, field))[0]
    except ValueError as error:
        raise ConfigError(f"{field}: not a PEM certificate") from error


def _read(name: str, field: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"{field}: {name} cannot be read: {error.strerror or error}") from error


def _check_data_dir(folder: Path, field: str) -> None:
    """An existing folder must be ours alone; a missing one must be possible to make."""
    if folder.exists():
        if not folder.is_dir():
            raise ConfigError(f"{field}: {folder} is not a folder")
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise ConfigError(f"{field}: {folder} is not writable by this user")
        return
    parent = next(p for p in folder.parents if p.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{field}: {folder} does not exist and cannot be made in {parent}")
