"""`pkcs11`: an AES key in a hardware security module, by python-pkcs11.

    sealed = IV (12 bytes, random) CKM_AES_GCM(key, data, binding) with its tag of 16 bytes

CKM_AES_GCM is the mechanism that SoftHSM 2.6 and today's modules share, that authenticates, and that takes the binding.
Nothing but names of PKCS#11 return codes is taken from the library into a message. A PIN that was refused is not given
again until it changes: tokens lock themselves after a few wrong ones.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from holdfast.cluster.seal.providers.contract import Binding, Health, Parameter, ProviderError, ProviderType
from holdfast.cluster.seal.providers.credentials import Pkcs11Credentials, read_secret

_IV_BYTES = 12
_TAG_BITS = 128

_PIN = frozenset({"PinIncorrect", "PinInvalid", "PinLenRange"})
_REFUSED = frozenset({
    "PinLocked", "PinExpired", "UserPinNotInitialized", "UserTooManyTypes", "UserNotLoggedIn", "FunctionRejected",
})  # fmt: skip
_CIPHERTEXT = frozenset({
    "EncryptedDataInvalid", "EncryptedDataLenRange", "GeneralError", "SignatureInvalid", "DataInvalid",
    "FunctionFailed",
})  # fmt: skip
_KEY = frozenset({
    "MechanismInvalid", "MechanismParamInvalid", "KeyTypeInconsistent", "KeySizeRange", "FunctionNotSupported",
    "ArgumentsBad",
})  # fmt: skip


class Pkcs11Provider:
    """One key of one token. spent: the digest of a PIN that was refused."""

    def __init__(self, *, token: str, key: str, credentials: Pkcs11Credentials, spent: str) -> None:
        self._token = token
        self._key = key
        self._credentials = credentials
        self._spent = spent

    def wrap(self, key: bytes, binding: Binding) -> bytes:
        """See Provider."""
        iv = os.urandom(_IV_BYTES)
        return iv + self._crypt("wrap", key, iv, binding)

    def unwrap(self, blob: bytes, binding: Binding) -> bytes:
        """See Provider."""
        return self._crypt("unwrap", blob[_IV_BYTES:], blob[:_IV_BYTES], binding)

    def _crypt(self, operation: str, data: bytes, iv: bytes, binding: Binding) -> bytes:
        pin = self._pin()
        library = _library()
        token = self._find_token(library)
        try:
            session = token.open(user_pin=pin)
        except library.PKCS11Error as error:
            if type(error).__name__ in _PIN:
                raise ProviderError(
                    Health.REFUSED, f"the token refused the PIN ({type(error).__name__})", spent=_digest(pin)
                ) from None
            raise _told(error, "log in") from None
        with session:
            key = self._find_key(library, session)
            gcm = {
                "mechanism": library.Mechanism.AES_GCM,
                "mechanism_param": library.GCMParams(iv, binding.aad, _TAG_BITS),
            }
            try:
                return bytes(key.encrypt(data, **gcm) if operation == "wrap" else key.decrypt(data, **gcm))
            except library.PKCS11Error as error:
                raise _told(error, operation) from None

    def _pin(self) -> str:
        try:
            pin = read_secret(file=self._credentials.pin_file, variable=self._credentials.pin_env)
        except ValueError as error:
            raise ProviderError(Health.MISCONFIGURED, str(error)) from None
        if _digest(pin) == self._spent:
            message = "the token refused this PIN, and it is not given again, lest the token lock itself; correct it"
            raise ProviderError(Health.REFUSED, message, spent=self._spent)
        return pin

    def _find_token(self, library: Any) -> Any:
        try:
            return library.lib(self._credentials.module).get_token(token_label=self._token)
        except library.NoSuchToken:
            message = "no token of that label is present; see that the module is plugged in"
            raise ProviderError(Health.UNREACHABLE, message) from None
        except library.MultipleTokensReturned:
            message = "several tokens have that label; give them different ones"
            raise ProviderError(Health.MISCONFIGURED, message) from None
        except library.PKCS11Error as error:
            if type(error) is library.PKCS11Error:  # raised by python-pkcs11 itself, for a library that does not load
                message = "the module cannot be loaded as a PKCS#11 library; see `module` in node.yaml"
                raise ProviderError(Health.MISCONFIGURED, message) from None
            raise _told(error, "find the token") from None

    def _find_key(self, library: Any, session: Any) -> Any:
        try:
            return session.get_key(
                object_class=library.ObjectClass.SECRET_KEY, key_type=library.KeyType.AES, label=self._key
            )
        except library.NoSuchKey:
            message = "the token holds no AES key of that label; restore it there"
            raise ProviderError(Health.WRONG_KEY, message) from None
        except library.MultipleObjectsReturned:
            raise ProviderError(Health.MISCONFIGURED, "the token holds several AES keys of that label") from None
        except library.PKCS11Error as error:
            raise _told(error, "find the key") from None


def _library() -> Any:
    try:
        import pkcs11
    except ImportError:
        message = "this node lacks python-pkcs11: pip install 'holdfast[pkcs11]'"
        raise ProviderError(Health.MISCONFIGURED, message) from None
    return pkcs11


def _told(error: Exception, doing: str) -> ProviderError:
    """What a return code of the library means."""
    name = type(error).__name__
    if name in _REFUSED or name in _PIN:
        return ProviderError(Health.REFUSED, f"the token refused to {doing} ({name})")
    if name in _CIPHERTEXT and doing == "unwrap":
        return ProviderError(Health.WRONG_KEY, f"the key in the token does not open the wrap ({name})")
    if name in _KEY:
        return ProviderError(Health.MISCONFIGURED, f"the token cannot use CKM_AES_GCM with this key ({name})")
    return ProviderError(Health.UNREACHABLE, f"the token did not {doing} ({name})")


def _digest(pin: str) -> str:
    return hashlib.sha256(pin.encode()).hexdigest()


def _open(parameters: Mapping[str, str], credentials: Pkcs11Credentials, spent: str) -> Pkcs11Provider:
    return Pkcs11Provider(token=parameters["token"], key=parameters["key"], credentials=credentials, spent=spent)


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
