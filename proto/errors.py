"""The one error tree of Holdfast, and the one table from errors to wire codes.

    HoldfastError
    ├── InvalidArgument        the request is wrong; nothing changed        INVALID_ARGUMENT     400
    ├── Unauthenticated        no token, or one that is not valid           UNAUTHENTICATED      401
    ├── PermissionDenied       the token may not do this                    PERMISSION_DENIED    403
    ├── NotFound               nothing is stored there                      NOT_FOUND            404
    ├── AlreadyExists          made before; change it instead               ALREADY_EXISTS       409
    ├── Conflict               a check-and-set did not match                ABORTED              409
    ├── FailedPrecondition     the node or object is in the wrong state     FAILED_PRECONDITION  412
    │   ├── AlreadyInitialized the cluster has its keys already
    │   └── ShareRejected      a share is mistyped, foreign or repeated
    ├── Unimplemented          this build has no such operation             UNIMPLEMENTED        501
    ├── Unavailable            ask again, here or at another node           UNAVAILABLE          503
    │   ├── Uninitialized      the cluster has no keys yet
    │   ├── Sealed             this node holds no keys
    │   ├── NoLeader           no leader is known at the moment
    │   ├── NotLeader          another node leads (between nodes only)
    │   └── AuditFailed        no audit device took the entry
    ├── Overloaded             a queue or limit is full                     RESOURCE_EXHAUSTED   429
    ├── OutcomeUnknown         a write may or may not have happened         DEADLINE_EXCEEDED    504
    └── Fatal                  doubtful state: the process must stop        INTERNAL             500
        ├── Corruption         stored bytes are not what was written
        ├── Diverged           a replica's history differs from the leader's
        └── StorageFailed      the disk refused a write or a sync

Messages say what happened, why, and what to do next, and never contain a secret, a name of a secret, a token, a share
or a key. Nothing inspects message text: code that reacts to an error reacts to its class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

DOMAIN = "holdfast"
"""The `domain` of every google.rpc.ErrorInfo that Holdfast sends."""


class HoldfastError(Exception):
    """Base of every error that reaches a caller.

    reason: the stable, upper-case name on the wire (ErrorInfo.reason).
    grpc_code: the name of the gRPC status code.
    http_status: the status of the HTTP gateway.
    retryable: whether the same request may succeed later without being changed.
    retry_after_ms: when to try again, where it is known; None otherwise.
    field: the request field at fault, for InvalidArgument.
    details: short machine-readable facts (ErrorInfo.metadata); never a secret.
    """

    reason: ClassVar[str] = "INTERNAL"
    grpc_code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    default_retry_after_ms: ClassVar[int | None] = None

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        retry_after_ms: int | None = None,
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_ms = retry_after_ms if retry_after_ms is not None else self.default_retry_after_ms
        self.details = dict(details or {})


class InvalidArgument(HoldfastError):
    """The request is malformed or out of limits. Nothing was changed; correct `field` and send again."""

    reason = "INVALID_ARGUMENT"
    grpc_code = "INVALID_ARGUMENT"
    http_status = 400


class Unauthenticated(HoldfastError):
    """No token came with the request, or the token is unknown, expired or revoked. Log in again."""

    reason = "UNAUTHENTICATED"
    grpc_code = "UNAUTHENTICATED"
    http_status = 401


class PermissionDenied(HoldfastError):
    """The token is valid and its policies do not allow this. Ask for a policy that does."""

    reason = "PERMISSION_DENIED"
    grpc_code = "PERMISSION_DENIED"
    http_status = 403


class NotFound(HoldfastError):
    """Nothing is stored at this path, or no mount serves it."""

    reason = "NOT_FOUND"
    grpc_code = "NOT_FOUND"
    http_status = 404


class AlreadyExists(HoldfastError):
    """Something of this name exists. Choose another name or change the existing one."""

    reason = "ALREADY_EXISTS"
    grpc_code = "ALREADY_EXISTS"
    http_status = 409


class Conflict(HoldfastError):
    """A check-and-set did not match, or concurrent writes kept winning. Read again and decide anew."""

    reason = "CONFLICT"
    grpc_code = "ABORTED"
    http_status = 409


class FailedPrecondition(HoldfastError):
    """The node or the object is not in a state that allows this. The message says which state is needed."""

    reason = "FAILED_PRECONDITION"
    grpc_code = "FAILED_PRECONDITION"
    http_status = 412


class AlreadyInitialized(FailedPrecondition):
    """The cluster has its keys. Unseal it with the shares that were made then."""

    reason = "ALREADY_INITIALIZED"


class ShareRejected(FailedPrecondition):
    """A share is mistyped, from another set, repeated, or the set does not open the root key."""

    reason = "SHARE_REJECTED"


class Unimplemented(HoldfastError):
    """This build does not have the operation."""

    reason = "UNIMPLEMENTED"
    grpc_code = "UNIMPLEMENTED"
    http_status = 501


class Unavailable(HoldfastError):
    """The node cannot serve this now. Try again, or at another node."""

    reason = "UNAVAILABLE"
    grpc_code = "UNAVAILABLE"
    http_status = 503
    retryable = True
    default_retry_after_ms: ClassVar[int | None] = 250


class Uninitialized(Unavailable):
    """The cluster has no keys yet. Run `holdfast operator init`."""

    reason = "UNINITIALIZED"
    retryable = False
    default_retry_after_ms = None


class Sealed(Unavailable):
    """This node holds no keys. Use another node, or unseal this one with `holdfast operator unseal`."""

    reason = "SEALED"
    default_retry_after_ms = 1000


class NoLeader(Unavailable):
    """No leader is known: an election is under way or quorum is lost. Try again after `retry_after_ms`."""

    reason = "NO_LEADER"


class NotLeader(Unavailable):
    """The node asked is not the leader (any more). Between nodes only; `details["leader_id"]` names it if known."""

    reason = "NOT_LEADER"


class AuditFailed(Unavailable):
    """No audit device recorded the request in time, so nothing was done or told. See to the audit devices."""

    reason = "AUDIT_FAILED"
    default_retry_after_ms = 1000


class Overloaded(HoldfastError):
    """A queue or a limit is full; nothing was changed. Back off at least `retry_after_ms`."""

    reason = "RESOURCE_EXHAUSTED"
    grpc_code = "RESOURCE_EXHAUSTED"
    http_status = 429
    retryable = True
    default_retry_after_ms: ClassVar[int | None] = 500


class OutcomeUnknown(HoldfastError):
    """The write was sent and its outcome is not known. Retry with the same request id: it takes effect once."""

    reason = "OUTCOME_UNKNOWN"
    grpc_code = "DEADLINE_EXCEEDED"
    http_status = 504
    retryable = True
    default_retry_after_ms: ClassVar[int | None] = 250


class Fatal(HoldfastError):
    """The node's state is doubtful. No code path carries on: the process ends with this message (law 7)."""

    reason = "FATAL"


class Corruption(Fatal):
    """Stored bytes are not what was written: a failed checksum, a hole, a record that does not decrypt."""

    reason = "CORRUPTION"


class Diverged(Fatal):
    """This replica's history differs from the leader's. Rebuild it from its peers."""

    reason = "DIVERGED"


class StorageFailed(Fatal):
    """The disk refused a write or a sync. What is on it is unknown until the node starts again and reads it."""

    reason = "STORAGE_FAILED"


def _tree(root: type[HoldfastError]) -> dict[str, type[HoldfastError]]:
    table = {root.reason: root}
    for child in root.__subclasses__():
        table.update(_tree(child))
    return table


BY_REASON: Mapping[str, type[HoldfastError]] = _tree(HoldfastError)
"""Every error class by its wire reason."""


def from_wire(
    reason: str,
    message: str,
    *,
    field: str = "",
    retry_after_ms: int | None = None,
    details: Mapping[str, str] | None = None,
) -> HoldfastError:
    """The error that another process sent. An unknown reason gives a plain HoldfastError, so that a newer node's
    errors still reach an older client with their text."""
    cls = BY_REASON.get(reason, HoldfastError)
    return cls(message, field=field, retry_after_ms=retry_after_ms, details=details)
