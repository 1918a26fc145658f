"""The compiled policies and the naive ones agree."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support import naive_policy

from holdfast.core.policy.acl import Acl, Asked
from holdfast.core.policy.patterns import Trie, priority
from holdfast.core.policy.rules import read
from holdfast.core.request import Operation

SEGMENT = st.sampled_from(["a", "b", "ab", "abc", "+", "a+", ""])
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "abc", "abcd", "+", ""]), min_size=1, max_size=4).map("/".join)


@st.composite
def patterns(draw: st.DrawFn) -> str:
    pattern = "/".join(draw(st.lists(SEGMENT, min_size=1, max_size=4))).lstrip("/")
    if draw(st.booleans()) and not pattern.endswith("+"):
        pattern += "*"
    return pattern if pattern and not pattern.endswith("+*") else "a"


NAMES = ["x", "y", "z"]
VALUES = st.sampled_from(["one", "two", "onetwo", 1, True, "*"])
BOUNDS = st.dictionaries(
    st.sampled_from([*NAMES, "*"]),
    st.lists(st.sampled_from(["one", "on*", "*wo", "*net*", 1, True, "*"]), max_size=2),
    max_size=3,
)


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "path": draw(patterns()),
        "capabilities": draw(
            st.lists(
                st.sampled_from(["create", "read", "update", "patch", "delete", "list", "sudo", "deny"]),
                min_size=1,
                max_size=8,
                unique=True,
            ).map(lambda found: found if len(found) != 8 else ["read"])
        ),
    }
    if draw(st.booleans()):
        rule["allowed"] = draw(BOUNDS)
    if draw(st.integers(0, 3)) == 0:
        rule["denied"] = draw(BOUNDS)
    if draw(st.integers(0, 3)) == 0:
        rule["required"] = draw(st.lists(st.sampled_from(NAMES), max_size=2))
    low, high = sorted((draw(st.integers(0, 3)), draw(st.integers(0, 3))))
    if draw(st.integers(0, 3)) == 0:
        rule["min"], rule["max"] = low, high
    return rule


_MEMBERS = {
    "allowed": "allowed_parameters",
    "denied": "denied_parameters",
    "required": "required_parameters",
    "min": "min_wrapping_ttl",
    "max": "max_wrapping_ttl",
}


def as_hcl(listed: list[dict[str, Any]]) -> str:
    blocks = []
    for rule in listed:
        members = [f"capabilities = {json.dumps(rule['capabilities'])}"]
        members += [f"{_MEMBERS[name]} = {json.dumps(rule[name])}" for name in _MEMBERS if name in rule]
        body = "\n  ".join(members)
        blocks.append(f"path {json.dumps(rule['path'])} {{\n  {body}\n}}\n")
    return "# a policy\n" + "\n".join(blocks)


def as_json(listed: list[dict[str, Any]]) -> str:
    return json.dumps(
        {
            "path": [
                {
                    rule["path"]: {
                        "capabilities": rule["capabilities"],
                        **{_MEMBERS[name]: rule[name] for name in _MEMBERS if name in rule},
                    }
                }
                for rule in listed
            ]
        },
        indent=1,
    )


@given(
    st.lists(st.tuples(st.sampled_from(["p", "q", "r"]), rules()), max_size=8),
    st.lists(
        st.tuples(
            PATHS,
            st.sampled_from(list(Operation)),
            st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3),
            st.booleans(),
            st.none() | st.integers(0, 4),
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_compiled_and_naive_policies_decide_alike(
    named: list[tuple[str, dict[str, Any]]], requests: list[tuple[str, Operation, dict[str, Any], bool, int | None]]
) -> None:
    texts = {name: [rule for of, rule in named if of == name] for name in ("p", "q", "r")}
    acl = Acl({name: read(as_hcl(listed)) for name, listed in texts.items()})
    for path, operation, data, sudo, wrap_s in requests:
        decision = acl.decide(Asked(path, operation, data, sudo, wrap_s))
        expected = naive_policy.allowed([rule for _, rule in named], path, operation.value, data, sudo, wrap_s)
        assert decision.allowed == expected, decision
        assert decision.allowed == (not decision.detail)


@given(st.lists(rules(), max_size=5))
def test_hcl_and_json_say_the_same(listed: list[dict[str, Any]]) -> None:
    def meaning(text: str) -> list[Any]:
        return [
            (r.pattern, r.capabilities, r.allowed, r.denied, r.required, r.min_wrapping_s, r.max_wrapping_s)
            for r in read(text)
        ]

    assert meaning(as_hcl(listed)) == meaning(as_json(listed))


@given(st.lists(patterns(), max_size=12, unique=True), PATHS)
def test_the_trie_finds_what_a_scan_finds(listed: list[str], path: str) -> None:
    trie: Trie[None] = Trie()
    for pattern in listed:
        trie.add(pattern, None)
    found = sorted(pattern for pattern, _ in trie.matches(path))
    assert found == sorted(p for p in listed if naive_policy.has_wildcard(p) and naive_policy.matches(p, path))
    assert (trie.exact(path) is not None) == (path in listed and not naive_policy.has_wildcard(path))


@given(patterns(), patterns())
def test_priorities_are_ordered_as_documented(one: str, other: str) -> None:
    if one != other:
        assert (priority(one) < priority(other)) == naive_policy.lower(one, other)
