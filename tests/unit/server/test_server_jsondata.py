"""JSON on the wire: exact, or refused."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.request import DATA_BYTES_MAX
from holdfast.proto.errors import InvalidArgument
from holdfast.server.jsondata import encode_object, parse_forwarded, parse_object

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)))
)  # fmt: skip
names = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(names, v, max_size=4), max_leaves=20)
objects = st.dictionaries(names, values, max_size=5)


@settings(deadline=None, max_examples=200)
@given(objects)
def test_an_object_comes_back_as_it_was(value: dict[str, object]) -> None:
    encoded = encode_object(value)
    for parsed in (parse_object(encoded), parse_forwarded(encoded)):
        assert json.dumps(parsed) == json.dumps(value)
        assert encode_object(parsed) == encoded


@pytest.mark.parametrize("number", [2**53 + 1, 2**64, -(2**64) - 1, 10**4000])
def test_integers_of_any_size_stay_integers(number: int) -> None:
    assert parse_object(b'{"n":%d}' % number) == {"n": number}


@pytest.mark.parametrize("text", ["1.0", "0.1", "1e300", "-0.0", "1.7976931348623157e308", "5e-324"])
def test_fractions_stay_doubles(text: str) -> None:
    value = parse_object(b'{"n":%s}' % text.encode())["n"]
    assert isinstance(value, float)
    assert math.copysign(1, value) == math.copysign(1, float(text))
    assert value == float(text)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "must be a JSON object"),
        (b"[]", "must be a JSON object, such as"),
        (b'"secret-marker"', "must be a JSON object, such as"),
        (b"{secret-marker}", "must be a JSON object in UTF-8: .* at character 1"),
        (b'{"secret-marker":1,"secret-marker":2}', "a member is given twice"),
        (b'{"a":{"b":1,"b":1}}', "a member is given twice"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":-Infinity}', "-Infinity is not JSON"),
        (b'{"a":1e400}', "beyond the range of a double"),
        (b'{"a":"\xff"}', "must be a JSON object in UTF-8: bad byte 6"),
        (b'{"a":"\\ud800"}', "half of a UTF-16 surrogate pair"),
        (b'{"a":"\\uDC00x"}', "half of a UTF-16 surrogate pair"),
        (b'{"a":%s1%s}' % (b"[" * 100, b"]" * 100), "nested more than 100 levels"),
        (b'{"a":' + b"[" * 200_000, "nested more than 100 levels"),
        (b'{"a":%s}' % (b"9" * 4301), "an integer of more than 4,300 digits"),
        (b'{"a":"%s"}' % (b"x" * DATA_BYTES_MAX), "at most 1048576 are allowed"),
    ],
)
def test_what_would_not_survive_is_refused_without_being_quoted(data: bytes, expected: str) -> None:
    with pytest.raises(InvalidArgument, match=expected) as caught:
        parse_object(data)
    assert caught.value.field == "data"
    assert "secret-marker" not in caught.value.message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_surrogate_pair_is_one_character() -> None:
    assert parse_object(b'{"a":"\\ud83d\\ude00"}') == {"a": "\U0001f600"}


def test_depth_counts_brackets_outside_strings_only() -> None:
    assert parse_object(b'{"a":"%s\\""}' % (b"[" * 500)) == {"a": "[" * 500 + '"'}
    assert parse_object(b'{"a":[%s]}' % b",".join([b"[]"] * 500))["a"] == [[]] * 500


def test_nothing_may_mean_an_empty_object() -> None:
    assert parse_object(b"", empty_ok=True) == {}
