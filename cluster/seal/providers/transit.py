"""`transit`: a key of another cluster's transit engine, by Vault's HTTP API over TLS.

    POST /v1/<mount>/encrypt/<key>  {"plaintext": base64, "associated_data": base64}  -> {"data": {"ciphertext": text}}
    POST /v1/<mount>/decrypt/<key>  {"ciphertext": text, "associated_data": base64}   -> {"data": {"plaintext": base64}}

Every server with this API will do (https://developer.hashicorp.com/vault/api-docs/secret/transit). The token is read
from its file at each call, so that an agent can renew it. Redirects are not followed: they would take the token away.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from holdfast.cluster.seal.providers.contract import (
    SOCKET_TIMEOUT_S,
    Binding,
    Health,
    Parameter,
    ProviderError,
    ProviderType,
)
from holdfast.cluster.seal.providers.credentials import TransitCredentials, read_secret
from holdfast.cluster.seal.providers.urls import check_https

_ANSWER_BYTES_MAX = 64 * 1024
_PORT = 8200
_SEGMENT = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]+")


class TransitProvider:
    """One key."""

    def __init__(self, *, address: str, mount: str, key: str, namespace: str, token_file: str, ca_file: str) -> None:
        self._address = address
        self._mount = mount
        self._key = key
        self._namespace = namespace
        self._token_file = token_file
        self._ca_file = ca_file

    def wrap(self, key: bytes, binding: Binding) -> bytes:
        """See Provider."""
        text = self._ask("encrypt", {"plaintext": _base64(key), "associated_data": _base64(binding.aad)}, "ciphertext")
        if not text.isascii() or not text:
            raise _strange()
        return text.encode()

    def unwrap(self, blob: bytes, binding: Binding) -> bytes:
        """See Provider."""
        try:
            ciphertext = blob.decode("ascii")
        except UnicodeDecodeError:
            raise ProviderError(Health.WRONG_KEY, "the stored wrap is not a transit ciphertext") from None
        text = self._ask("decrypt", {"ciphertext": ciphertext, "associated_data": _base64(binding.aad)}, "plaintext")
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise _strange() from None

    def _ask(self, operation: str, body: dict[str, str], wanted: str) -> str:
        status, answer = self._post(f"/v1/{self._mount}/{operation}/{quote(self._key, safe='')}", body)
        if status != 200:
            raise _told(status, operation)
        try:
            value: Any = json.loads(answer)["data"][wanted]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _strange() from None
        if not isinstance(value, str):
            raise _strange()
        return value

    def _post(self, path: str, body: dict[str, str]) -> tuple[int, bytes]:
        headers = {"X-Vault-Token": self._token(), "X-Vault-Request": "true", "Content-Type": "application/json"}
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        place = urlsplit(self._address)
        connection = http.client.HTTPSConnection(
            place.hostname or "", place.port or _PORT, timeout=SOCKET_TIMEOUT_S, context=self._tls()
        )
        try:
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            answer = response.read(_ANSWER_BYTES_MAX)
        except ssl.SSLCertVerificationError:
            raise ProviderError(
                Health.MISCONFIGURED, "its certificate is not trusted or names another host; see ca_file and address"
            ) from None
        except TimeoutError:
            raise ProviderError(Health.TIMEOUT, f"it was silent for {SOCKET_TIMEOUT_S:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise ProviderError(Health.UNREACHABLE, f"it cannot be reached ({_name(error)})") from None
        finally:
            connection.close()
        return response.status, answer

    def _token(self) -> str:
        try:
            token = read_secret(file=self._token_file)
        except ValueError as error:
            raise ProviderError(Health.MISCONFIGURED, str(error)) from None
        if not _HEADER_VALUE.fullmatch(token):
            raise ProviderError(Health.MISCONFIGURED, f"{self._token_file} does not hold a token")
        return token

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca_file or None)
        except (OSError, ssl.SSLError):
            raise ProviderError(Health.MISCONFIGURED, f"ca_file {self._ca_file} is not a readable PEM file") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


def _told(status: int, operation: str) -> ProviderError:
    """The error that an HTTP status stands for (developer.hashicorp.com/vault/api-docs#http-status-codes)."""
    if status == 400 and operation == "decrypt":
        message = "it cannot decrypt the wrap (400): the key, or the version of it that made the wrap, is not there"
        return ProviderError(Health.WRONG_KEY, message)
    if status in (401, 403):
        return ProviderError(
            Health.REFUSED,
            f"it refuses the token ({status}); renew it, and see that its policy allows encrypt and decrypt",
        )
    if status in (400, 404, 405):
        return ProviderError(
            Health.MISCONFIGURED, f"it has no such key or mount, or the key cannot {operation} ({status})"
        )
    if status == 503:
        return ProviderError(Health.UNREACHABLE, "it is sealed or in maintenance (503)")
    if 300 <= status < 400:
        return ProviderError(
            Health.MISCONFIGURED, f"it redirects ({status}), which is not followed; give the address that serves"
        )
    return ProviderError(Health.UNREACHABLE, f"it does not serve this now ({status})")


def _strange() -> ProviderError:
    return ProviderError(Health.FAILED, "its answer is not one of Vault's transit API; see the address and the mount")


def _name(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _check_path(text: str) -> None:
    if not all(_SEGMENT.fullmatch(segment) and segment.strip(".") for segment in text.split("/")):
        raise ValueError("letters, digits, '_', '.', '-', and '/' between segments")


def _check_segment(text: str) -> None:
    if "/" in text:
        raise ValueError("one name without '/'")
    _check_path(text)


def _open(parameters: Mapping[str, str], credentials: TransitCredentials, spent: str) -> TransitProvider:
    del spent
    return TransitProvider(
        address=credentials.address or parameters["address"],
        mount=parameters["mount"],
        key=parameters["key"],
        namespace=parameters.get("namespace", ""),
        token_file=credentials.token_file,
        ca_file=credentials.ca_file,
    )


TRANSIT = ProviderType(
    name="transit",
    help="a key of another cluster's transit engine (Vault's API)",
    parameters=(
        Parameter("address", "https://HOST[:PORT], port 8200", required=True, check=check_https),
        Parameter("key", "the key's name, of a type that authenticates (aes256-gcm96)", required=True,
                  check=_check_segment),
        Parameter("mount", "the engine's mount", default="transit", check=_check_path),
        Parameter("namespace", "the namespace of the mount", check=_check_path),
    ),
    credentials=TransitCredentials,
    open=_open,
)  # fmt: skip
