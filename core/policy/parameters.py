"""Whether a request's parameters are what a rule wants. Pure. Names compare without regard to case.

Values compare as JSON does, so 1 and "1" differ; a string of a rule may begin or end in `*`, which stands for anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.core.policy.rules import Allowed


def refusal(data: Mapping[str, Any], *, allowed: Allowed | None, denied: Allowed, required: frozenset[str]) -> str:
    """Why the parameters are refused, in words that repeat none of their names or values; empty when they are not."""
    given = [(name.lower(), value) for name, value in data.items()]  # "a" and "A" are both looked at
    if missing := required - {name for name, _ in given}:
        return f"the rule requires parameters that are missing: {', '.join(sorted(missing))}"
    if not given:
        return ""
    if "*" in denied:
        return "the rule denies every parameter"
    if any(name in denied and _listed(value, denied[name]) for name, value in given):
        return "the rule denies a parameter, or the value that one has"
    if not allowed:
        return ""
    for name, value in given:
        if name not in allowed:
            if "*" not in allowed:
                return f"the rule does not allow one of the parameters; it allows: {', '.join(sorted(allowed))}"
        elif not _listed(value, allowed[name]):
            return "the rule does not allow the value that a parameter has"
    return ""


def _listed(value: object, values: Sequence[Any]) -> bool:
    """Whether a value is among those of a rule; every value is when there are none."""
    return not values or any(_same(value, one) for one in values)


def _same(value: object, wanted: object) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return _globbed(value, wanted)
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return value == wanted


def _globbed(value: str, wanted: str) -> bool:
    head, tail = wanted.startswith("*"), wanted.endswith("*")
    if wanted == "*":
        return True
    if head and tail:
        return wanted[1:-1] in value
    if head:
        return value.endswith(wanted[1:])
    if tail:
        return value.startswith(wanted[:-1])
    return value == wanted
