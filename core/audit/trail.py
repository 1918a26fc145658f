"""The entries of one request."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from holdfast.core.audit.broker import AuditBroker, AuditSource
from holdfast.core.audit.entries import AuditEntry
from holdfast.core.audit.hashing import AUDIT_PREFIX, Hasher, load_hasher
from holdfast.core.plugin.times import rfc3339
from holdfast.core.request import Request, Response
from holdfast.core.tokens import TokenEntry
from holdfast.proto.errors import HoldfastError
from holdfast.storage.transaction import Transaction


class AuditTrail:
    """The entries of one request: first its decision, then its outcome, each once."""

    def __init__(self, source: AuditSource, request: Request, now: Callable[[], datetime], node_id: str = "") -> None:
        self._source = source
        self._request = request
        self._now = now
        self._node_id = node_id
        self._broker: AuditBroker | None = None
        self._hasher: Hasher | None = None
        self._hashed: tuple[str, Any] | None = None
        self._decided = False
        self.token: TokenEntry | None = None
        """The entry of the request's token, once it is known."""

    async def prepare(self, txn: Transaction) -> None:
        """Find the devices that are enabled, and the key, while there is one to be had."""
        self._broker = await self._source.current(txn)
        if self._broker.active and self._hasher is None:
            self._hasher = await load_hasher(txn.view(AUDIT_PREFIX))

    async def decision(self, error: HoldfastError | None = None) -> None:
        """Record, before evaluation, that the request was allowed, or why not. Raises AuditFailed."""
        if self._hasher is None or self._decided:
            return
        await self._record("request", error, None)
        self._decided = True

    async def outcome(self, *, response: Response | None = None, error: HoldfastError | None = None) -> None:
        """Record, before the reply, what came of it. Raises AuditFailed."""
        if self._hasher is None:
            return
        if not self._decided:
            await self.decision(error=error)
        await self._record("response", error, response)

    async def _record(
        self, kind: Literal["request", "response"], error: HoldfastError | None, response: Response | None
    ) -> None:
        assert self._hasher is not None
        assert self._broker is not None
        request, token = self._request, self.token
        if self._hashed is None:
            self._hashed = self._hasher.hash(request.token), self._hasher.scrub(request.data)
        hashed_token, hashed_data = self._hashed
        entry = AuditEntry(
            type=kind,
            time=rfc3339(self._now()),
            request_id=request.id,
            operation=request.operation.value,
            path=request.path,
            node_id=self._node_id,
            remote_address=request.remote_address,
            forwarded_by=request.forwarded_by,
            token=hashed_token,
            accessor="" if token is None else self._hasher.hash(token.accessor),
            display_name="" if token is None else token.display_name,
            policies=() if token is None else token.policies,
            data=hashed_data,
            error="" if error is None else error.reason,
            response=None if response is None else self._hasher.scrub(_told(response)),
            warnings=0 if response is None else len(response.warnings),
        )
        await self._broker.record(entry)


def _told(response: Response) -> Any:
    return response.data if response.auth is None else {"data": response.data, "auth": response.auth}
