"""Settings: where they come from, what is refused, and that a token is never shown or read from an open file."""

import stat
from pathlib import Path

import pytest

from holdfast.client import ClientConfig, LocalError, errors
from holdfast.client.config import TOKEN_FILE_NAME, parse_address, read_token_file, write_token_file


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("127.0.0.1:8200", "127.0.0.1:8200"),
        ("https://vault.example.net:9000/", "vault.example.net:9000"),
        ("https://vault.example.net", "vault.example.net:8200"),
        ("node-1", "node-1:8200"),
        ("[::1]:8200", "[::1]:8200"),
        ("https://[fe80::1]", "[fe80::1]:8200"),
    ],
)
def test_addresses_are_taken_as_people_write_them(written: str, meant: str) -> None:
    assert parse_address(written) == meant


@pytest.mark.parametrize(
    "written", ["http://a:1", "a:0", "a:70000", "a:b", "a/b", "a b", "user@host:1", "::1", "https://"]
)
def test_what_is_no_address_is_refused(written: str) -> None:
    with pytest.raises(LocalError) as raised:
        parse_address(written)
    assert raised.value.field == "addresses"


def test_holdfast_variables_win_over_their_vault_twins_and_empty_ones_count_as_unset(tmp_path: Path) -> None:
    environment = {
        "HOLDFAST_ADDR": "a:1, https://b:2,a:1",
        "VAULT_ADDR": "c:3",
        "HOLDFAST_TOKEN": "",
        "VAULT_TOKEN": "hvs.vault",
        "VAULT_CACERT": "/ca.pem",
        "HOLDFAST_CLIENT_TIMEOUT": "1m30s",
        "VAULT_MAX_RETRIES": "3",
        "HOLDFAST_TLS_SERVER_NAME": "node",
    }
    config = ClientConfig.from_environment(environment, home=tmp_path)
    assert config.targets == ("a:1", "b:2")
    assert config.token == "hvs.vault"
    assert config.ca_file == Path("/ca.pem")
    assert (config.timeout_s, config.max_retries, config.tls_server_name) == (90.0, 3, "node")
    assert ClientConfig.from_environment(environment, home=tmp_path, addresses="d:4").targets == ("d:4",)


def test_without_any_setting_the_node_on_this_machine_is_meant(tmp_path: Path) -> None:
    assert ClientConfig.from_environment({}, home=tmp_path) == ClientConfig()


@pytest.mark.parametrize(
    "environment",
    [
        {"HOLDFAST_CLIENT_TIMEOUT": "soon"},
        {"HOLDFAST_CLIENT_TIMEOUT": "0"},
        {"HOLDFAST_MAX_RETRIES": "-1"},
        {"HOLDFAST_CLIENT_CERT": "/a.pem"},
        {"HOLDFAST_ADDR": ","},
        {"HOLDFAST_TOKEN": "two words"},
    ],
)
def test_a_setting_that_makes_no_sense_is_a_local_error(environment: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(LocalError):
        ClientConfig.from_environment(environment, home=tmp_path)


@pytest.mark.parametrize("name", ["HOLDFAST_NAMESPACE", "VAULT_NAMESPACE", "HOLDFAST_WRAP_TTL"])
def test_a_setting_that_would_silently_do_less_than_it_says_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(errors.Unimplemented):
        ClientConfig.from_environment({name: "60s"}, home=tmp_path)


def test_a_stored_token_is_private_and_is_used_when_no_other_is_given(tmp_path: Path) -> None:
    path = tmp_path / TOKEN_FILE_NAME
    write_token_file(path, "hvs.first")
    write_token_file(path, " hvs.stored\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [child.name for child in tmp_path.iterdir()] == [TOKEN_FILE_NAME]
    assert ClientConfig.from_environment({}, home=tmp_path).token == "hvs.stored"
    assert ClientConfig.from_environment({"HOLDFAST_TOKEN": "hvs.other"}, home=tmp_path).token == "hvs.other"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_token_file_that_others_can_touch_is_not_used(mode: int, tmp_path: Path) -> None:
    path = tmp_path / TOKEN_FILE_NAME
    write_token_file(path, "hvs.stored")
    path.chmod(mode)
    with pytest.raises(LocalError, match="chmod 600") as raised:
        ClientConfig.from_environment({}, home=tmp_path)
    assert "hvs" not in str(raised.value)


def test_a_token_file_that_is_none_is_refused_or_counts_as_absent(tmp_path: Path) -> None:
    assert read_token_file(tmp_path / "absent") == ""
    path = tmp_path / TOKEN_FILE_NAME
    path.mkdir()
    with pytest.raises(LocalError):
        read_token_file(path)
    path.rmdir()
    path.touch(0o600)
    assert read_token_file(path) == ""
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(LocalError):
        read_token_file(path)


def test_a_token_file_that_cannot_be_written_is_a_local_error(tmp_path: Path) -> None:
    with pytest.raises(LocalError):
        write_token_file(tmp_path / "absent" / "file", "hvs.x")
