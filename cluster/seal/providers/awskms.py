"""`awskms`: a symmetric key of AWS KMS, by boto3.

The binding is the encryption context, which KMS authenticates and shows in CloudTrail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.cluster.seal.providers.contract import (
    SOCKET_TIMEOUT_S,
    Binding,
    Health,
    Parameter,
    ProviderError,
    ProviderType,
)
from holdfast.cluster.seal.providers.credentials import AwsKmsCredentials
from holdfast.cluster.seal.providers.urls import check_endpoint

_WRONG_KEY = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_REFUSED = frozenset({
    "AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException",
    "IncompleteSignature", "InvalidClientTokenId", "MissingAuthenticationToken", "OptInRequired",
})  # fmt: skip
_MISCONFIGURED = frozenset({
    "NotFoundException", "InvalidArnException", "InvalidKeyUsageException", "ValidationException",
})  # fmt: skip


class AwsKmsProvider:
    """One key."""

    def __init__(self, *, key_id: str, region: str, endpoint: str, profile: str) -> None:
        self._key_id = key_id
        self._region = region
        self._endpoint = endpoint
        self._profile = profile

    def wrap(self, key: bytes, binding: Binding) -> bytes:
        """See Provider."""
        answer = self._ask("encrypt", KeyId=self._key_id, Plaintext=key, EncryptionContext=binding.context)
        return bytes(answer["CiphertextBlob"])

    def unwrap(self, blob: bytes, binding: Binding) -> bytes:
        """See Provider."""
        answer = self._ask("decrypt", KeyId=self._key_id, CiphertextBlob=blob, EncryptionContext=binding.context)
        return bytes(answer["Plaintext"])

    def _ask(self, operation: str, **arguments: object) -> dict[str, Any]:
        try:
            import boto3
            from botocore import exceptions
            from botocore.config import Config
        except ImportError:
            raise ProviderError(Health.MISCONFIGURED, "this node lacks boto3: pip install 'holdfast[aws]'") from None
        try:
            session = boto3.session.Session(profile_name=self._profile or None)
            client = session.client(
                "kms",
                region_name=self._region or None,
                endpoint_url=self._endpoint or None,
                config=Config(
                    connect_timeout=SOCKET_TIMEOUT_S,
                    read_timeout=SOCKET_TIMEOUT_S,
                    retries={"total_max_attempts": 2, "mode": "standard"},
                ),
            )
            answer: dict[str, Any] = getattr(client, operation)(**arguments)
        except exceptions.ClientError as error:
            raise _told(str(error.response.get("Error", {}).get("Code", ""))) from None
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.CredentialRetrievalError):
            raise ProviderError(
                Health.MISCONFIGURED, "this node has no AWS credentials: see AWS's chain (environment, files, role)"
            ) from None
        except exceptions.HTTPClientError as error:
            raise ProviderError(
                Health.UNREACHABLE, f"KMS cannot be reached ({type(error).__name__}); see the network and the endpoint"
            ) from None
        except exceptions.BotoCoreError as error:
            raise ProviderError(
                Health.MISCONFIGURED, f"the AWS client cannot be used ({type(error).__name__}); see region and profile"
            ) from None
        return answer


def _told(code: str) -> ProviderError:
    """The error that KMS's code stands for. Codes are names from AWS's documentation."""
    shown = code if code.isalnum() and len(code) <= 64 else "an error without a code"
    if code in _WRONG_KEY:
        return ProviderError(Health.WRONG_KEY, f"KMS says that the wrap is not of this key and context ({shown})")
    if code in _REFUSED:
        return ProviderError(Health.REFUSED, f"KMS refuses this node's credentials ({shown}); see its IAM policy")
    if code in _MISCONFIGURED:
        return ProviderError(Health.MISCONFIGURED, f"KMS cannot use the key as asked ({shown}); see key_id and region")
    return ProviderError(Health.UNREACHABLE, f"KMS does not serve this now ({shown}); see the key's state and quotas")


def _open(parameters: Mapping[str, str], credentials: AwsKmsCredentials, spent: str) -> AwsKmsProvider:
    del spent
    return AwsKmsProvider(
        key_id=parameters["key_id"],
        region=parameters.get("region", ""),
        endpoint=parameters.get("endpoint", ""),
        profile=credentials.profile,
    )


AWSKMS = ProviderType(
    name="awskms",
    help="a symmetric key of AWS KMS",
    parameters=(
        Parameter("key_id", "the key's id, ARN or alias/NAME", required=True),
        Parameter("region", "its region; the AWS chain's without it"),
        Parameter("endpoint", "another endpoint, https://HOST[:PORT]", check=check_endpoint),
    ),
    credentials=AwsKmsCredentials,
    open=_open,
)
