"""The transit provider against a server that speaks Vault's API: what works, and what each failure is called."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.providers import KEY, binding_of, failure_of
from support.transit_server import TransitServer, transit_server

from holdfast.cluster.seal.providers import transit
from holdfast.cluster.seal.providers.contract import Binding, Health, Provider, ProviderError
from holdfast.cluster.seal.providers.credentials import TransitCredentials
from holdfast.cluster.seal.providers.transit import TRANSIT
from holdfast.proto.errors import InvalidArgument

BINDING = binding_of("transit")


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransitServer]:
    with transit_server(tmp_path_factory.mktemp("transit")) as server:
        yield server


@pytest.fixture
def server(shared_server: TransitServer) -> Iterator[TransitServer]:
    yield shared_server
    shared_server.sealed, shared_server.answer_with, shared_server.delay_s = False, None, 0.0
    shared_server.token, shared_server.namespace = "s.token", ""
    shared_server.requests.clear()


def provider(server: TransitServer, tmp_path: Path, **changes: str) -> Provider:
    token = tmp_path / "token"
    if not token.exists():
        token.write_text("s.token\n")
        token.chmod(0o600)
    given = {"address": server.address, "key": "holdfast", **changes}
    ca_file = given.pop("ca_file", str(server.ca_file))
    pinned = given.pop("pinned", "")
    credentials = TransitCredentials(token_file=str(token), ca_file=ca_file, address=pinned)
    return TRANSIT.open(TRANSIT.checked(given), credentials, "")


def health_of(provider: Provider, blob: bytes | None = None, binding: Binding = BINDING) -> Health:
    return failure_of(provider, binding, blob, secret="s.token").health


def test_what_was_wrapped_comes_back_and_the_token_and_the_key_stay_out_of_sight(
    server: TransitServer, tmp_path: Path
) -> None:
    one = provider(server, tmp_path)
    blob = one.wrap(KEY, BINDING)
    assert blob.startswith(b"vault:v1:")
    assert one.unwrap(blob, BINDING) == KEY
    assert "s.token" not in repr(one)


def test_a_key_that_was_rotated_there_opens_old_wraps_and_makes_new_ones(server: TransitServer, tmp_path: Path) -> None:
    one = provider(server, tmp_path, key="rotating")
    server.rotate("rotating")
    old = one.wrap(KEY, BINDING)
    server.rotate("rotating")
    new = one.wrap(KEY, BINDING)
    assert new.startswith(b"vault:v2:")
    assert one.unwrap(old, BINDING) == one.unwrap(new, BINDING) == KEY


def test_a_wrap_of_another_key_or_binding_and_a_tampered_one_are_a_wrong_key(
    server: TransitServer, tmp_path: Path
) -> None:
    one = provider(server, tmp_path)
    blob = one.wrap(KEY, BINDING)
    server.keys.setdefault("other", [os.urandom(32)])
    assert health_of(provider(server, tmp_path, key="other"), blob) is Health.WRONG_KEY
    moved = binding_of("transit", cluster_id="c-2")
    assert health_of(one, blob, moved) is Health.WRONG_KEY
    assert health_of(one, blob.replace(b"vault:v1", b"vault:v9")) is Health.WRONG_KEY
    assert health_of(one, b"\xff\xfe") is Health.WRONG_KEY


@pytest.mark.parametrize(
    ("status", "body", "health"),
    [
        (403, b'{"errors":["permission denied"]}', Health.REFUSED),
        (404, b'{"errors":[]}', Health.MISCONFIGURED),
        (307, b"", Health.MISCONFIGURED),
        (500, b'{"errors":["internal error"]}', Health.UNREACHABLE),
        (429, b"{}", Health.UNREACHABLE),
        (200, b"not json", Health.FAILED),
        (200, b'{"data": null}', Health.FAILED),
        (200, b'{"data": {"plaintext": 5}}', Health.FAILED),
        (200, b'{"data": {"plaintext": "***"}}', Health.FAILED),
        (200, b"[" * 60_000, Health.FAILED),
    ],
)
def test_what_it_answers_is_told_apart(
    server: TransitServer, tmp_path: Path, status: int, body: bytes, health: Health
) -> None:
    server.answer_with = (status, body)
    assert health_of(provider(server, tmp_path), b"vault:v1:AAAA") is health
    assert len(server.requests) == 1, "a redirect is not followed"


def test_a_sealed_server_a_revoked_token_and_a_missing_key_or_namespace_are_told_apart(
    server: TransitServer, tmp_path: Path
) -> None:
    one = provider(server, tmp_path)
    server.sealed = True
    assert health_of(one) is Health.UNREACHABLE
    server.sealed, server.token = False, "s.another"
    assert health_of(one) is Health.REFUSED
    (tmp_path / "token").write_text("s.another")  # renewed under the running node
    assert one.wrap(KEY, BINDING)
    assert health_of(provider(server, tmp_path, key="missing")) is Health.MISCONFIGURED
    server.namespace = "team"
    assert health_of(one) is Health.MISCONFIGURED
    assert provider(server, tmp_path, namespace="team").wrap(KEY, BINDING)


def test_nobody_there_silence_and_a_stranger_s_certificate_are_told_apart(
    server: TransitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert health_of(provider(server, tmp_path, address="https://127.0.0.1:9")) is Health.UNREACHABLE
    before = len(server.requests)
    assert health_of(provider(server, tmp_path, ca_file="")) is Health.MISCONFIGURED
    assert len(server.requests) == before, "the token never left"
    monkeypatch.setattr(transit, "SOCKET_TIMEOUT_S", 0.2)
    server.delay_s = 1.0
    assert health_of(provider(server, tmp_path)) is Health.TIMEOUT


def test_the_node_s_own_address_decides_where_its_token_goes(server: TransitServer, tmp_path: Path) -> None:
    one = provider(server, tmp_path, address="https://elsewhere.invalid", pinned=server.address)
    assert one.unwrap(one.wrap(KEY, BINDING), BINDING) == KEY


def test_a_token_file_that_cannot_be_used_is_named_and_not_quoted(server: TransitServer, tmp_path: Path) -> None:
    one = provider(server, tmp_path)
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(ProviderError, match="chmod 0600") as caught:
        one.wrap(KEY, BINDING)
    assert caught.value.health is Health.MISCONFIGURED
    (tmp_path / "token").chmod(0o600)
    for text in ("", "two words", "s.token\x01"):
        (tmp_path / "token").write_text(text)
        assert health_of(one) is Health.MISCONFIGURED
    (tmp_path / "token").unlink()
    assert health_of(one) is Health.MISCONFIGURED


@pytest.mark.parametrize(
    "given",
    [
        {"key": "holdfast"},
        {"address": "https://v", "key": ""},
        {"address": "http://v", "key": "k"},
        {"address": "https://user:pw@v", "key": "k"},
        {"address": "https://v/path", "key": "k"},
        {"address": "https://v:x", "key": "k"},
        {"address": "https://v", "key": "a/b"},
        {"address": "https://v", "key": ".."},
        {"address": "https://v", "key": "k", "mount": "a//b"},
        {"address": "https://v", "key": "k", "token": "s.token"},
        {"address": "https://v", "key": "k", "namespace": "x" * 600},
    ],
)
def test_parameters_that_cannot_be_are_refused_by_name(given: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        TRANSIT.checked(given)
    assert caught.value.field
    assert "s.token" not in caught.value.message
