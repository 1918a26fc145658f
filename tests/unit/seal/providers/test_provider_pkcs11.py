"""The PKCS#11 provider against the real SoftHSM 2: what works, and what each failure is called."""

from pathlib import Path

import pytest
from support.providers import KEY, ByProcess, binding_of, failure_of
from support.softhsm import PIN, SoftHsm, make_softhsm

from holdfast.cluster.seal.providers.contract import Binding, Health, Provider, ProviderError
from holdfast.cluster.seal.providers.credentials import Pkcs11Credentials

BINDING = binding_of("pkcs11")


@pytest.fixture(scope="module")
def shared_hsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return make_softhsm(tmp_path_factory.mktemp("hsm"))


@pytest.fixture
def hsm(shared_hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> SoftHsm:
    for name, value in shared_hsm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HSM_PIN", PIN)
    return shared_hsm


def provider(hsm: SoftHsm, **changes: str) -> Provider:
    given = {"module": hsm.module, "pin_file": "", "pin_env": "HSM_PIN", "token": hsm.token, "key": hsm.key, **changes}
    credentials = Pkcs11Credentials(
        module=given.pop("module"), pin_file=given.pop("pin_file"), pin_env=given.pop("pin_env")
    )
    return ByProcess("pkcs11", given, credentials)


def failed(provider: Provider, blob: bytes | None = None, binding: Binding = BINDING) -> ProviderError:
    return failure_of(provider, binding, blob, secret=PIN)


def test_what_was_wrapped_comes_back_bound_to_its_cluster_and_key(hsm: SoftHsm) -> None:
    one = provider(hsm)
    blob = one.wrap(KEY, BINDING)
    assert KEY not in blob
    assert one.unwrap(blob, BINDING) == KEY
    moved = binding_of("pkcs11", cluster_id="c-2")
    assert failed(one, blob, moved).health is Health.WRONG_KEY
    assert failed(one, blob[:-1] + bytes([blob[-1] ^ 1])).health is Health.WRONG_KEY
    hsm.make_key("second")
    assert failed(provider(hsm, key="second"), blob).health is Health.WRONG_KEY


def test_a_token_a_key_and_a_module_that_are_not_there_are_told_apart(hsm: SoftHsm, tmp_path: Path) -> None:
    assert failed(provider(hsm, token="gone")).health is Health.UNREACHABLE
    assert failed(provider(hsm, key="gone")).health is Health.WRONG_KEY
    assert failed(provider(hsm, module=str(tmp_path / "none.so"))).health is Health.MISCONFIGURED


def test_a_module_that_was_unplugged_and_came_back_is_found_again(hsm: SoftHsm) -> None:
    one = provider(hsm)
    blob = one.wrap(KEY, BINDING)
    away = hsm.tokens_dir.with_name("unplugged")
    hsm.tokens_dir.rename(away)
    hsm.tokens_dir.mkdir()
    try:
        assert failed(one, blob).health is Health.UNREACHABLE
    finally:
        hsm.tokens_dir.rmdir()
        away.rename(hsm.tokens_dir)
    assert one.unwrap(blob, BINDING) == KEY


def test_a_pin_that_was_refused_is_given_once_and_again_only_when_it_changed(
    hsm: SoftHsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = tmp_path / "pin"
    pin.write_text("9999\n")
    pin.chmod(0o600)
    one = provider(hsm, pin_file=str(pin), pin_env="")
    first = failed(one)
    assert first.health is Health.REFUSED
    assert "PinIncorrect" in first.message
    again = failed(one)
    assert again.health is Health.REFUSED
    assert "not given again" in again.message
    pin.write_text(PIN + "\n")
    assert one.wrap(KEY, BINDING)


def test_a_pin_that_is_nowhere_is_told(hsm: SoftHsm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HSM_PIN")
    assert failed(provider(hsm)).health is Health.MISCONFIGURED
