"""What travels down the request path and back: plain data, the same for every front end and for forwarding."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

PATH_BYTES_MAX = 1024
"""The longest logical path, in bytes of UTF-8."""

DATA_BYTES_MAX = 1024 * 1024
"""The largest request data, in bytes of JSON."""


class Operation(enum.StrEnum):
    """What a request asks for; the capability it needs is derived from it."""

    READ = "read"
    CREATE = "create"
    UPDATE = "update"
    PATCH = "patch"
    DELETE = "delete"
    LIST = "list"

    @property
    def writes(self) -> bool:
        """Whether the operation may change state and therefore runs on the leader."""
        return self not in (Operation.READ, Operation.LIST)


class Consistency(enum.StrEnum):
    """How fresh a read must be."""

    LINEARIZABLE = "linearizable"
    STALE = "stale"


class RequestId(msgspec.Struct, frozen=True):
    """Names a write for exactly-once retries.

    client: 16 random bytes chosen by a client process. sequence: counts that client's writes.
    age_ms: milliseconds since the first attempt, by the client's monotonic clock.
    """

    client: bytes
    sequence: int
    age_ms: int = 0

    def __repr__(self) -> str:
        return f"<RequestId sequence={self.sequence} age_ms={self.age_ms}>"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One operation on one path.

    path: without a leading slash, e.g. `secret/data/myapp/db`.
    data: the JSON object's members.
    id: chosen by the node that received the request; names it in the audit log.
    remote_address: of the client, for audit and CIDR bindings.
    forwarded_by: the node id that forwarded the request; empty on the first node. A request is forwarded once.
    """

    operation: Operation
    path: str
    data: dict[str, Any] = {}
    token: str = ""
    id: str = ""
    request_id: RequestId | None = None
    consistency: Consistency = Consistency.LINEARIZABLE
    remote_address: str = ""
    timeout_s: float = 30.0
    forwarded_by: str = ""

    def __repr__(self) -> str:
        return f"<Request {self.operation} id={self.id!r}>"  # path, data and token never reach a log


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request. `data` is None when the operation answers with nothing. `auth`: a token that was made or
    renewed, in the form of Vault's answers."""

    data: dict[str, Any] | None = None
    auth: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Response data={'none' if self.data is None else 'hidden'} warnings={len(self.warnings)}>"
