"""`pkcs11`: an AES key in a hardware security module, by python-pkcs11 in a process of its own for each call.

A vendor's library is native code that this program did not choose: in the node's process, a crash of it would seal
every node at the same minute, a hang could not be ended, and it would read the keys beside it. A process is killed at
the deadline, and starts from nothing, so that a module that was unplugged and came back is found again. See
`pkcs11_worker` for what it does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping

from holdfast.cluster.seal.providers.contract import (
    CALL_TIMEOUT_S,
    Binding,
    Health,
    Parameter,
    ProviderError,
    ProviderType,
)
from holdfast.cluster.seal.providers.credentials import Pkcs11Credentials, read_secret

_WORKER = "holdfast.cluster.seal.providers.pkcs11_worker"
_WORKER_TIMEOUT_S = CALL_TIMEOUT_S - 1
_HEALTHS = {health.value: health for health in Health if health not in (Health.HEALTHY, Health.UNCHECKED)}


class Pkcs11Provider:
    """One key of one token. Remembers a PIN that was refused, by its digest, and does not give it again: a module locks
    itself after a few wrong ones."""

    def __init__(self, *, token: str, key: str, credentials: Pkcs11Credentials) -> None:
        self._token = token
        self._key = key
        self._credentials = credentials
        self._refused_pin = b""

    def wrap(self, key: bytes, binding: Binding) -> bytes:
        """See Provider."""
        return self._ask("wrap", key, binding)

    def unwrap(self, blob: bytes, binding: Binding) -> bytes:
        """See Provider."""
        return self._ask("unwrap", blob, binding)

    def describe(self) -> Mapping[str, str]:
        """See Provider."""
        return {"token": self._token, "key": self._key, "module": self._credentials.module}

    def _ask(self, operation: str, data: bytes, binding: Binding) -> bytes:
        pin = self._pin()
        order = {
            "module": self._credentials.module,
            "token": self._token,
            "key": self._key,
            "pin": pin,
            "operation": operation,
            "data": base64.b64encode(data).decode(),
            "aad": base64.b64encode(binding.aad).decode(),
            "seconds": int(_WORKER_TIMEOUT_S),
        }
        try:
            ended = subprocess.run(  # noqa: S603 - our own module, by our own interpreter
                [sys.executable, "-P", "-m", _WORKER],
                input=json.dumps(order).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_WORKER_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ProviderError(
                Health.TIMEOUT, f"the PKCS#11 library did not answer within {_WORKER_TIMEOUT_S:g} s"
            ) from None
        except OSError as error:
            raise ProviderError(Health.FAILED, f"no process could be started ({error.strerror})") from None
        if ended.returncode != 0:
            raise ProviderError(
                Health.UNREACHABLE, f"the PKCS#11 library ended its process (code {ended.returncode}); see the module"
            )
        return self._answer(ended.stdout, pin)

    def _answer(self, stdout: bytes, pin: str) -> bytes:
        try:
            answer = json.loads(stdout)
            if "data" in answer:
                return base64.b64decode(answer["data"], validate=True)
            health, message = _HEALTHS[answer["health"]], str(answer["message"])
        except (ValueError, KeyError, TypeError):
            raise ProviderError(Health.FAILED, "the PKCS#11 library wrote to its process's output") from None
        if answer.get("pin_refused"):
            self._refused_pin = _digest(pin)
        raise ProviderError(health, message)

    def _pin(self) -> str:
        try:
            pin = read_secret(file=self._credentials.pin_file, variable=self._credentials.pin_env)
        except ValueError as error:
            raise ProviderError(Health.MISCONFIGURED, str(error)) from None
        if _digest(pin) == self._refused_pin:
            raise ProviderError(
                Health.REFUSED, "the token refused this PIN, and it is not given again, lest the token lock; correct it"
            )
        return pin


def _digest(pin: str) -> bytes:
    return hashlib.sha256(pin.encode()).digest()


def _open(parameters: Mapping[str, str], credentials: Pkcs11Credentials) -> Pkcs11Provider:
    return Pkcs11Provider(token=parameters["token"], key=parameters["key"], credentials=credentials)


PKCS11 = ProviderType(
    name="pkcs11",
    help="an AES key in a hardware security module",
    parameters=(
        Parameter("token", "the token's label", required=True),
        Parameter("key", "the label of an AES key that may encrypt and decrypt", required=True),
    ),
    credentials=Pkcs11Credentials,
    open=_open,
)
