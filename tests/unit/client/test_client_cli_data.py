"""`key=value`, `key=@file`, `key=-`, `@whole.json`: what each becomes, and what is refused."""

from pathlib import Path

import pytest

from holdfast.client.cli.data import FILE_BYTES_MAX, parse_data
from holdfast.client.failures import LocalError


def reader(key: str) -> str:
    return '{"whole": 1}' if not key else f"typed for {key}"


def test_every_form_of_a_value(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("-----BEGIN\nline\n")
    (tmp_path / "more.json").write_text('{"port": 5432, "tags": ["a"]}')
    arguments = ["user=admin", "empty=", "url=a=b", f"key=@{tmp_path}/key.pem", "pw=-", r"at=\@x", r"dash=\-", "-"]
    assert parse_data([*arguments, f"@{tmp_path}/more.json"], read_input=reader).members == {
        "user": "admin",
        "empty": "",
        "url": "a=b",
        "key": "-----BEGIN\nline\n",
        "pw": "typed for pw",
        "at": "@x",
        "dash": "-",
        "whole": 1,
        "port": 5432,
        "tags": ["a"],
    }


@pytest.mark.parametrize(
    ("argument", "exposed"),
    [
        ("password=hunter2", True),
        ("DB_PASSWD=x", True),
        ("api_key=x", True),
        ("client_secret=x", True),
        ("token=x", True),
        ("username=admin", False),
        ("monkey=x", False),
        ("password=-", False),
        ("password=", False),
    ],
)
def test_only_a_literal_value_of_a_telling_key_counts_as_exposed(argument: str, exposed: bool) -> None:
    assert bool(parse_data([argument], read_input=reader).exposed) == exposed


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1, "a": 2}', "twice"),
        (b"[1]", "JSON object"),
        (b'{"a": ', "line 1"),
        (b"\xff\xfe", "UTF-8"),
        (b" " * (FILE_BYTES_MAX + 1), "1 MiB"),
    ],
)
def test_a_file_that_cannot_be_a_secret_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(LocalError, match=words):
        parse_data([f"@{tmp_path}/file"], read_input=reader)


@pytest.mark.parametrize("arguments", [["novalue"], ["=x"], ["a=1", "a=2"], ["@/no/such/file"], ["a=@/no/such/file"]])
def test_arguments_that_are_no_data_are_refused(arguments: list[str]) -> None:
    with pytest.raises(LocalError):
        parse_data(arguments, read_input=reader)


def test_parsed_data_is_not_shown_by_repr() -> None:
    assert "hunter2" not in repr(parse_data(["password=hunter2"], read_input=reader))
