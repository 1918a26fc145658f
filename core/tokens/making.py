"""`auth/token/create`: what a new token may be like, given who makes it. The meanings are Vault's."""

from __future__ import annotations

import re
from typing import Any

from holdfast.core.plugin import HandlerContext, Response, StorageView, fields
from holdfast.core.policy.names import DEFAULT_POLICY
from holdfast.core.tokens import roles, store
from holdfast.core.tokens.entries import DEFAULT_TTL_S, MAX_TTL_S, ROOT_POLICY, TokenEntry
from holdfast.core.tokens.forms import metadata, policy_names
from holdfast.core.tokens.roles import TokenRole
from holdfast.core.tokens.store import Known
from holdfast.proto.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unauthenticated

CREATE_FIELDS = {
    "policies": "Policies of the token; those of who makes it when not given.",
    "ttl": "How long it lives.",
    "explicit_max_ttl": "It never lives longer than this, however it is renewed.",
    "period": "A renewal gives this much again, without a maximum. Needs sudo.",
    "num_uses": "How often it may be used; 0 for no limit.",
    "renewable": "Whether it can be renewed; true when not given.",
    "no_parent": "Whether it outlives the token that it is made with. Needs sudo.",
    "no_default_policy": "Whether it does without the policy default.",
    "display_name": "For people.",
    "meta": "Strings by name, shown with the token and in the audit log.",
    "type": '"service".',
}


async def create_token(ctx: HandlerContext, view: StorageView, *, orphan: bool = False) -> Response:
    """Make a token with the one that asks."""
    parent = await store.named(view, ctx.caller.accessor, now=ctx.now)
    if parent is None:
        raise Unauthenticated("the token is not valid any more: log in again and send the new token")
    if parent.entry.num_uses:
        raise FailedPrecondition("a token with a limited number of uses makes no tokens")
    if (fields.text(ctx.data, "type") or "service") != "service":
        raise InvalidArgument('type must be "service"', field="type")
    role, name = None, ctx.fields.get("role", "")
    if name and (role := await roles.load(view, name)) is None:
        raise NotFound("there is no token role of this name")
    entry, warnings = _entry(ctx, parent, role, name, orphan=orphan)
    if not entry.orphan and await store.depth(view, entry) >= store.DEPTH_MAX:
        raise FailedPrecondition(
            f"{store.DEPTH_MAX} tokens stand above this one, the most allowed: make an orphan, or use a token above"
        )
    token = await store.create(view, entry, ctx.random_bytes)
    return Response(auth=auth_of(entry, ctx, token), warnings=warnings)


def auth_of(entry: TokenEntry, ctx: HandlerContext, token: str) -> dict[str, Any]:
    """What is told of a token with itself, as Vault's `auth`."""
    return {
        "client_token": token,
        "accessor": entry.accessor,
        "policies": list(entry.policies),
        "token_policies": list(entry.policies),
        "metadata": entry.metadata or None,
        "lease_duration": entry.remaining_s(ctx.now),
        "renewable": entry.renewable,
        "token_type": entry.type,
        "orphan": entry.orphan,
        "num_uses": entry.num_uses,
    }


