"""Data arguments, durations and JSON: what goes in comes out, and nothing that is wrong gets through."""

import contextlib
import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.client.calls.call import decode_object, encode_object
from holdfast.client.cli.data import parse_data
from holdfast.client.cli.output import plain, table
from holdfast.client.durations import format_duration, parse_duration
from holdfast.client.failures import LocalError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
keys = texts.filter(lambda key: key and not key.startswith("@") and "=" not in key)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20)


def no_input(_key: str) -> str:
    raise AssertionError("nothing is to be read")


@given(st.dictionaries(texts, values))
def test_json_objects_survive_the_round_trip_exactly(members: dict[str, Any]) -> None:
    assert decode_object(encode_object(members)) == members


@given(st.dictionaries(keys, texts))
def test_key_value_arguments_give_back_every_value(members: dict[str, str]) -> None:
    arguments = [
        f"{key}={chr(92)}{value}" if value.startswith(("@", "-")) else f"{key}={value}"
        for key, value in members.items()
    ]
    escaped = {key: value for key, value in members.items() if not value.startswith(("\\@", "\\-"))}
    parsed = parse_data(arguments, read_input=no_input).members
    assert {key: parsed[key] for key in escaped} == escaped


@given(st.dictionaries(keys, values, max_size=5))
def test_a_whole_object_from_standard_input_is_taken_as_it_is(members: dict[str, Any]) -> None:
    assert parse_data(["-"], read_input=lambda _key: json.dumps(members)).members == members


@given(st.text(max_size=30))
def test_a_wrong_argument_is_a_clear_error_and_is_not_repeated(text: str) -> None:
    secret = "hunter2" + text.replace("=", "")
    with pytest.raises(LocalError) as raised:
        parse_data([secret], read_input=no_input)
    assert secret not in str(raised.value)


@given(st.integers(0, 10**10))
def test_durations_are_read_back_as_they_are_written(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration), field="x") == duration


@given(st.text(max_size=10))
def test_any_text_is_a_duration_or_a_clear_error(text: str) -> None:
    with contextlib.suppress(LocalError):
        assert parse_duration(text, field="x") >= timedelta(0)


@given(st.lists(st.tuples(texts, texts), max_size=5))
def test_stored_data_cannot_act_on_the_terminal(rows: list[tuple[str, str]]) -> None:
    shown = table(["Key", "Value"], rows)
    assert all(character.isprintable() or character in "\n\t" for character in shown)
    assert plain("\x1b[31m") == "\\x1b[31m"
