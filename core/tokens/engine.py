"""`auth/token/`: making, looking up, renewing and revoking tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from holdfast.core.plugin import HandlerContext, Operation, OperationSpec, PathSpec, Response, StorageView, fields
from holdfast.core.plugin.times import rfc3339
from holdfast.core.tokens import store
from holdfast.core.tokens.entries import TokenEntry
from holdfast.core.tokens.making import CREATE_FIELDS, auth_of, create_token
from holdfast.core.tokens.roles import role_paths
from holdfast.core.tokens.store import Known
from holdfast.core.tokens.sweep import sweep_page
from holdfast.proto.errors import FailedPrecondition, InvalidArgument, NotFound, Unauthenticated

_TOKEN = {"token": "The token."}
_ACCESSOR = {"accessor": "Names the token."}
_INCREMENT = {"increment": "How long it is to live from now on."}


class TokenEngine:
    """Its view is the token store."""

    @property
    def type(self) -> str:
        """See Engine."""
        return "token"

    def paths(self) -> Sequence[PathSpec]:
        """See Engine."""
        making = OperationSpec(create_token, "Make a token.", CREATE_FIELDS)
        orphaning = OperationSpec(functools.partial(create_token, orphan=True), "Make an orphan.", CREATE_FIELDS)
        return (
            PathSpec("create", {Operation.UPDATE: making}, "Makes a token with the one that asks."),
            PathSpec("create-orphan", {Operation.UPDATE: orphaning}, "Makes a token without a parent.", sudo=True),
            PathSpec("create/{role}", {Operation.UPDATE: making}, "Makes a token by a role."),
            PathSpec(
                "lookup-self",
                {Operation.READ: OperationSpec(lookup_self, "Read what is stored of the token that asks.")},
                "The token that asks.",
            ),
            _one("lookup", _lookup, "Read what is stored of a token.", _TOKEN),
            _one("lookup-accessor", _lookup_accessor, "Read what is stored of a token.", _ACCESSOR),
            _one("renew-self", _renew_self, "Renew the token that asks.", _INCREMENT),
            _one("renew", _renew, "Renew a token.", _TOKEN | _INCREMENT),
            _one("renew-accessor", _renew_accessor, "Renew a token.", _ACCESSOR | _INCREMENT),
            _one("revoke-self", _revoke_self, "Revoke the token that asks and those made with it.", {}),
            _one("revoke", _revoke, "Revoke a token and those made with it.", _TOKEN),
            _one("revoke-accessor", _revoke_accessor, "Revoke a token and those made with it.", _ACCESSOR),
            _one("revoke-orphan", _revoke_orphan, "Revoke a token; those made with it stay.", _TOKEN, sudo=True),
            PathSpec(
                "accessors",
                {
                    Operation.LIST: OperationSpec(
                        _accessors,
                        "List the accessors.",
                        {"after": "The last of the page before.", "limit": "How many."},
                    )
                },
                "The accessors of all tokens.",
                sudo=True,
            ),
            _one(
                "tidy", _tidy, "Sweep up what is left of ended tokens, a page.", {"after": "Where to go on."}, sudo=True
            ),
            *role_paths(),
        )


def _one(name: str, handler: Any, help_: str, takes: dict[str, str], *, sudo: bool = False) -> PathSpec:
    return PathSpec(name, {Operation.UPDATE: OperationSpec(handler, help_, takes)}, help_, sudo=sudo)


async def lookup_self(ctx: HandlerContext, view: StorageView) -> Response:
    """The caller's token as Vault shows it, without the token itself: who asks has it, and an answer may be kept."""
    return _shown(ctx, (await _self(ctx, view)).entry)


async def _lookup(ctx: HandlerContext, view: StorageView) -> Response:
    return _shown(ctx, (await _given(ctx, view)).entry)


async def _lookup_accessor(ctx: HandlerContext, view: StorageView) -> Response:
    return _shown(ctx, (await _accessed(ctx, view)).entry)


async def _renew_self(ctx: HandlerContext, view: StorageView) -> Response:
    return _renewed(ctx, view, await _self(ctx, view))


async def _renew(ctx: HandlerContext, view: StorageView) -> Response:
    return _renewed(ctx, view, await _given(ctx, view))


async def _renew_accessor(ctx: HandlerContext, view: StorageView) -> Response:
    return _renewed(ctx, view, await _accessed(ctx, view))


