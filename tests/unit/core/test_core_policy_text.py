"""Policies as written: what is understood, and where an error is said to be."""

from typing import Any

import pytest

from holdfast.core.policy.parameters import refusal
from holdfast.core.policy.rules import Capability, read
from holdfast.proto.errors import InvalidArgument

VAULT = """
# Vault's documentation, nearly
name = "anything"
path "secret/data/*" {
  capabilities = ["create", "read", "update",] // a trailing comma
}
path "secret/data/super-secret" { capabilities = ["deny"] }
/* several
   lines */
path "secret/data/restricted" {
  capabilities       = ["create"]
  required_parameters = ["Owner"]
  allowed_parameters = {
    "foo" = []
    "bar" = ["zip", "zap", 1, true]
  }
  denied_parameters { "zzz" = ["*x"] }
  min_wrapping_ttl = "1s"
  max_wrapping_ttl = 90
}
"""


def test_a_policy_as_vault_documents_it() -> None:
    broad, denied, bounded = read(VAULT)
    assert broad.pattern == "secret/data/*"
    assert broad.capabilities == {Capability.CREATE, Capability.READ, Capability.UPDATE}
    assert broad.line == 4
    assert denied.capabilities == {Capability.DENY}
    assert bounded.allowed == {"foo": (), "bar": ("zip", "zap", 1, True)}
    assert bounded.denied == {"zzz": ("*x",)}
    assert bounded.required == {"owner"}
    assert (bounded.min_wrapping_s, bounded.max_wrapping_s) == (1, 90)


def test_json_is_read_too() -> None:
    rules = read('{"path": {"secret/*": {"capabilities": ["read"]}, "sys/*": {"capabilities": ["sudo", "read"]}}}')
    assert [rule.pattern for rule in rules] == ["secret/*", "sys/*"]


def test_an_empty_policy_has_no_rules() -> None:
    assert read("") == ()
    assert read("# nothing yet\n") == ()
    assert read("{}") == ()


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ('path "a" {\n  capabilities = ["raed"]\n}', "line 2, column 19", "no such capability"),
        ('path "a" {\n  capabilites = ["read"]\n}', "line 2, column 3", "no such member"),
        ('path "a" { capabilities = "read" }', "line 1, column 27", "must be a list"),
        ('path "a" { capabilities = [read] }', "line 1, column 28", "expected a value"),
        ('path "a" { capabilities = ["read" "list"] }', "line 1, column 35", 'expected ","'),
        ('path "a" { capabilities = ["read"] capabilities = ["list"] }', "line 1, column 36", "set twice"),
        ('path "a" {', "line 1, column 11", 'expected a name or "}"'),
        ('path "a" { }', "line 1, column 1", "gives nothing"),
        ('path "a" "b" { capabilities = [] }', "line 1, column 1", "one path"),
        ('path "" { capabilities = ["read"] }', "line 1, column 1", "names a path"),
        ('path "a*b" { capabilities = ["read"] }', "line 1, column 1", "last character"),
        ('path "a/+*" { capabilities = ["read"] }', "line 1, column 1", '"+*"'),
        ('rule "a" { capabilities = ["read"] }', "line 1, column 1", "consists of blocks"),
        ('path "a" { policy = "write" }', "line 1, column 12", "no such member"),
        ('path "a { capabilities = ["read"] }', "line 1, column 32", "does not end"),
        ("\n\n  /* never closed", "line 3, column 3", "does not end"),
        ("path <<EOF\n", "line 1, column 6", "here-documents"),
        ("path ?", "line 1, column 6", "no meaning"),
        ('path "\\q" {}', "line 1, column 6", "escape"),
        ('path "a" = 1', "line 1, column 10", 'expected "{"'),
        ('path "a" { capabilities = [' + "[" * 20, "line 1, column 43", "nested"),
        ('path "a" { capabilities = ["read"] min_wrapping_ttl = "soon" }', "line 1, column 55", "duration"),
        (
            'path "a" { capabilities = ["read"] min_wrapping_ttl = 9 max_wrapping_ttl = 3 }',
            "line 1, column 76",
            "less than",
        ),
        ('path "a" { capabilities = ["read"] allowed_parameters = { a = [] A = [] } }', "line 1, column 66", "twice"),
        ('{"path": {"a": {"capabilities": ["read"]}}} more', "line 1, column 45", "has ended"),
    ],
)
def test_an_error_says_where_and_repeats_nothing(text: str, where: str, what: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read(text)
    assert refused.value.field == "policy"
    assert refused.value.message.startswith(where + ":"), refused.value.message
    assert what in refused.value.message
    assert "raed" not in refused.value.message


def test_a_policy_is_bounded() -> None:
    with pytest.raises(InvalidArgument, match="KiB"):
        read("#" * 300_000)
    with pytest.raises(InvalidArgument, match="rules"):
        read('path "a" {capabilities=[]}' * 10_001)


def test_a_number_of_many_digits_is_refused_and_not_read() -> None:
    for number in ("1" * 5000, "-" + "9" * 200_000, "0." + "1" * 5000):
        with pytest.raises(InvalidArgument, match="line 1, column"):
            read(f'path "a" {{ allowed_parameters = {{ "n" = [{number}] }} capabilities = ["read"] }}')


def test_two_spellings_of_a_parameter_are_both_looked_at() -> None:
    bounds: Any = {"allowed": {"color": ("red",)}, "denied": {"size": ("big",)}, "required": frozenset()}
    assert not refusal({"color": "red"}, **bounds)
    for data in (
        {"color": "blue", "COLOR": "red"},
        {"COLOR": "red", "color": "blue"},
        {"color": "red", "size": "big", "SIZE": "small"},
    ):
        assert refusal(data, **bounds)
