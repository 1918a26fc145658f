"""The HTTPS port of a node's metrics and health: GET /metrics and GET /healthz, one answer per connection.

A few lines of asyncio instead of a web server: this port answers two fixed questions, in the node's own loop and
memory. It serves TLS only, with the certificate of the client port.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

import msgspec
import structlog

from holdfast.server.config import Address, TlsFiles
from holdfast.server.health import HEALTH_STATUS, HealthReport
from holdfast.server.limits import HTTP_CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX, HTTP_TIMEOUT_S
from holdfast.server.metrics import CONTENT_TYPE, Metrics

log = structlog.stdlib.get_logger(__name__)

_JSON = "application/json"
_STATUS = re.compile(r"[2-5][0-9]{2}")
_OVERRIDES = {"activecode": "active", "standbycode": "standby", "sealedcode": "sealed", "uninitcode": "uninitialized"}


class _Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class MetricsServer:
    """Serves `metrics` and `health` at an address."""

    def __init__(
        self, *, address: Address, tls: TlsFiles, metrics: Metrics, health: Callable[[], HealthReport]
    ) -> None:
        self._address = address
        self._tls = tls
        self._metrics = metrics
        self._health = health
        self._connections = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the address cannot be bound."""
        context = self._context
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.reload_certificate()
        self._server = await asyncio.start_server(
            self._serve,
            self._address.host,
            self._address.port,
            ssl=context,
            limit=HTTP_HEAD_BYTES_MAX,
            ssl_handshake_timeout=HTTP_TIMEOUT_S,
        )

    def reload_certificate(self) -> None:
        """Read the certificate again; connections from here on use it. Raises OSError (ssl.SSLError is one)."""
        self._context.load_cert_chain(self._tls.cert_file, self._tls.key_file)

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None, "not started"
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening; answers under way may end."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            async with asyncio.timeout(HTTP_TIMEOUT_S):
                answer = await self._answer(reader)
                writer.write(_encode(answer))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side went away or never asked, or the node stops; there is nobody to tell
        except Exception:
            log.exception("unexpected exception on the metrics port")
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> _Answer:
        if self._connections > HTTP_CONNECTIONS_MAX:
            return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"too many connections; try again\n")
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"request head too large\n")
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _Answer(HTTPStatus.BAD_REQUEST, b"not an HTTP/1.1 request\n")
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return _Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET\n")
        return self._route(target)

    def _route(self, target: str) -> _Answer:
        try:
            url = urlsplit(target)
        except ValueError:  # such as half of an IPv6 address
            return _Answer(HTTPStatus.BAD_REQUEST, b"not a request target\n")
        if url.path == "/metrics":
            return _Answer(HTTPStatus.OK, self._metrics.exposition(), CONTENT_TYPE)
        if url.path == "/healthz":
            return self._healthz(dict(parse_qsl(url.query)))
        return _Answer(HTTPStatus.NOT_FOUND, b"see /metrics and /healthz\n")

    def _healthz(self, query: Mapping[str, str]) -> _Answer:
        """Vault's health codes, each overridable by a query parameter, as in /healthz?standbycode=200."""
        report = self._health()
        status = HEALTH_STATUS[report.state]
        for name, state in _OVERRIDES.items():
            code = query.get(name, "")
            if not code:
                continue
            if not _STATUS.fullmatch(code):
                return _Answer(HTTPStatus.BAD_REQUEST, f"{name} must be a status from 200 to 599\n".encode())
            if report.state == state:
                status = int(code)
        return _Answer(status, msgspec.json.encode(report) + b"\n", _JSON)


def _encode(answer: _Answer) -> bytes:
    reason = HTTPStatus(answer.status).phrase if answer.status in HTTPStatus._value2member_map_ else "Status"
    head = (
        f"HTTP/1.1 {int(answer.status)} {reason}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + answer.body
