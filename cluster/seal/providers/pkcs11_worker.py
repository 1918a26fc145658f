"""The process that speaks to a PKCS#11 library: an order on standard input, an answer on standard output, and the end.

    order  = JSON: module, token, key, pin, operation (wrap | unwrap), data, aad (base64), seconds
    answer = JSON: data (base64), or health, message and pin_refused
    sealed = IV (12 bytes, random) CKM_AES_GCM(key, data, aad) with its tag of 16 bytes

CKM_AES_GCM is the mechanism that SoftHSM 2.6 and today's modules share, that authenticates, and that takes the binding.
Nothing but names of PKCS#11 return codes is taken from the library into an answer.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

_IV_BYTES = 12
_TAG_BITS = 128
_PR_SET_DUMPABLE = 4  # linux/prctl.h

_PIN = frozenset({"PinIncorrect", "PinInvalid", "PinLenRange"})
_REFUSED = frozenset({"PinLocked", "PinExpired", "UserPinNotInitialized", "UserTooManyTypes", "UserNotLoggedIn",
                      "FunctionRejected", "KeyFunctionNotPermitted"})  # fmt: skip
_CIPHERTEXT = frozenset({"EncryptedDataInvalid", "EncryptedDataLenRange", "GeneralError", "SignatureInvalid",
                         "DataInvalid", "FunctionFailed"})  # fmt: skip
_KEY = frozenset({"MechanismInvalid", "MechanismParamInvalid", "KeyTypeInconsistent", "KeySizeRange",
                  "FunctionNotSupported", "ArgumentsBad"})  # fmt: skip


class _Failure(Exception):
    def __init__(self, health: str, message: str, *, pin_refused: bool = False) -> None:
        super().__init__(message)
        self.answer = {"health": health, "message": message, "pin_refused": pin_refused}


def carry_out(order: dict[str, Any]) -> bytes:
    """The bytes asked for. Raises _Failure."""
    try:
        import pkcs11
    except ImportError:
        message = "this node lacks python-pkcs11: pip install 'holdfast[pkcs11]'"
        raise _Failure("misconfigured", message) from None
    token = _token(pkcs11, order)
    try:
        session = token.open(user_pin=order["pin"])
    except pkcs11.PKCS11Error as error:
        raise _told(error, "log in") from None
    with session:
        key = _key(pkcs11, session, order["key"])
        data, aad = base64.b64decode(order["data"]), base64.b64decode(order["aad"])
        wraps = order["operation"] == "wrap"
        iv = os.urandom(_IV_BYTES) if wraps else data[:_IV_BYTES]
        gcm = {
            "mechanism": pkcs11.Mechanism.AES_GCM,
            "mechanism_param": pkcs11.GCMParams(iv, aad, _TAG_BITS),
        }
        try:
            if wraps:
                return bytes(iv + key.encrypt(data, **gcm))
            return bytes(key.decrypt(data[_IV_BYTES:], **gcm))
        except pkcs11.PKCS11Error as error:
            raise _told(error, order["operation"]) from None


def _token(pkcs11: Any, order: dict[str, Any]) -> Any:
    try:
        return pkcs11.lib(order["module"]).get_token(token_label=order["token"])
    except pkcs11.NoSuchToken:
        raise _Failure("unreachable", "no token of that label is present; see that the module is plugged in") from None
    except pkcs11.MultipleTokensReturned:
        raise _Failure("misconfigured", "several tokens have that label; give them different ones") from None
    except pkcs11.PKCS11Error as error:
        if type(error) is pkcs11.PKCS11Error:  # raised by the wrapper itself, for a library that does not load
            message = "the module cannot be loaded as a PKCS#11 library; see `module` in node.yaml"
            raise _Failure("misconfigured", message) from None
        raise _told(error, "find the token") from None


def _key(pkcs11: Any, session: Any, label: str) -> Any:
    try:
        return session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, key_type=pkcs11.KeyType.AES, label=label)
    except pkcs11.NoSuchKey:
        raise _Failure("wrong_key", "the token holds no AES key of that label; restore it there") from None
    except pkcs11.MultipleObjectsReturned:
        raise _Failure("misconfigured", "the token holds several AES keys of that label") from None
    except pkcs11.PKCS11Error as error:
        raise _told(error, "find the key") from None


def _told(error: Exception, doing: str) -> _Failure:
    """What a return code of the library means."""
    name = type(error).__name__
    if name in _PIN:
        return _Failure("refused", f"the token refused the PIN ({name})", pin_refused=True)
    if name in _REFUSED:
        return _Failure("refused", f"the token refused to {doing} ({name})")
    if name in _CIPHERTEXT and doing == "unwrap":
        return _Failure("wrong_key", f"the key in the token does not open the wrap ({name})")
    if name in _KEY:
        return _Failure("misconfigured", f"the token cannot use CKM_AES_GCM with this key ({name})")
    return _Failure("unreachable", f"the token did not {doing} ({name})")


def main() -> None:
    """Read, carry out, answer. What passes through here is a secret: no core dumps, no debugger, and an end in time."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    order = json.loads(sys.stdin.buffer.read())
    signal.alarm(order["seconds"] + 1)  # should the node be gone, and nobody left to end this process
    # A library that prints must not spoil the answer: its standard output is /dev/null from here on.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        answer: dict[str, Any] = {"data": base64.b64encode(carry_out(order)).decode()}
    except _Failure as failure:
        answer = failure.answer
    out.write(json.dumps(answer).encode())
    out.close()
    os._exit(0)  # a library that crashes while it is unloaded has answered


if __name__ == "__main__":
    main()
