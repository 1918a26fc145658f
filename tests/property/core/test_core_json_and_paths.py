"""Codecs and parsers of the core: what is accepted comes back as it was, and what is not is refused with a field."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.audit import Hasher
from holdfast.core.idempotency import fingerprint
from holdfast.core.paths import Pattern, split
from holdfast.core.plugin import fields, jsondata
from holdfast.core.plugin.times import go_duration
from holdfast.core.request import PATH_BYTES_MAX, Operation, Request
from holdfast.engines.kv.merge import merge_patch, subkeys
from holdfast.proto.errors import InvalidArgument

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=5)
ANYTHING = st.recursive(
    SCALARS | st.floats() | st.binary(max_size=3) | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner) | st.tuples(inner),
    max_leaves=10,
)


def same(left: Any, right: Any) -> bool:
    """Equality that also tells 1 from 1.0 and from True."""
    return json.dumps(left) == json.dumps(right)


@settings(deadline=None)
@given(JSON)
def test_json_comes_back_as_it_was(value: Any) -> None:
    assert same(jsondata.decode(jsondata.encode(value, field="data")), value)


@settings(deadline=None)
@given(ANYTHING)
def test_any_python_value_is_kept_exactly_or_refused_with_the_field(value: Any) -> None:
    try:
        encoded = jsondata.encode(value, field="data")
    except InvalidArgument as refusal:
        assert refusal.field == "data"  # noqa: PT017
    else:
        assert same(jsondata.decode(encoded), value)


@settings(deadline=None)
@given(st.text(st.characters(), max_size=40) | st.text("ab/.\0\n", max_size=20), st.sampled_from(Operation))
def test_a_path_is_split_into_clean_segments_or_refused(path: str, operation: Operation) -> None:
    try:
        segments = split(path, operation)
    except InvalidArgument as refusal:
        assert refusal.field == "path"  # noqa: PT017
        assert len(path) < 9 or path not in refusal.message  # noqa: PT017
        return
    assert "/".join(segments) == (path.removesuffix("/") if operation is Operation.LIST else path)
    assert len(path.encode()) <= PATH_BYTES_MAX + 1
    for segment in segments:
        assert segment not in ("", ".", "..")
        assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in segment)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "{x}", "{y}"]), max_size=3),
    st.booleans(),
    st.lists(st.sampled_from("abc"), max_size=5),
)
def test_patterns_match_as_a_naive_matcher_does(parts: list[str], rest: bool, path: list[str]) -> None:
    if (not parts and not rest) or len({p for p in parts if "{" in p}) != sum("{" in p for p in parts):
        return
    found = Pattern.compile("/".join([*parts, *(["{rest...}"] if rest else [])])).match(path, Operation.READ)
    long_enough = len(path) > len(parts) if rest else len(path) == len(parts)
    if long_enough and all(p == s or "{" in p for p, s in zip(parts, path, strict=False)):
        expected = {p.strip("{}"): s for p, s in zip(parts, path, strict=False) if "{" in p}
        assert found == (expected | {"rest": "/".join(path[len(parts) :])} if rest else expected)
    else:
        assert found is None


@settings(deadline=None)
@given(st.integers(0, fields.DURATION_S_MAX))
def test_durations_come_back_from_the_form_they_are_shown_in(seconds: int) -> None:
    for form in (go_duration(seconds), seconds, str(seconds)):
        assert fields.duration_s({"d": form}, "d") == seconds


@settings(deadline=None)
@given(JSON, st.sampled_from(["i", "l", "b", "t", "m", "d"]))
def test_readers_of_members_read_or_refuse_and_never_break(value: Any, reader: str) -> None:
    read: dict[str, Any] = {
        "i": fields.integer, "l": fields.integers, "b": fields.boolean, "t": fields.text, "m": fields.mapping,
        "d": fields.duration_s,
    }  # fmt: skip
    try:
        read[reader]({"member": value}, "member")
    except InvalidArgument as refusal:
        assert refusal.field == "member"  # noqa: PT017


@settings(deadline=None)
@given(OBJECTS, OBJECTS)
def test_a_merge_patch_has_the_properties_that_rfc_7396_gives_it(target: dict[str, Any], patch: dict[str, Any]) -> None:
    before = json.dumps([target, patch])
    merged = merge_patch(target, patch)
    assert json.dumps([target, patch]) == before
    assert merge_patch(target, {}) == target
    assert same(merge_patch(merged, patch), merged)
    for name, value in patch.items():
        assert (name in merged) == (value is not None)
    for name in target.keys() - patch.keys():
        assert same(merged[name], target[name])


@settings(deadline=None)
@given(OBJECTS, st.integers(0, 4))
def test_subkeys_hold_names_only(document: dict[str, Any], depth: int) -> None:
    def leaves(value: Any, level: int) -> int:
        if not isinstance(value, dict):
            assert value is None
            return level
        return max((leaves(item, level + 1) for item in value.values()), default=level)

    names = subkeys(document, depth)
    assert names.keys() == document.keys()
    assert not depth or leaves(names, 0) <= depth


@settings(deadline=None)
@given(OBJECTS, OBJECTS)
def test_requests_have_one_fingerprint_exactly_when_they_ask_the_same(
    left: dict[str, Any], right: dict[str, Any]
) -> None:
    def print_of(data: dict[str, Any], path: str = "p", token: str = "t") -> bytes:
        return fingerprint(Request(operation=Operation.UPDATE, path=path, data=data, token=token))

    assert print_of(left) == print_of(dict(reversed(left.items())))
    equal = json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
    assert (print_of(left) == print_of(right)) == equal
    assert len({print_of(left, "ab", "c"), print_of(left, "a", "bc"), print_of(left, "abc", "")}) == 3


@settings(deadline=None)
@given(OBJECTS)
def test_audit_hashes_every_string_and_number(data: dict[str, Any]) -> None:
    def check(given_: Any, shown: Any) -> None:
        if isinstance(given_, dict):
            assert given_.keys() == shown.keys()
            for name, item in given_.items():
                check(item, shown[name])
        elif isinstance(given_, list):
            for item, other in zip(given_, shown, strict=True):
                check(item, other)
        elif given_ is None or isinstance(given_, bool):
            assert shown is given_
        else:
            assert shown == "" if given_ == "" else shown.startswith("hmac-sha256:")

    check(data, Hasher(bytes(32)).scrub(data))
