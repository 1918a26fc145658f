"""Vault's policy meanings a second time, slowly and without cleverness, to compare `core/policy` with.

Written from Vault's documentation and the behaviour of vault/acl.go: every rule is looked at for every request,
patterns become regular expressions, priorities are compared pair by pair.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any


def matches(pattern: str, path: str) -> bool:
    glob = pattern.endswith("*")
    text = pattern[:-1] if glob else pattern
    parts = ["[^/]*" if part == "+" else re.escape(part) for part in text.split("/")]
    if glob and text.split("/")[-1] == "+":
        raise AssertionError("+* is forbidden")
    return re.fullmatch("/".join(parts) + (".*" if glob else ""), path, re.DOTALL) is not None


def has_wildcard(pattern: str) -> bool:
    return pattern.endswith("*") or "+" in pattern.split("/")


def first_wildcard(pattern: str) -> int:
    for index, character in enumerate(pattern):
        if character == "*" and index == len(pattern) - 1:
            return index
        if character == "+":
            before = index == 0 or pattern[index - 1] == "/"
            after = index == len(pattern) - 1 or pattern[index + 1] == "/"
            if before and after:
                return index
    return 10**9


def lower(one: str, other: str) -> bool:
    """Whether `one` has the lower priority."""
    if first_wildcard(one) != first_wildcard(other):
        return first_wildcard(one) < first_wildcard(other)
    if one.endswith("*") != other.endswith("*"):
        return one.endswith("*")
    plus_one = len([part for part in one.split("/") if part == "+"])
    plus_other = len([part for part in other.split("/") if part == "+"])
    if plus_one != plus_other:
        return plus_one > plus_other
    if len(one) != len(other):
        return len(one) < len(other)
    return one < other


def deciding_pattern(patterns: Sequence[str], path: str, operation: str) -> str | None:
    exact = [pattern for pattern in patterns if not has_wildcard(pattern)]
    if path in exact:
        return path
    if operation == "list" and path.endswith("/") and path[:-1] in exact:
        return path[:-1]
    candidates = [pattern for pattern in patterns if has_wildcard(pattern) and matches(pattern, path)]
    if not candidates:
        return None
    return max(candidates, key=functools.cmp_to_key(lambda a, b: 0 if a == b else (-1 if lower(a, b) else 1)))


def allowed(
    rules: Sequence[Mapping[str, Any]],
    path: str,
    operation: str,
    data: Mapping[str, Any],
    sudo: bool,
    wrap_s: int | None,
) -> bool:
    """rules: {"path", "capabilities", and optionally "allowed", "denied", "required", "min", "max"} of all policies."""
    pattern = deciding_pattern([rule["path"] for rule in rules], path, operation)
    if pattern is None:
        return False
    same = [rule for rule in rules if rule["path"] == pattern]
    capabilities = {capability for rule in same for capability in rule["capabilities"]}
    if "deny" in capabilities or operation not in capabilities or (sudo and "sudo" not in capabilities):
        return False
    mins = [rule["min"] for rule in same if rule.get("min")]
    maxs = [rule["max"] for rule in same if rule.get("max")]
    if mins and (wrap_s is None or wrap_s < min(mins)):
        return False
    if maxs and (wrap_s is None or wrap_s > min(maxs)):
        return False
    if operation in ("delete", "list"):
        return True
    required = {name for rule in same for name in rule.get("required", ())}
    if not required <= set(data):
        return False
    for name, value in data.items():
        for rule in same:
            denied = rule.get("denied", {})
            if "*" in denied:
                return False
        if any(name in rule.get("denied", {}) for rule in same) and value_listed(same, "denied", name, value):
            return False
        bounding = [rule for rule in same if rule.get("allowed")]
        if bounding:
            named = any(name in rule["allowed"] for rule in bounding)
            if not named and not any("*" in rule["allowed"] for rule in bounding):
                return False
            if named and not value_listed(bounding, "allowed", name, value):
                return False
    return True


def value_listed(rules: Sequence[Mapping[str, Any]], kind: str, name: str, value: Any) -> bool:
    lists = [rule[kind][name] for rule in rules if name in rule.get(kind, {})]
    if any(len(values) == 0 for values in lists):
        return True
    return any(glob(value, wanted) for values in lists for wanted in values)


def glob(value: Any, wanted: Any) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        expression = re.escape(wanted)
        if wanted.startswith("*"):
            expression = ".*" + expression.removeprefix(r"\*")
        if wanted.endswith("*") and wanted != "*":
            expression = expression.removesuffix(r"\*") + ".*"
        return re.fullmatch(expression, value, re.DOTALL) is not None
    return type(value) is type(wanted) and bool(value == wanted)
