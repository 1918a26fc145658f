"""The KMS provider against moto's real server: what works, and what each failure is called."""

from collections.abc import Iterator

import pytest
from support.moto_kms import ENVIRONMENT, REGION, MotoKms, moto_kms
from support.providers import KEY, binding_of, failure_of

from holdfast.cluster.seal.providers import awskms
from holdfast.cluster.seal.providers.awskms import AWSKMS
from holdfast.cluster.seal.providers.contract import Binding, Health, Provider
from holdfast.cluster.seal.providers.credentials import AwsKmsCredentials
from holdfast.proto.errors import InvalidArgument

BINDING = binding_of("awskms")


@pytest.fixture(scope="module")
def kms() -> Iterator[MotoKms]:
    with moto_kms() as server:
        yield server


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def provider(kms: MotoKms, key_id: str, **changes: str) -> Provider:
    given = {"key_id": key_id, "region": REGION, "endpoint": kms.endpoint, **changes}
    return AWSKMS.open(AWSKMS.checked(given), AwsKmsCredentials(), "")


def health_of(provider: Provider, blob: bytes | None = None, binding: Binding = BINDING) -> Health:
    return failure_of(provider, binding, blob).health


def test_what_was_wrapped_comes_back_bound_to_its_context(kms: MotoKms) -> None:
    one = provider(kms, kms.make_key())
    blob = one.wrap(KEY, BINDING)
    assert one.unwrap(blob, BINDING) == KEY
    assert health_of(one, blob, binding_of("awskms", cluster_id="c-2")) is Health.WRONG_KEY
    assert health_of(one, blob[:-1] + bytes([blob[-1] ^ 1])) is Health.WRONG_KEY


def test_a_key_that_is_not_there_is_told(kms: MotoKms) -> None:
    assert health_of(provider(kms, "00000000-0000-0000-0000-000000000000")) is Health.MISCONFIGURED


def test_an_outage_is_told_and_the_end_of_it_is_noticed(kms: MotoKms) -> None:
    one = provider(kms, kms.make_key())
    blob = one.wrap(KEY, BINDING)
    kms.relay.cut()
    try:
        assert health_of(one, blob) is Health.UNREACHABLE
    finally:
        kms.relay.heal()
    assert one.unwrap(blob, BINDING) == KEY


def test_silence_is_told(kms: MotoKms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awskms, "SOCKET_TIMEOUT_S", 0.3)
    one = provider(kms, kms.make_key())
    kms.freeze()
    try:
        assert health_of(one) is Health.UNREACHABLE
    finally:
        kms.thaw()
    monkeypatch.undo()


def test_a_node_without_credentials_or_region_is_told_so(kms: MotoKms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert health_of(provider(kms, "k")) is Health.MISCONFIGURED
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    assert health_of(provider(kms, "k", region="", endpoint="")) is Health.MISCONFIGURED


@pytest.mark.parametrize(
    ("code", "health"),
    [
        ("AccessDeniedException", Health.REFUSED),
        ("ExpiredTokenException", Health.REFUSED),
        ("IncorrectKeyException", Health.WRONG_KEY),
        ("InvalidKeyUsageException", Health.MISCONFIGURED),
        ("DisabledException", Health.UNREACHABLE),
        ("KMSInvalidStateException", Health.UNREACHABLE),
        ("ThrottlingException", Health.UNREACHABLE),
        ("", Health.UNREACHABLE),
        ("two words", Health.UNREACHABLE),
    ],
)
def test_the_codes_of_kms_are_told_apart(code: str, health: Health) -> None:
    error = awskms._told(code)
    assert error.health is health
    assert "two words" not in error.message


@pytest.mark.parametrize(
    "given",
    [{}, {"key_id": "k", "endpoint": "http://kms.example.org"}, {"key_id": "k", "secret_access_key": "x"}],
)
def test_parameters_that_cannot_be_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        AWSKMS.checked(given)
