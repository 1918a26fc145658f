"""Leave from core for what the server does itself, and the word to core's audit of how that ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from holdfast.core.call import Grant
from holdfast.core.request import Request
from holdfast.proto.errors import AuditFailed, Fatal, HoldfastError, OutcomeUnknown

Authorize = Callable[[Request], Awaitable[Grant]]


@asynccontextmanager
async def authorized(authorize: Authorize, request: Request) -> AsyncIterator[None]:
    """Do the body if core allows the request; its outcome is audited before anybody is told.

    Raises Unauthenticated, PermissionDenied and what else `Core.authorize` raises. AuditFailed means that nothing was
    done; what was done and could not be recorded is OutcomeUnknown.
    """
    grant = await authorize(request)
    try:
        yield
    except HoldfastError as error:
        try:
            await grant.finish(error)
        except AuditFailed:
            if not isinstance(error, OutcomeUnknown | Fatal):
                raise
        raise
    try:
        await grant.finish()
    except AuditFailed:
        raise OutcomeUnknown(
            "it was done and no audit device recorded its outcome: see to the audit devices, then look at the state"
        ) from None
