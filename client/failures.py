"""What a failed attempt means: the one place that turns a gRPC status into an error of `holdfast.proto.errors`.

A node's own errors arrive as google.rpc details and are taken as they are. A status without details comes from gRPC
itself (nobody listens, the handshake failed, the deadline passed); it has a code and a text in gRPC's words, and the
text is read here and nowhere else. Where the text is not understood, the attempt counts as one that may have taken
effect, which is the safe side.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from holdfast.proto import errors
from holdfast.proto.errors import HoldfastError

_DETAILS_KEY = "grpc-status-details-bin"


class LocalError(errors.InvalidArgument):
    """The mistake is on this side: a setting, a file, an argument. Nothing was sent; correct it and try again."""


class TlsFailed(errors.Unavailable):
    """A node was reached and no trusted TLS session came about. Check the CA file, the address and the certificates.

    Another node may do better; this one stays as it is until somebody changes a certificate or a setting.
    """

    retryable: ClassVar[bool] = False
    default_retry_after_ms: ClassVar[int | None] = None


@dataclass(frozen=True)
class Failure:
    """One failed attempt.

    error: what to tell the caller, should this attempt have been the last.
    may_have_acted: True unless it is certain that the node did nothing.
    timed_out: the attempt's own deadline passed, so that a longer one may help.
    """

    error: HoldfastError
    may_have_acted: bool
    timed_out: bool = False


class RpcFailure(Protocol):
    """What sync and asyncio gRPC errors have in common."""

    def code(self) -> grpc.StatusCode: ...

    def details(self) -> str | None: ...

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


_BY_CODE: dict[grpc.StatusCode, type[HoldfastError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidArgument,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.Overloaded,
}
"""Bare statuses whose meaning is plain. All others (UNKNOWN, INTERNAL, CANCELLED, DATA_LOSS) are broken calls."""

_NOT_CONNECTED = ("failed to connect", "handshake")
"""gRPC's words for a call that never left this machine, because no connection came about."""


def translate(failure: RpcFailure, address: str) -> Failure:
    """The meaning of a gRPC error that a call to `address` ended with."""
    told = _from_details(failure)
    if told is not None:
        return told
    code, text = failure.code(), " ".join((failure.details() or "").split())
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        error = errors.Unavailable(
            f"{address} did not answer in time. The node may be down, paused or out of reach of its peers; "
            "see `holdfast status`, or allow more time with -timeout.",
            details={"address": address},
        )
        return Failure(error, may_have_acted=True, timed_out=True)
    if code is grpc.StatusCode.UNAVAILABLE:
        return _no_connection(text, address)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text:
        return Failure(
            errors.InvalidArgument(f"the request or its answer is too large for {address}."), may_have_acted=False
        )
    cls = _BY_CODE.get(code)
    if cls is not None:
        return Failure(cls(f"{address} answered {code.name}: {text}"), may_have_acted=False)
    error = errors.Unavailable(f"the call to {address} broke off ({code.name}: {text}).", details={"address": address})
    return Failure(error, may_have_acted=True)


def _from_details(failure: RpcFailure) -> Failure | None:
    """The error that a node described with google.rpc details, or None when there is no such description."""
    status = status_pb2.Status()
    for key, value in failure.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                status.ParseFromString(value)
            except DecodeError:
                return None
    info: error_details_pb2.ErrorInfo | None = None
    retry_after_ms: int | None = None
    field = ""
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after_ms = max(0, retry.retry_delay.ToMilliseconds())
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            field = next((violation.field for violation in bad.field_violations), "")
    if info is None or info.domain != errors.DOMAIN:
        return None
    error = errors.from_wire(
        info.reason,
        status.message or failure.details() or info.reason,
        field=field,
        retry_after_ms=retry_after_ms,
        details=dict(info.metadata),
    )
    may_have_acted = isinstance(error, errors.OutcomeUnknown | errors.Fatal) or type(error) is HoldfastError
    return Failure(error, may_have_acted=may_have_acted)


def _no_connection(text: str, address: str) -> Failure:
    """UNAVAILABLE in gRPC's own words: never connected, no trusted TLS session, or cut off in the middle."""
    words = text.lower()
    details = {"address": address}
    where = "Is the address right (-address, HOLDFAST_ADDR), and is the node running?"
    if "certificate_verify_failed" in words or "certificate verify failed" in words:
        return _tls(
            f"{address} showed a certificate that the CA in use did not sign or that is no longer valid. "
            "Name the cluster's CA with -ca-cert or HOLDFAST_CACERT.",
            address,
        )
    if "hostname verification" in words or "peer name" in words:
        return _tls(
            f"the certificate of {address} is for another name. "
            "Use a name that it holds, or say which one to expect with -tls-server-name or HOLDFAST_TLS_SERVER_NAME.",
            address,
        )
    if "wrong_version_number" in words or "http_request" in words:
        return _tls(f"{address} does not speak TLS, so it is not a Holdfast API port. {where}", address)
    if "ssl" in words or "tsi_" in words or "certificate" in words:
        return _tls(
            f"the TLS handshake with {address} failed. Check the CA (-ca-cert), the client certificate and key "
            "(-client-cert, -client-key), and that the address is the API port of a node.",
            address,
        )
    if "refused" in words:
        error = errors.Unavailable(f"nothing listens at {address} (connection refused). {where}", details=details)
        return Failure(error, may_have_acted=False)
    if "resolving" in words or "lookup" in words or "resolution" in words:
        host = address.rpartition(":")[0]
        error = errors.Unavailable(f"the host name {host} could not be resolved. {where}", details=details)
        return Failure(error, may_have_acted=False)
    if any(phrase in words for phrase in _NOT_CONNECTED):
        error = errors.Unavailable(
            f"{address} could not be reached, or did not answer the TLS handshake. {where}", details=details
        )
        return Failure(error, may_have_acted=False)
    error = errors.Unavailable(f"the connection to {address} broke during the call.", details=details)
    return Failure(error, may_have_acted=True)


def _tls(message: str, address: str) -> Failure:
    return Failure(TlsFailed(message, details={"address": address}), may_have_acted=False)
