"""The certificates of a node's ports, read at the start and again at SIGHUP: no restart, and no session is lost.

All three ports follow: the client port's next handshakes, the peer port's next sessions, the metrics port's. What is
read again is first checked like at the start; if anything is wrong with it, everything stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import grpc
import structlog
from cryptography import x509
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast.proto.errors import HoldfastError
from holdfast.server import preflight
from holdfast.server.config import ConfigError, NodeConfig, TlsFiles

log = structlog.stdlib.get_logger(__name__)


class Certificates(Collector):
    """Of one node. wall_clock: Unix time in seconds.

    `reload` calls what `on_reload` was given, after the check; each may raise HoldfastError or OSError."""

    def __init__(self, config: NodeConfig, *, wall_clock: Callable[[], float]) -> None:
        self._config = config
        self._wall_clock = wall_clock
        self._followers: list[Callable[[], None]] = []
        self._expiry_s: dict[str, float] = {}
        self._current = _api_certificate(config.api.tls)
        self._served = self._current
        self._note()

    def api_credentials(self) -> grpc.ServerCredentials:
        """For the client port: the certificate as it was last read."""
        newer = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._newer)  # the stubs do not know of None
        return grpc.dynamic_ssl_server_credentials(self._current, newer, require_client_authentication=False)

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        """Asked by gRPC at each handshake, in a thread of its own; None for no change."""
        current = self._current
        if current is self._served:
            return None
        self._served = current
        return current

    def on_reload(self, follow: Callable[[], None]) -> None:
        """Have another port follow."""
        self._followers.append(follow)

    def reload(self) -> None:
        """Read the files again. Never raises: a node goes on with what it has, and its log says why."""
        try:
            now = datetime.fromtimestamp(self._wall_clock(), UTC)
            preflight.check_certificates(self._config, file=Path("node.yaml"), now=now)
            renewed = _api_certificate(self._config.api.tls)
            for follow in self._followers:
                follow()
        except (ConfigError, HoldfastError, OSError) as error:
            log.error("certificates_not_reloaded", reason=str(error))
            return
        self._current = renewed
        self._note()
        log.info("certificates_reloaded", not_after={port: int(end) for port, end in self._expiry_s.items()})

    def _note(self) -> None:
        for port, tls in (("api", self._config.api.tls), ("cluster", self._config.cluster.tls)):
            certificate = x509.load_pem_x509_certificates(Path(tls.cert_file).read_bytes())[0]
            self._expiry_s[port] = certificate.not_valid_after_utc.timestamp()

    def collect(self) -> Iterator[Metric]:
        """When the certificates in use end."""
        gauge = GaugeMetricFamily(
            "holdfast_certificate_expiry_timestamp_seconds",
            "Unix time at which the certificate of a port ends.",
            labels=["port"],
        )
        for port, end in self._expiry_s.items():
            gauge.add_metric([port], end)
        yield gauge


def _api_certificate(tls: TlsFiles) -> grpc.ServerCertificateConfiguration:
    pair = (Path(tls.key_file).read_bytes(), Path(tls.cert_file).read_bytes())
    return grpc.ssl_server_certificate_configuration([pair])
