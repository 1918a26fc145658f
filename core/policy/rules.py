"""Policies as they are written: a text in, its rules out. Pure. The meanings are Vault's (documentation, "Policies").

A rule gives capabilities on a path pattern: `*` at the end stands for anything, a segment `+` for one segment; and it
may bound the parameters of requests and the lives of wrapping tokens.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.core.plugin import fields
from holdfast.core.policy.hcl import Body, Item, Place, Value, parse, refuse
from holdfast.core.request import PATH_BYTES_MAX
from holdfast.proto.errors import InvalidArgument

RULES_MAX = 10_000
"""How many rules a policy may hold."""


class Capability(enum.StrEnum):
    """What a rule gives. DENY takes everything away, whatever else gives it."""

    CREATE = "create"
    READ = "read"
    UPDATE = "update"
    PATCH = "patch"
    DELETE = "delete"
    LIST = "list"
    SUDO = "sudo"
    DENY = "deny"


Allowed = Mapping[str, tuple[Any, ...]]
"""Values that a parameter may (or may not) have, by its name in lower case; none stands for every value."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One `path` block. pattern: as written, without a leading slash. `allowed` is None when the rule has none.
    min_wrapping_s, max_wrapping_s: 0 when there is no bound."""

    pattern: str = field(repr=False)
    capabilities: frozenset[Capability]
    allowed: Allowed | None = field(default=None, repr=False)
    denied: Allowed = field(default_factory=dict, repr=False)
    required: frozenset[str] = field(default=frozenset(), repr=False)
    min_wrapping_s: int = 0
    max_wrapping_s: int = 0
    line: int = 0


def read(text: str) -> tuple[Rule, ...]:
    """The rules of a policy in HCL or JSON, in the order of the text. Raises InvalidArgument with line and column."""
    rules: list[Rule] = []
    for item in parse(text).items:
        if item.key == "name":  # as Vault: accepted, and means nothing
            continue
        if item.key != "path":
            refuse(item.place, 'a policy consists of blocks: path "..." { ... }')
        for pattern, place, body in _paths(item):
            rules.append(_rule(pattern, place, body))
            if len(rules) > RULES_MAX:
                refuse(place, f"the policy has over {RULES_MAX} rules: split it")
    return tuple(rules)


def _paths(item: Item) -> list[tuple[str, Place, Body]]:
    """`path "x" {...}`, or JSON's `"path": {"x": {...}, ...}` and `"path": [{"x": {...}}, ...]`."""
    if item.labels:
        if len(item.labels) > 1:
            refuse(item.place, 'a rule has one path: path "..." { ... }')
        return [(item.labels[0], item.place, _body(item.value))]
    values = item.value.value if isinstance(item.value.value, list) else [item.value]
    return [(inner.key, inner.place, _body(inner.value)) for value in values for inner in _body(value).items]


def _body(value: Value) -> Body:
    if not isinstance(value.value, Body):
        refuse(value.place, 'expected "{"')
    return value.value


def _rule(pattern: str, place: Place, body: Body) -> Rule:
    members: dict[str, Value] = {}
    for item in body.items:
        if item.labels or item.key not in _MEMBERS:
            refuse(item.place, f"a rule has no such member; it has {', '.join(sorted(_MEMBERS))}")
        if item.key in members:
            refuse(item.place, f"{item.key} is set twice in this rule")
        members[item.key] = item.value
    rule = Rule(
        pattern=_pattern(pattern, place),
        capabilities=_capabilities(members.get("capabilities"), place),
        allowed=_parameters(members["allowed_parameters"]) if "allowed_parameters" in members else None,
        denied=_parameters(members["denied_parameters"]) if "denied_parameters" in members else {},
        required=frozenset(
            _text(value).lower() for value in _list(members.get("required_parameters"), "required_parameters")
        ),
        min_wrapping_s=_duration(members.get("min_wrapping_ttl"), "min_wrapping_ttl"),
        max_wrapping_s=_duration(members.get("max_wrapping_ttl"), "max_wrapping_ttl"),
        line=place.line,
    )
    if rule.max_wrapping_s and rule.min_wrapping_s > rule.max_wrapping_s:
        refuse(members["max_wrapping_ttl"].place, "max_wrapping_ttl is less than min_wrapping_ttl")
    return rule


_MEMBERS = frozenset(
    (
        "capabilities",
        "allowed_parameters",
        "denied_parameters",
        "required_parameters",
        "min_wrapping_ttl",
        "max_wrapping_ttl",
    )
)


def _pattern(pattern: str, place: Place) -> str:
    pattern = pattern.removeprefix("/")
    if not pattern:
        refuse(place, 'a rule names a path, such as "secret/data/myapp/*"')
    if len(pattern.encode(errors="surrogatepass")) > PATH_BYTES_MAX:
        refuse(place, f"the path is over {PATH_BYTES_MAX} bytes long")
    if "*" in pattern[:-1]:
        refuse(place, 'the path has a "*" that is not its last character: "+" stands for one whole segment')
    if pattern.endswith("+*"):
        refuse(place, 'the path ends in "+*": end it in "+" or "+/*"')
    return pattern


def _capabilities(value: Value | None, place: Place) -> frozenset[Capability]:
    if value is None:
        refuse(place, 'the rule gives nothing: add capabilities = ["read"], for example')
    found: set[Capability] = set()
    for item in _list(value, "capabilities"):
        try:
            found.add(Capability(_text(item)))
        except ValueError:
            refuse(item.place, f"there is no such capability; there are {', '.join(Capability)}")
    # deny is stronger than whatever stands beside it
    return frozenset((Capability.DENY,)) if Capability.DENY in found else frozenset(found)


def _parameters(value: Value) -> Allowed:
    parameters: dict[str, tuple[Any, ...]] = {}
    for item in _body(value).items:
        if item.labels:
            refuse(item.place, "expected a parameter and the list of its values")
        name = item.key.lower()
        if name in parameters:
            refuse(item.place, "this parameter is named twice")
        parameters[name] = tuple(_plain(one) for one in _list(item.value, "a parameter's values"))
    return parameters


def _plain(value: Value) -> Any:
    if isinstance(value.value, Body):
        return {item.key: _plain(item.value) for item in value.value.items}
    if isinstance(value.value, list):
        return [_plain(item) for item in value.value]
    if isinstance(value.value, float) and not math.isfinite(value.value):
        refuse(value.place, "this number is too large")
    return value.value


def _list(value: Value | None, what: str) -> list[Value]:
    if value is None:
        return []
    if not isinstance(value.value, list):
        refuse(value.place, f'{what} must be a list, such as ["a", "b"]')
    return value.value


def _text(value: Value) -> str:
    if not isinstance(value.value, str):
        refuse(value.place, "expected a string between quotes")
    return value.value


def _duration(value: Value | None, name: str) -> int:
    if value is None:
        return 0
    try:
        return fields.duration_s({name: value.value}, name) or 0
    except InvalidArgument:
        refuse(value.place, f'{name} must be a duration, such as "90s" or "1h"')
