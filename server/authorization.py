"""Leave from core for what the server does itself, and the word to core's audit of how that ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from holdfast.core.call import Grant
from holdfast.core.request import Request
from holdfast.proto.errors import HoldfastError

Authorize = Callable[[Request], Awaitable[Grant]]


@asynccontextmanager
async def authorized(authorize: Authorize, request: Request) -> AsyncIterator[None]:
    """Do the body if core allows the request; its outcome is audited before anybody is told.

    Raises Unauthenticated, PermissionDenied and what else `Core.authorize` raises; AuditFailed.
    """
    grant = await authorize(request)
    try:
        yield
    except HoldfastError as error:
        await grant.finish(error)
        raise
    await grant.finish()
