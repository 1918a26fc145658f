"""A server that speaks the encrypt and decrypt of Vault's transit engine over TLS, with real AES-256-GCM keys in
versions, Vault's error bodies and status codes. A test may rotate, seal, revoke, redirect, delay."""

import base64
import contextlib
import json
import os
import re
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.server.certs import create_ca, issue_node

_PATH = re.compile(r"/v1/(?P<mount>[\w/-]+)/(?P<operation>encrypt|decrypt)/(?P<key>[\w-]+)")


class TransitServer:
    """Public for tests: `token`, `namespace`, `keys` (name -> list of AES keys, version 1 first), `sealed`,
    `answer_with` (a status and a body instead of the real answer), `delay_s`, `requests` (paths with their headers)."""

    def __init__(self, folder: Path, *, token: str = "s.token", mount: str = "transit") -> None:
        create_ca(folder, "transit")
        files = issue_node(folder, "transit", ["localhost"], ["127.0.0.1"], 30)
        self.ca_file = folder / "ca.crt"
        self.token, self.mount, self.namespace = token, mount, ""
        self.keys: dict[str, list[bytes]] = {}
        self.sealed = False
        self.answer_with: tuple[int, bytes] | None = None
        self.delay_s = 0.0
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._httpd.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.cert_file, files.key_file)
        self._httpd.socket = context.wrap_socket(self._httpd.socket, server_side=True, do_handshake_on_connect=False)
        self.port: int = self._httpd.server_address[1]
        threading.Thread(target=self._httpd.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def rotate(self, key: str) -> None:
        self.keys.setdefault(key, []).append(os.urandom(32))

    def close(self) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()

    def answer(self, path: str, headers: dict[str, str], body: dict[str, str]) -> tuple[int, object]:
        """What Vault answers."""
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if headers.get("x-vault-token") != self.token:
            return 403, {"errors": ["permission denied"]}
        place = _PATH.fullmatch(path)
        if place is None or place["mount"] != self.mount or headers.get("x-vault-namespace", "") != self.namespace:
            return 404, {"errors": ["no handler for route"]}
        aad = base64.b64decode(body.get("associated_data", ""))
        versions = self.keys.get(place["key"], [])
        if place["operation"] == "encrypt":
            if not versions:
                return 400, {"errors": ["encryption key not found"]}
            nonce = os.urandom(12)
            sealed = nonce + AESGCM(versions[-1]).encrypt(nonce, base64.b64decode(body["plaintext"]), aad)
            return 200, {"data": {"ciphertext": f"vault:v{len(versions)}:{base64.b64encode(sealed).decode()}"}}
        prefix, version, sealed_text = body["ciphertext"].split(":")
        number = int(version.removeprefix("v"))
        if prefix != "vault" or not 1 <= number <= len(versions):
            return 400, {"errors": ["invalid ciphertext: version is too new"]}
        sealed = base64.b64decode(sealed_text)
        try:
            plaintext = AESGCM(versions[number - 1]).decrypt(sealed[:12], sealed[12:], aad)
        except InvalidTag:
            return 400, {"errors": ["cipher: message authentication failed"]}
        return 200, {"data": {"plaintext": base64.b64encode(plaintext).decode()}}

    def _handler(outer) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.requests.append((self.path, headers))
                time.sleep(outer.delay_s)
                if outer.answer_with is not None:
                    status, data = outer.answer_with
                else:
                    status, value = outer.answer(self.path, headers, json.loads(body))
                    data = json.dumps(value).encode()
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    if 300 <= status < 400:
                        self.send_header("Location", "https://elsewhere.invalid/")
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@contextlib.contextmanager
def transit_server(folder: Path, key: str = "holdfast") -> Iterator[TransitServer]:
    """A server with one key, ended at the end."""
    server = TransitServer(folder)
    server.rotate(key)
    try:
        yield server
    finally:
        server.close()
