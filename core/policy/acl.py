"""What a set of policies allows: rules in, a decision with its reasons out. Pure.

Rules of several policies on the same pattern are united: capabilities and parameters add up, the smaller wrapping bound
counts, and one `deny` leaves nothing. Then the most specific pattern that matches the path decides, alone. Meanings are
those of Vault's vault/acl.go; `tests/support/naive_policy.py` states them a second time, slowly.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.core.policy.parameters import refusal
from holdfast.core.policy.patterns import Trie, priority
from holdfast.core.policy.rules import Allowed, Capability, Rule
from holdfast.core.request import Operation

_NEEDS = {
    Operation.READ: Capability.READ,
    Operation.CREATE: Capability.CREATE,
    Operation.UPDATE: Capability.UPDATE,
    Operation.PATCH: Capability.PATCH,
    Operation.DELETE: Capability.DELETE,
    Operation.LIST: Capability.LIST,
}

_BOUNDED = frozenset((Operation.READ, Operation.CREATE, Operation.UPDATE, Operation.PATCH))
"""Operations whose parameters are looked at."""


class Reason(enum.StrEnum):
    """Why a request was decided as it was."""

    ALLOWED = "allowed"
    NO_RULE = "no_rule"
    DENIED = "deny"
    MISSING = "missing_capability"
    SUDO = "missing_sudo"
    PARAMETER = "parameter"
    WRAPPING = "wrapping_ttl"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for. wrap_s: the life of the wrapping token that it asks for; None without one."""

    path: str = field(repr=False)
    operation: Operation
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sudo: bool = False
    wrap_s: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """The rule of one policy. line: in that policy's text."""

    policy: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Granted:
    """The rules of all the policies on one pattern, united."""

    pattern: str = field(repr=False)
    capabilities: frozenset[Capability]
    allowed: Allowed | None = field(repr=False)
    denied: Allowed = field(repr=False)
    required: frozenset[str] = field(repr=False)
    min_wrapping_s: int
    max_wrapping_s: int
    sources: tuple[Source, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Decision:
    """reason: ALLOWED, or the first thing that was missing. missing: the capability, for MISSING and SUDO.
    detail: in words, without names out of the request. deciding: the rules that decided; None when none matched.
    considered: every pattern that matched, the most specific first; the first is `deciding`."""

    reason: Reason
    missing: Capability | None = None
    detail: str = ""
    deciding: Granted | None = field(default=None, repr=False)
    considered: tuple[Granted, ...] = field(default=(), repr=False)

    @property
    def allowed(self) -> bool:
        """Whether the request may be done."""
        return self.reason is Reason.ALLOWED


class Acl:
    """The rules of some policies, by policy name, compiled. Immutable."""

    def __init__(self, policies: Mapping[str, Sequence[Rule]]) -> None:
        by_pattern: dict[str, list[Source]] = {}
        for name, rules in policies.items():
            for rule in rules:
                by_pattern.setdefault(rule.pattern, []).append(Source(name, rule))
        self._trie: Trie[Granted] = Trie()
        for pattern, sources in by_pattern.items():
            self._trie.add(pattern, _unite(pattern, sources))

    def decide(self, asked: Asked) -> Decision:
        """Whether the rules allow what is asked, and why."""
        considered = self._considered(asked.path, asked.operation)
        if not considered:
            return Decision(Reason.NO_RULE, detail="no rule of the token's policies matches the path")
        granted = considered[0]
        reason, missing, detail = _judge(granted, asked)
        return Decision(reason, missing, detail, granted, considered)

    def capabilities(self, path: str) -> frozenset[Capability]:
        """What may be done on a path; DENY alone when it is denied or no rule matches (Vault's sys/capabilities)."""
        considered = self._considered(path, Operation.LIST)  # as Vault: `a/` is also what a rule on `a` says
        return (considered[0].capabilities if considered else frozenset()) or frozenset((Capability.DENY,))

    def _considered(self, path: str, operation: Operation) -> tuple[Granted, ...]:
        """Every pattern that matches, the one that decides first. A list of `a/` is also one of `a`."""
        exact = self._trie.exact(path)
        if exact is None and operation is Operation.LIST:
            exact = self._trie.exact(path.removesuffix("/"))
        wild = sorted(self._trie.matches(path), key=lambda match: priority(match[0]), reverse=True)
        return tuple(granted for _, granted in ([exact, *wild] if exact is not None else wild))


def _judge(granted: Granted, asked: Asked) -> tuple[Reason, Capability | None, str]:
    if Capability.DENY in granted.capabilities:
        return Reason.DENIED, None, "the rule denies everything on this path"
    needed = _NEEDS[asked.operation]
    if needed not in granted.capabilities:
        return Reason.MISSING, needed, f'the rule does not give the capability "{needed}"'
    if asked.sudo and Capability.SUDO not in granted.capabilities:
        return Reason.SUDO, Capability.SUDO, 'the path also needs the capability "sudo", and the rule does not give it'
    if detail := _wrapping(granted, asked.wrap_s):
        return Reason.WRAPPING, None, detail
    if asked.operation in _BOUNDED and (
        detail := refusal(asked.data, allowed=granted.allowed, denied=granted.denied, required=granted.required)
    ):
        return Reason.PARAMETER, None, detail
    return Reason.ALLOWED, None, ""


def _wrapping(granted: Granted, wrap_s: int | None) -> str:
    low, high = granted.min_wrapping_s, granted.max_wrapping_s
    if not low and not high:
        return ""
    if wrap_s is None:
        return "the rule wants the answer wrapped: ask for a wrapping TTL"
    if wrap_s < low:
        return f"the wrapping TTL is below the rule's minimum of {low} s"
    if high and wrap_s > high:
        return f"the wrapping TTL is above the rule's maximum of {high} s"
    return ""


def _unite(pattern: str, sources: Sequence[Source]) -> Granted:
    rules = [source.rule for source in sources]
    capabilities = frozenset[Capability]().union(*(rule.capabilities for rule in rules))
    if Capability.DENY in capabilities:
        return Granted(pattern, frozenset((Capability.DENY,)), None, {}, frozenset(), 0, 0, tuple(sources))
    bounded = [rule.allowed for rule in rules if rule.allowed is not None]
    return Granted(
        pattern=pattern,
        capabilities=capabilities,
        allowed=_join(bounded) if bounded else None,
        denied=_join([rule.denied for rule in rules]),
        required=frozenset[str]().union(*(rule.required for rule in rules)),
        min_wrapping_s=_smaller(rule.min_wrapping_s for rule in rules),
        max_wrapping_s=_smaller(rule.max_wrapping_s for rule in rules),
        sources=tuple(sources),
    )


def _join(parts: Sequence[Allowed]) -> Allowed:
    """Parameters of all the parts; one that has no values in some part stands for every value."""
    joined: dict[str, tuple[Any, ...]] = {}
    for part in parts:
        for name, values in part.items():
            if name in joined:
                joined[name] = joined[name] + values if joined[name] and values else ()
            else:
                joined[name] = values
    return joined


def _smaller(bounds: Iterable[int]) -> int:
    """The smallest of the bounds that are set; 0 when none is."""
    return min((bound for bound in bounds if bound), default=0)
