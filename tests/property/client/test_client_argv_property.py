"""Command lines: however Vault's users write their flags, click gets the same ones."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.client.cli.argv import Vocabulary, normalize
from holdfast.client.cli.main import cli

WORDS = Vocabulary(
    valued=frozenset({"field", "format", "cas", "address", "n", "key-shares"}),
    switches={"yes": "", "reset": "", "cas-required": "no-cas-required"},
)

positionals = st.text(min_size=1, max_size=12).filter(lambda text: not text.startswith("-"))
values = st.text(max_size=12)
dashes = st.sampled_from(["-", "--"])
long_valued = st.sampled_from(["field", "format", "cas", "address", "key-shares"])


@given(st.lists(positionals, max_size=8))
def test_words_that_are_no_flags_are_left_alone(words: list[str]) -> None:
    assert normalize(words, WORDS) == words


@given(st.lists(st.text(max_size=8), max_size=8))
def test_nothing_after_a_double_dash_is_touched(words: list[str]) -> None:
    assert normalize(["--", *words], WORDS) == ["--", *words]


@given(dashes, long_valued, values, positionals)
def test_one_or_two_dashes_and_any_value_say_the_same(dash: str, name: str, value: str, after: str) -> None:
    assert normalize([f"{dash}{name}={value}", after], WORDS) == [f"--{name}={value}", after]
    assert normalize([after, f"{dash}{name}", value], WORDS) == [after, f"--{name}", value]


@given(dashes, st.sampled_from(["true", "T", "1", "TRUE"]), positionals)
def test_a_switch_may_be_given_its_value(dash: str, true: str, after: str) -> None:
    assert normalize([f"{dash}yes={true}", after], WORDS) == ["--yes", after]
    assert normalize([f"{dash}yes=false", after], WORDS) == [after]
    assert normalize([f"{dash}cas-required=false", after], WORDS) == ["--no-cas-required", after]


@given(st.lists(st.text(max_size=10), max_size=8))
def test_normalising_twice_changes_nothing_more(words: list[str]) -> None:
    once = normalize(words, WORDS)
    assert normalize(once, WORDS) == once


@given(st.integers(0, 255))
def test_short_flags_stay_short(number: int) -> None:
    for words in (["-n", str(number)], [f"-n={number}"]):
        assert normalize(words, WORDS) == ["-n", str(number)]
    assert normalize([f"-n{number}"], WORDS) == [f"-n{number}"]


def test_the_vocabulary_of_the_command_holds_every_flag() -> None:
    known = Vocabulary.of(cli)
    assert {"address", "ca-cert", "format", "field", "mount", "versions", "cas", "n", "t", "key-shares"} <= known.valued
    assert {"yes", "reset", "dev", "help", "h"} <= set(known.switches)
    assert known.switches["cas-required"] == "no-cas-required"


def test_a_name_that_is_a_switch_here_and_takes_a_value_there_keeps_its_value() -> None:
    assert normalize(["kv", "get", "-version=1", "a/b"], Vocabulary.of(cli)) == ["kv", "get", "--version=1", "a/b"]