def _renewed(ctx: HandlerContext, view: StorageView, known: Known) -> Response:
    if not known.entry.renewable:
        raise FailedPrecondition("the token cannot be renewed: log in again, or make one that can be")
    if known.entry.longest_s(ctx.now) <= 0:
        raise FailedPrecondition("the token has reached the end of its longest life: log in again")
    asked_s = fields.duration_s(ctx.data, "increment") or 0
    renewed = known.entry.renewed_at(ctx.now, asked_s)
    store.store(view, known, renewed)
    warnings: tuple[str, ...] = ()
    if asked_s > renewed.ttl_s:
        warnings = (f"the increment was cut to the longest that is allowed, {renewed.ttl_s} s",)
    return Response(auth=auth_of(renewed, ctx, ""), warnings=warnings)


async def _revoke_self(ctx: HandlerContext, view: StorageView) -> Response:
    await store.revoke(view, await _self(ctx, view))
    return Response()


async def _revoke(ctx: HandlerContext, view: StorageView) -> Response:
    await store.revoke(view, await _given(ctx, view))
    return Response()


async def _revoke_accessor(ctx: HandlerContext, view: StorageView) -> Response:
    await store.revoke(view, await _accessed(ctx, view))
    return Response()


async def _revoke_orphan(ctx: HandlerContext, view: StorageView) -> Response:
    await store.revoke_orphaning(view, await _given(ctx, view))
    return Response()


async def _accessors(ctx: HandlerContext, view: StorageView) -> Response:
    """The accessors are kept in the entries: a page of entries is read for a page of accessors."""
    after = fields.text(ctx.data, "after")
    limit = fields.integer(ctx.data, "limit", minimum=1, maximum=1000) or 1000
    hashes = await view.list("id", after=after, limit=limit)
    found = [entry.accessor for entry in [await store.entry_at(view, name) for name in hashes] if entry is not None]
    if not found and not after:
        raise NotFound("there are no tokens")
    more = (f'there may be more: go on with after="{hashes[-1]}"',) if len(hashes) >= limit else ()
    return Response(data={"keys": found}, warnings=more)


async def _tidy(ctx: HandlerContext, view: StorageView) -> Response:
    removed, after = await sweep_page(view, ctx.now, after=fields.text(ctx.data, "after"))
    return Response(data={"removed": removed, "after": after})


async def _self(ctx: HandlerContext, view: StorageView) -> Known:
    known = await store.named(view, ctx.caller.accessor, now=ctx.now)
    if known is None:
        raise Unauthenticated("the token is not valid any more: log in again and send the new token")
    return known


async def _given(ctx: HandlerContext, view: StorageView) -> Known:
    token = fields.text(ctx.data, "token")
    if not token:
        raise InvalidArgument("give the token", field="token")
    known = await store.by_token(view, token, now=ctx.now)
    if known is None:
        raise NotFound("there is no such token, or it has ended")
    return known


async def _accessed(ctx: HandlerContext, view: StorageView) -> Known:
    accessor = fields.text(ctx.data, "accessor")
    if not accessor:
        raise InvalidArgument("give the accessor of a token", field="accessor")
    known = await store.named(view, accessor, now=ctx.now)
    if known is None:
        raise NotFound("there is no token with this accessor, or it has ended")
    return known


def _shown(ctx: HandlerContext, entry: TokenEntry) -> Response:
    return Response(
        data={
            "accessor": entry.accessor,
            "bound_cidrs": list(entry.bound_cidrs) or None,
            "creation_time": int(entry.created.timestamp()),
            "creation_ttl": entry.creation_ttl_s or entry.ttl_s,
            "display_name": entry.display_name,
            "expire_time": None if entry.expires is None else rfc3339(entry.expires),
            "explicit_max_ttl": entry.explicit_max_ttl_s,
            "issue_time": rfc3339(entry.created),
            "last_renewal": None if entry.renewed is None else rfc3339(entry.renewed),
            "meta": entry.metadata or None,
            "num_uses": entry.num_uses,
            "orphan": entry.orphan,
            "path": entry.path,
            "period": entry.period_s,
            "policies": list(entry.policies),
            "renewable": entry.renewable,
            "role": entry.role,
            "ttl": entry.remaining_s(ctx.now),
            "type": entry.type,
        }
    )
