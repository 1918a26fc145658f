"""What a call carries beside its message: token, request id, consistency, deadline and the caller's address."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

import msgspec

from holdfast.core.request import Consistency, RequestId
from holdfast.proto.errors import InvalidArgument
from holdfast.server.limits import TIMEOUT_S_DEFAULT, TIMEOUT_S_MAX, TIMEOUT_S_MIN, TOKEN_BYTES_MAX

TOKEN = "x-holdfast-token"  # noqa: S105 - the name of a metadata key
REQUEST_ID = "x-holdfast-request-id"
REQUEST_AGE = "x-holdfast-request-age-ms"
CONSISTENCY = "x-holdfast-consistency"
_NAMES = frozenset((TOKEN, REQUEST_ID, REQUEST_AGE, CONSISTENCY))

_REQUEST_ID_FORM = re.compile(r"([0-9a-f]{32})-([0-9]{1,19})")
_AGE_FORM = re.compile(r"[0-9]{1,15}")
_TOKEN_FORM = re.compile(r"[!-~]+")


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call, without its message.

    id: chosen by this node; names the call in logs and audit. timeout_s: what is left of the caller's deadline.
    """

    id: str
    token: str = ""
    request_id: RequestId | None = None
    consistency: Consistency = Consistency.LINEARIZABLE
    timeout_s: float = TIMEOUT_S_DEFAULT
    remote_address: str = ""

    def __repr__(self) -> str:
        return f"Call(id={self.id!r})"


def call_of(
    *, call_id: str, metadata: Iterable[tuple[str, str | bytes]], time_remaining_s: float | None, peer: str
) -> Call:
    """Parse a call's metadata. `time_remaining_s` is None when the caller set no deadline; `peer` is gRPC's name of it.

    Raises InvalidArgument naming the metadata key at fault, never quoting its value.
    """
    values: dict[str, str] = {}
    for name, value in metadata:
        if name not in _NAMES:
            continue
        if name in values:
            raise InvalidArgument(f"metadata {name} is given twice", field=name)
        values[name] = value.decode("latin-1") if isinstance(value, bytes) else value
    return Call(
        id=call_id,
        token=_token(values.get(TOKEN, "")),
        request_id=_request_id(values.get(REQUEST_ID), values.get(REQUEST_AGE)),
        consistency=_consistency(values.get(CONSISTENCY, "")),
        timeout_s=_timeout(time_remaining_s),
        remote_address=_address(peer),
    )


def _token(text: str) -> str:
    if text and (len(text) > TOKEN_BYTES_MAX or not _TOKEN_FORM.fullmatch(text)):
        raise InvalidArgument(
            f"the token must be at most {TOKEN_BYTES_MAX} printable ASCII characters without spaces", field=TOKEN
        )
    return text


def _request_id(text: str | None, age: str | None) -> RequestId | None:
    if age is not None and not _AGE_FORM.fullmatch(age):
        raise InvalidArgument("the request's age must be whole milliseconds", field=REQUEST_AGE)
    if text is None:
        if age is not None:
            raise InvalidArgument(f"an age needs a request id; send {REQUEST_ID} too", field=REQUEST_AGE)
        return None
    match = _REQUEST_ID_FORM.fullmatch(text)
    if match is None or int(match[2]) >= 2**63:
        raise InvalidArgument("a request id is 32 hexadecimal digits, '-' and a decimal number", field=REQUEST_ID)
    return RequestId(client=bytes.fromhex(match[1]), sequence=int(match[2]), age_ms=int(age or 0))


def _consistency(text: str) -> Consistency:
    try:
        return Consistency(text) if text else Consistency.LINEARIZABLE
    except ValueError:
        allowed = " or ".join(f"'{value}'" for value in Consistency)
        raise InvalidArgument(f"consistency must be {allowed}", field=CONSISTENCY) from None


def _timeout(remaining_s: float | None) -> float:
    # gRPC gives a huge number, not None, in some versions when there is no deadline.
    if remaining_s is None or remaining_s > 1e9:
        return TIMEOUT_S_DEFAULT
    return min(max(remaining_s, TIMEOUT_S_MIN), TIMEOUT_S_MAX)


def _address(peer: str) -> str:
    """host:port or [IPv6]:port of gRPC's "ipv4:127.0.0.1:5000" or "ipv6:%5B::1%5D:5000"."""
    scheme, separator, rest = peer.partition(":")
    return unquote(rest) if separator and scheme in ("ipv4", "ipv6") else peer
