"""Token roles: what tokens made by `auth/token/create/<role>` are like. The meanings are Vault's."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.core.plugin import HandlerContext, Operation, OperationSpec, PathSpec, Response, StorageView, fields
from holdfast.core.tokens.entries import ROOT_POLICY
from holdfast.core.tokens.forms import cidrs, policy_names
from holdfast.proto.errors import Corruption, InvalidArgument, NotFound
from holdfast.storage.decoding import MALFORMED

ROLES_MAX_LISTED = 10_000

_FORMAT = 1

_FIELDS = {
    "allowed_policies": "The policies that tokens of this role may have; none for those of who makes them.",
    "disallowed_policies": "Policies that they may never have.",
    "allowed_policies_glob": "As allowed_policies, with `*`.",
    "disallowed_policies_glob": "As disallowed_policies, with `*`.",
    "orphan": "Whether they outlive the token that they are made with.",
    "renewable": "Whether they can be renewed; true when not given.",
    "token_period": "A renewal gives this much again, without a maximum.",
    "token_explicit_max_ttl": "They never live longer than this.",
    "token_num_uses": "How often each may be used; 0 for no limit.",
    "token_bound_cidrs": "The networks that they may be used from.",
    "token_no_default_policy": "Whether they do without the policy default.",
}


class TokenRole(msgspec.Struct, frozen=True, kw_only=True):
    """A role as stored. Durations are in seconds."""

    allowed_policies: tuple[str, ...] = ()
    disallowed_policies: tuple[str, ...] = ()
    allowed_policies_glob: tuple[str, ...] = ()
    disallowed_policies_glob: tuple[str, ...] = ()
    orphan: bool = False
    renewable: bool = True
    token_period: int = 0
    token_explicit_max_ttl: int = 0
    token_num_uses: int = 0
    token_bound_cidrs: tuple[str, ...] = ()
    token_no_default_policy: bool = False
    format: int = _FORMAT

    @property
    def restricts(self) -> bool:
        """Whether the role says which policies its tokens may have."""
        return bool(self.allowed_policies or self.allowed_policies_glob)

    @property
    def decides(self) -> bool:
        """Whether the role says anything of policies. One that does not leaves it at those of who makes the token."""
        return self.restricts or bool(self.disallowed_policies or self.disallowed_policies_glob)

    def forbids(self, policy: str) -> bool:
        """Whether no token of this role may have a policy."""
        return policy in self.disallowed_policies or _globbed(policy, self.disallowed_policies_glob)

    def allows(self, policy: str) -> bool:
        """Whether a token of this role may have a policy that was asked for."""
        if policy == ROOT_POLICY and ROOT_POLICY not in self.allowed_policies:
            return False
        if self.forbids(policy):
            return False
        return not self.restricts or policy in self.allowed_policies or _globbed(policy, self.allowed_policies_glob)


def _globbed(policy: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(policy, pattern.replace("[", "[[]")) for pattern in patterns)


async def load(view: StorageView, name: str) -> TokenRole | None:
    """The role of a name. Raises Corruption."""
    record = await view.get(f"role/{name}")
    if record is None:
        return None
    try:
        role = msgspec.msgpack.decode(record, type=TokenRole)
    except MALFORMED:
        raise Corruption("a token role's record does not parse: restore this node from its peers") from None
    if role.format != _FORMAT:
        raise Corruption(f"a token role has format {role.format}, this build reads {_FORMAT}: upgrade the node")
    return role


def role_paths() -> tuple[PathSpec, ...]:
    """The paths below `auth/token/roles`."""
    listing = OperationSpec(_list, "List the roles.")
    return (
        PathSpec("roles", {Operation.LIST: listing, Operation.READ: listing}, "The token roles."),
        PathSpec(
            "roles/{role}",
            {
                Operation.READ: OperationSpec(_read, "Read a role."),
                Operation.UPDATE: OperationSpec(_write, "Make or change a role.", _FIELDS),
                Operation.DELETE: OperationSpec(_delete, "Delete a role."),
            },
            "A token role.",
            exists=_exists,
        ),
    )


async def _list(ctx: HandlerContext, view: StorageView) -> Response:  # noqa: ARG001  (the contract's form)
    names = await view.list("role", limit=ROLES_MAX_LISTED)
    if not names:
        raise NotFound("there are no token roles")
    return Response(data={"keys": sorted(names)})


async def _exists(ctx: HandlerContext, view: StorageView) -> bool:
    return await load(view, ctx.fields["role"]) is not None


async def _read(ctx: HandlerContext, view: StorageView) -> Response:
    role = await load(view, ctx.fields["role"])
    if role is None:
        raise NotFound("there is no token role of this name")
    shown: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(role))
    del shown["format"]
    return Response(data={"name": ctx.fields["role"], **shown})


async def _write(ctx: HandlerContext, view: StorageView) -> Response:
    name = ctx.fields["role"]
    role = await load(view, name) or TokenRole()
    view.put(f"role/{name}", msgspec.msgpack.encode(msgspec.structs.replace(role, **_given(ctx.data))))
    return Response()


def _given(data: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name in ("allowed_policies", "disallowed_policies", "allowed_policies_glob", "disallowed_policies_glob"):
        if name in data:
            given[name] = policy_names(data, name)
    for name in ("orphan", "renewable", "token_no_default_policy"):
        if (flag := fields.boolean(data, name)) is not None:
            given[name] = flag
    for name in ("token_period", "token_explicit_max_ttl"):
        if (seconds := fields.duration_s(data, name)) is not None:
            given[name] = seconds
    if (uses := fields.integer(data, "token_num_uses", maximum=2**31 - 1)) is not None:
        given["token_num_uses"] = uses
    if "token_bound_cidrs" in data:
        given["token_bound_cidrs"] = cidrs(data, "token_bound_cidrs")
    if ROOT_POLICY in given.get("allowed_policies_glob", ()):
        raise InvalidArgument("the policy root is allowed by its name only", field="allowed_policies_glob")
    return given


async def _delete(ctx: HandlerContext, view: StorageView) -> Response:
    if await load(view, ctx.fields["role"]) is not None:
        view.delete(f"role/{ctx.fields['role']}")
    return Response()
