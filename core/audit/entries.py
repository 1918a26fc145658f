"""One line of an audit log: what was asked, or what came of it, or what the node did by itself.

Entries hold paths and the names of members, as Vault's do, because an audit without them answers nothing. Every string
and number given or answered, the token and its accessor are keyed hashes.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """type: a "request" is recorded when it is decided, its "response" before it is answered; an "event" is what a node
    does by itself, such as sealing, with `operation` its name. `error`: the wire reason; empty when there was none.
    `data`: hashed members; those of an event are in the clear. `response`: the hashed answer. time: RFC 3339, UTC."""

    type: Literal["request", "response", "event"]
    time: str
    request_id: str = ""
    operation: str
    path: str = ""
    node_id: str = ""
    remote_address: str = ""
    forwarded_by: str = ""
    token: str = ""
    accessor: str = ""
    display_name: str = ""
    policies: tuple[str, ...] = ()
    data: Any = None
    error: str = ""
    response: Any = None
    warnings: int = 0

    def encode(self) -> bytes:
        """A JSON object on one line, in the form of Vault's audit log, without a newline."""
        return msgspec.json.encode(_members(self))

    def __repr__(self) -> str:
        return f"<AuditEntry {self.type} request_id={self.request_id!r}>"


def _members(entry: AuditEntry) -> dict[str, Any]:
    members: dict[str, Any] = {"time": entry.time, "type": entry.type, "node_id": entry.node_id}
    if entry.type == "event":
        return members | {"event": entry.operation, "data": entry.data}
    members["auth"] = {
        "client_token": entry.token,
        "accessor": entry.accessor,
        "display_name": entry.display_name,
        "policies": entry.policies,
    }
    members["request"] = {
        "id": entry.request_id,
        "operation": entry.operation,
        "path": entry.path,
        "data": entry.data,
        "remote_address": entry.remote_address,
        "forwarded_from": entry.forwarded_by,
    }
    if entry.type == "response":
        members["response"] = {"data": entry.response, "warnings": entry.warnings}
    if entry.error:
        members["error"] = entry.error
    return members
