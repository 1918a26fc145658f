"""How channels to nodes are set up: TLS always, keepalive, quick reconnection, room for a full batch."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import grpc

from holdfast.client.config import ClientConfig
from holdfast.client.failures import LocalError

ANSWER_BYTES_MAX = 128 * 1024 * 1024
"""The largest answer accepted: a batch of 100 secrets of 1 MiB, with room to spare."""


def credentials(config: ClientConfig) -> grpc.ChannelCredentials:
    """TLS credentials from the files that `config` names. Raises LocalError when one cannot be read."""
    return grpc.ssl_channel_credentials(
        root_certificates=_read(config.ca_file, "the CA file"),
        private_key=_read(config.client_key_file, "the client key"),
        certificate_chain=_read(config.client_cert_file, "the client certificate"),
    )


def options(config: ClientConfig, address: str) -> list[tuple[str, Any]]:
    """Channel arguments for `address`."""
    chosen: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
        # A connection whose other end died is noticed within half a minute even when a call waits on it.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        # A node that comes back is used at once; gRPC's own back-off goes up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 2_000),
        ("grpc.max_reconnect_backoff_ms", 500),
        # Repetition is decided in one place (retry.py); and clients do not share connections behind their backs.
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if config.tls_server_name:
        chosen.append(("grpc.ssl_target_name_override", config.tls_server_name))
    if _is_loopback(address):
        chosen.append(("grpc.enable_http_proxy", 0))
    return chosen


def _read(path: Path | None, what: str) -> bytes | None:
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise LocalError(f"{what} {path} cannot be read: {problem.strerror}.", field="tls") from None
    if b"-----BEGIN " not in content:
        raise LocalError(f"{what} {path} is not a PEM file.", field="tls")
    return content


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
