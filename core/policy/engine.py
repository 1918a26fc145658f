"""`sys/policies/acl`: the policies; `sys/capabilities-*` and `sys/why-denied`: what they mean for a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.core import tokens
from holdfast.core.paths import split
from holdfast.core.plugin import HandlerContext, Operation, OperationSpec, PathSpec, Response, StorageView, fields
from holdfast.core.policy.acl import Asked, Decision, Granted
from holdfast.core.policy.hcl import TEXT_BYTES_MAX
from holdfast.core.policy.names import DEFAULT_POLICY
from holdfast.core.policy.store import (
    POLICY_PREFIX,
    StoredPolicies,
    encode_policy,
    policy_name,
    policy_text,
)
from holdfast.core.router import SystemMount
from holdfast.core.tokens import ROOT_POLICY, TOKENS_PREFIX
from holdfast.proto.errors import InvalidArgument, NotFound
from holdfast.storage.transaction import LIST_LIMIT_MAX, Transaction

PATHS_MAX = 256
"""How many paths one request may ask the capabilities of."""


def policy_mounts(policies: StoredPolicies) -> Sequence[SystemMount]:
    """What the core mounts beside `sys/`."""
    asking = _Asking(policies)
    return [
        SystemMount("sys/policies/acl/", _Policies(), POLICY_PREFIX),
        SystemMount("sys/policy/", _Policies(), POLICY_PREFIX),  # Vault's older name
        *(
            SystemMount(f"sys/{spec.pattern}/", _OnePath(spec), "")  # policies and tokens: the whole tree
            for spec in asking.paths()
        ),
    ]


class _OnePath:
    """A mount that is one path. `spec.pattern` is its name below `sys/`."""

    def __init__(self, spec: PathSpec) -> None:
        self.type = spec.pattern
        self._spec = PathSpec("", spec.operations, spec.help, sudo=spec.sudo)

    def paths(self) -> Sequence[PathSpec]:
        return (self._spec,)


class _Policies:
    """Reading and writing policies."""

    type = "policy"

    def paths(self) -> Sequence[PathSpec]:
        listing = OperationSpec(_list, "List the policies.")
        writing = OperationSpec(_write, "Write a policy.", {"policy": "Its text, HCL or JSON."})
        return (
            PathSpec("", {Operation.READ: listing, Operation.LIST: listing}, "The names of the policies."),
            PathSpec(
                "{name}",
                {
                    Operation.READ: OperationSpec(_read, "Read a policy."),
                    Operation.UPDATE: writing,
                    Operation.DELETE: OperationSpec(_delete, "Delete a policy."),
                },
                "A policy.",
                exists=_exists,
            ),
        )


async def _list(ctx: HandlerContext, view: StorageView) -> Response:  # noqa: ARG001  (the contract's form)
    stored = await view.list("", limit=LIST_LIMIT_MAX)
    names = sorted({*stored, DEFAULT_POLICY, ROOT_POLICY})
    return Response(data={"keys": names, "policies": names})


async def _exists(ctx: HandlerContext, view: StorageView) -> bool:
    name = policy_name(ctx.fields["name"])
    return name in (ROOT_POLICY, DEFAULT_POLICY) or await view.get(name) is not None


async def _read(ctx: HandlerContext, view: StorageView) -> Response:
    name = policy_name(ctx.fields["name"])
    text = "" if name == ROOT_POLICY else policy_text(name, await view.get(name))
    if text is None:
        raise NotFound("there is no policy of this name: see sys/policies/acl")
    return Response(data={"name": name, "policy": text, "rules": text})


async def _write(ctx: HandlerContext, view: StorageView) -> Response:
    name = policy_name(ctx.fields["name"])
    if name == ROOT_POLICY:
        raise InvalidArgument("the policy root cannot be changed", field="name")
    text = fields.text(ctx.data, "policy", bytes_max=TEXT_BYTES_MAX)
    if not text.strip():
        raise InvalidArgument("give the text of the policy", field="policy")
    view.put(name, encode_policy(text))
    return Response()


async def _delete(ctx: HandlerContext, view: StorageView) -> Response:
    name = policy_name(ctx.fields["name"])
    if name in (ROOT_POLICY, DEFAULT_POLICY):
        raise InvalidArgument(f"the policy {name} cannot be deleted", field="name")
    if await view.get(name) is not None:
        view.delete(name)
    return Response()


class _Asking:
    """What policies mean. The view is the whole tree."""

    def __init__(self, policies: StoredPolicies) -> None:
        self._policies = policies

    def paths(self) -> Sequence[PathSpec]:
        accessor = "Names the token that is asked about."
        path, paths = "The path that was refused.", "The paths, a list or separated by commas."
        return (
            PathSpec(
                "capabilities-self",
                {Operation.UPDATE: OperationSpec(self._own, "What the token may do.", {"paths": paths})},
            ),
            PathSpec(
                "capabilities-accessor",
                {
                    Operation.UPDATE: OperationSpec(
                        self._of_accessor, "What a token may do.", {"paths": paths, "accessor": accessor}
                    )
                },
            ),
            PathSpec(
                "why-denied",
                {
                    Operation.UPDATE: OperationSpec(
                        self._why,
                        "Which rules decide on a request, and what is missing.",
                        {
                            "path": path,
                            "operation": "create, read, update, patch, delete or list.",
                            "accessor": accessor,
                            "policies": "Names of policies to ask about instead of a token's.",
                            "parameters": "The request's parameters, an object.",
                            "wrap_ttl": "The wrapping TTL that was asked for.",
                        },
                    )
                },
                sudo=True,
            ),
        )

    async def _own(self, ctx: HandlerContext, view: StorageView) -> Response:
        return await self._capabilities(ctx, view, ctx.caller.policies)

    async def _of_accessor(self, ctx: HandlerContext, view: StorageView) -> Response:
        return await self._capabilities(ctx, view, await _policies_of(ctx, view))

    async def _capabilities(self, ctx: HandlerContext, view: StorageView, names: Sequence[str]) -> Response:
        paths = fields.texts(ctx.data, "paths", count_max=PATHS_MAX)
        if not paths:
            raise InvalidArgument("give the paths to ask about", field="paths")
        if ROOT_POLICY in names:
            found = {path: [ROOT_POLICY] for path in paths}
        else:
            acl = await self._policies.acl(_tree(view).view(POLICY_PREFIX), names)
            found = {path: sorted(acl.capabilities(path.removeprefix("/"))) for path in paths}
        answer: dict[str, Any] = {**found}
        if len(paths) == 1:
            answer["capabilities"] = found[paths[0]]  # as Vault answers for one path
        return Response(data=answer)

    async def _why(self, ctx: HandlerContext, view: StorageView) -> Response:
        operation = _operation(fields.text(ctx.data, "operation") or "read")
        path = fields.text(ctx.data, "path").removeprefix("/")
        split(path, operation)
        names = fields.texts(ctx.data, "policies", count_max=PATHS_MAX) or list(await _policies_of(ctx, view))
        head: dict[str, Any] = {"path": path, "operation": operation.value, "policies": names}
        if ROOT_POLICY in names:
            return Response(data=head | {"allowed": True, "reason": "root", "detail": "the policy root allows it"})
        asked = Asked(
            path.removesuffix("/") + "/" if operation is Operation.LIST else path,  # as a request's is
            operation,
            fields.mapping(ctx.data, "parameters") or {},
            wrap_s=fields.duration_s(ctx.data, "wrap_ttl"),
        )
        decision = (await self._policies.acl(_tree(view).view(POLICY_PREFIX), names)).decide(asked)
        return Response(data=head | _explained(decision))


def _explained(decision: Decision) -> dict[str, Any]:
    return {
        "allowed": decision.allowed,
        "reason": decision.reason.value,
        "detail": decision.detail or "the deciding rule allows it",
        "missing_capability": decision.missing.value if decision.missing else None,
        "deciding_rule": None if decision.deciding is None else _rule(decision.deciding),
        "other_rules": [_rule(granted) for granted in decision.considered[1:]],
    }


def _rule(granted: Granted) -> dict[str, Any]:
    return {
        "path": granted.pattern,
        "capabilities": sorted(granted.capabilities),
        "from": [{"policy": source.policy, "line": source.rule.line} for source in granted.sources],
    }


def _operation(name: str) -> Operation:
    try:
        return Operation(name)
    except ValueError:
        known = ", ".join(Operation)
        raise InvalidArgument(f"there is no such operation; there are: {known}", field="operation") from None


async def _policies_of(ctx: HandlerContext, view: StorageView) -> Sequence[str]:
    accessor = fields.text(ctx.data, "accessor")
    if not accessor:
        raise InvalidArgument("give the accessor of a token", field="accessor")
    known = await tokens.named(_tree(view).view(TOKENS_PREFIX), accessor, now=ctx.now)
    if known is None:
        raise NotFound("there is no token with this accessor, or it has ended")
    return known.entry.policies


def _tree(view: StorageView) -> Transaction:
    """The whole tree: what a mount without a place of its own is given."""
    assert isinstance(view, Transaction)
    return view