def _entry(
    ctx: HandlerContext, parent: Known, role: TokenRole | None, role_name: str, *, orphan: bool
) -> tuple[TokenEntry, tuple[str, ...]]:
    data = ctx.data
    if fields.boolean(data, "no_parent"):
        if not ctx.caller.sudo:
            raise PermissionDenied("no_parent needs the capability sudo on this path")
        orphan = True
    period_s = fields.duration_s(data, "period") or 0
    if period_s and not ctx.caller.sudo:
        raise PermissionDenied("period needs the capability sudo on this path")
    explicit_s = fields.duration_s(data, "explicit_max_ttl") or 0
    uses = fields.integer(data, "num_uses", maximum=2**31 - 1) or 0
    renewable = fields.boolean(data, "renewable") is not False
    bound: tuple[str, ...] = parent.entry.bound_cidrs
    if role is not None:
        orphan = orphan or role.orphan
        renewable = renewable and role.renewable
        period_s = role.token_period or period_s
        explicit_s = _smaller(explicit_s, role.token_explicit_max_ttl)
        uses = _smaller(uses, role.token_num_uses)
        bound = role.token_bound_cidrs or bound
    policies = _policies(ctx, parent, role)
    ttl_s, warnings = _ttl(fields.duration_s(data, "ttl") or 0, period_s, explicit_s, root=ROOT_POLICY in policies)
    if ROOT_POLICY in policies and parent.entry.ttl_s and not ttl_s:
        raise InvalidArgument("a token that expires makes no root token that does not: give a ttl", field="ttl")
    entry = TokenEntry(
        accessor=store.new_accessor(ctx.random_bytes),
        policies=policies,
        created=ctx.now,
        ttl_s=ttl_s,
        creation_ttl_s=ttl_s,
        explicit_max_ttl_s=explicit_s,
        period_s=period_s,
        num_uses=uses,
        parent="" if orphan else parent.hash,
        orphan=orphan,
        renewable=renewable and ttl_s > 0,
        bound_cidrs=bound,
        role=role_name,
        display_name=_display_name(fields.text(data, "display_name", bytes_max=256)),
        metadata=metadata(data, "meta"),
        path=f"auth/token/{ctx.path}",
    )
    return entry, warnings


def _policies(ctx: HandlerContext, parent: Known, role: TokenRole | None) -> tuple[str, ...]:
    """As handleCreateCommon in vault/token_store.go: a role decides only when it names policies, allowed or not;
    otherwise a token gives what it has, unless sudo says more."""
    asked, held = set(policy_names(ctx.data, "policies")), set(parent.entry.policies)
    if role is not None and role.decides:
        default = not role.forbids(DEFAULT_POLICY)
        chosen = asked or set(role.allowed_policies) or (set() if role.restricts else held)
        if not all(role.allows(policy) or policy == DEFAULT_POLICY for policy in chosen):
            raise PermissionDenied("the token role does not allow one of the policies")
        if not default:
            chosen = chosen - {DEFAULT_POLICY}
    else:
        if not ctx.caller.sudo and not asked <= held:
            raise PermissionDenied("a token gives policies that it has; others need the capability sudo on this path")
        chosen = asked or held
        default = bool(asked) and (ctx.caller.sudo or DEFAULT_POLICY in held)
    if fields.boolean(ctx.data, "no_default_policy") or (role is not None and role.token_no_default_policy):
        default = False
        chosen = chosen - ({DEFAULT_POLICY} - asked)
    if ROOT_POLICY in chosen:
        if ROOT_POLICY not in parent.entry.policies:
            raise PermissionDenied("only a token with the policy root makes one with it")
        return (ROOT_POLICY,)
    return tuple(sorted(chosen | ({DEFAULT_POLICY} if default else set())))


def _ttl(asked_s: int, period_s: int, explicit_s: int, *, root: bool) -> tuple[int, tuple[str, ...]]:
    """How long the token lives at first, and what to say of it."""
    if root and not asked_s and not period_s and not explicit_s:
        return 0, ()
    wanted_s = period_s or asked_s or DEFAULT_TTL_S
    bounds = [explicit_s] if explicit_s else []
    if not period_s:
        bounds.append(MAX_TTL_S)
    longest_s = min(bounds, default=wanted_s)
    if asked_s and not period_s and asked_s > longest_s:
        return longest_s, (f"the ttl was cut to the longest that is allowed, {longest_s} s",)
    return min(wanted_s, longest_s), ()


def _smaller(one: int, other: int) -> int:
    """The smaller of two bounds, where 0 stands for none."""
    return min(one, other) if one and other else one or other


def _display_name(given: str) -> str:
    return "token" + ("-" + re.sub(r"[^a-zA-Z0-9_.-]", "-", given) if given else "")
