"""The typed services' fields: what is taken, what is refused, and by which name."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.proto.errors import InvalidArgument
from holdfast.server import validation as v

BAD_PATHS = ["/a", "a/", "a//b", "a/../b", ".", "a/./b", "a\x00b", "a\nb", "a\x7f", "/"]


@pytest.mark.parametrize("path", [*BAD_PATHS, "", "p" * 1025, "é" * 513])
def test_bad_paths_are_refused_and_not_quoted(path: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        v.check_path(path)
    assert caught.value.field == "path"
    assert len(path) < 3 or path not in caught.value.message


@pytest.mark.parametrize("path", ["a", "my app/db", "a.b/..c", "ключ", "p" * 1024])
def test_good_paths_are_taken_as_they_are(path: str) -> None:
    assert v.check_path(path) == path


@pytest.mark.parametrize("mount", [*BAD_PATHS, "m" * 129])
def test_bad_mounts_are_refused(mount: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        v.check_mount(mount)
    assert caught.value.field == "mount"


def test_no_mount_means_secret() -> None:
    assert v.check_mount("") == "secret"
    assert v.check_mount("team/kv") == "team/kv"


@pytest.mark.parametrize(("path", "folder"), [("", ""), ("a", "a"), ("a/", "a"), ("a/b/", "a/b")])
def test_a_folder_may_end_in_a_slash(path: str, folder: str) -> None:
    assert v.check_folder(path) == folder


@pytest.mark.parametrize("path", ["/", "//", "/a", "a//"])
def test_a_folder_is_a_path_otherwise(path: str) -> None:
    with pytest.raises(InvalidArgument):
        v.check_folder(path)


@pytest.mark.parametrize("versions", [[], [0], [1, 0], [2**63], list(range(1, 1002))])
def test_bad_versions_are_refused(versions: list[int]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        v.check_versions(versions)
    assert caught.value.field == "versions"


def test_versions_may_be_left_out_where_that_means_the_current_one() -> None:
    assert v.check_versions([], empty_ok=True) == []
    assert v.check_versions([3, 1]) == [3, 1]


def test_page_sizes() -> None:
    assert v.check_page_size(0) == 1000
    assert v.check_page_size(7) == 7
    with pytest.raises(InvalidArgument):
        v.check_page_size(1001)


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=200))
def test_a_page_token_brings_its_name_back(name: str) -> None:
    name = name.replace("/", "") or "x"
    if name not in (".", ".."):
        assert v.decode_page_token(v.encode_page_token(name)) == name
        assert v.decode_page_token(v.encode_page_token(name + "/")) == name + "/"


@pytest.mark.parametrize("token", ["x", "====", "AA", "AQ", "!!", "Ag" * 3, "A" * 5000, "AWE vYg", "AWEvL2I", "AS4u"])
def test_other_tokens_are_refused(token: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        v.decode_page_token(token)
    assert caught.value.field == "page_token"


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_checks_end_in_an_answer_or_in_invalid_argument(text: str) -> None:
    checks: list[Callable[[str], str]] = [
        v.check_mount, v.check_path, v.check_folder, v.check_logical_path, v.decode_page_token
    ]  # fmt: skip
    for check in checks:
        try:
            check(text)
        except InvalidArgument as error:
            assert error.field  # noqa: PT017 - the refusal is what is looked at
