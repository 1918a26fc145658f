"""Exactly-once writes: a request id names a write, and the state machine remembers what was answered to it.

The record kept under an id binds the answer to what was asked, so that an id used again for something else is refused
instead of being answered with something else's answer. The record is an envelope with the associated data
"request:" + key: it opens under its own id only.

How long: records live 120 s of cluster time. A retry is taken up to 60 s after the first attempt, and nothing is
proposed later than 90 s after it, which leaves 30 s for clocks that run at different speeds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from holdfast.core.request import Request, RequestId, Response
from holdfast.proto.errors import Corruption, FailedPrecondition, InvalidArgument
from holdfast.storage.barrier import Barrier
from holdfast.storage.batch import RequestRecord
from holdfast.storage.decoding import MALFORMED
from holdfast.storage.keyring import UnknownTerm

CLIENT_BYTES = 16

SEQUENCE_MAX = 2**63 - 1

RETRY_AGE_MS_MAX = 60_000
"""How old a retry may be, in milliseconds since the first attempt."""

PROPOSE_AGE_MS_MAX = 90_000
"""How long after its first attempt a request may still be proposed, in milliseconds."""

_FORMAT = 1


class _Recorded(msgspec.Struct, frozen=True, array_like=True):
    format: int
    fingerprint: bytes
    data: bytes | None
    warnings: tuple[str, ...]
    auth: bytes | None = None


def check(request_id: RequestId) -> None:
    """Raise InvalidArgument for a malformed id and FailedPrecondition for a retry that comes too late."""
    if len(request_id.client) != CLIENT_BYTES:
        raise InvalidArgument(f"a request id's client is {CLIENT_BYTES} bytes", field="request_id")
    if not 0 <= request_id.sequence <= SEQUENCE_MAX:
        raise InvalidArgument(f"a request id's sequence is 0 to {SEQUENCE_MAX}", field="request_id")
    if request_id.age_ms < 0:
        raise InvalidArgument("a request id's age is not negative", field="request_id")
    if request_id.age_ms > RETRY_AGE_MS_MAX:
        raise FailedPrecondition(
            f"the first attempt was over {RETRY_AGE_MS_MAX // 1000} s ago, so whether it took effect may be forgotten: "
            "read to see whether it did before writing again, then write under a new request id"
        )


def fingerprint(request: Request) -> bytes:
    """What was asked, by whom, as 32 bytes."""
    digest = hashlib.sha256()
    for part in (request.operation.value.encode(), request.path.encode(), request.token.encode(errors="surrogatepass")):
        digest.update(len(part).to_bytes(8, "big") + part)
    digest.update(_canonical(request.data))
    return digest.digest()


def _canonical(data: Mapping[str, Any]) -> bytes:
    """Equal JSON objects in equal bytes, whatever the order of their members."""
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def _json(value: dict[str, Any] | None) -> bytes | None:
    return None if value is None else json.dumps(value, separators=(",", ":")).encode()


def _object(encoded: bytes | None) -> Any:
    return None if encoded is None else json.loads(encoded)


class Recorder:
    """The record of one request id. print_: the fingerprint of the request at hand."""

    def __init__(self, barrier: Barrier, request_id: RequestId, print_: bytes) -> None:
        self.key = barrier.request_key(request_id.client + request_id.sequence.to_bytes(8, "big"))
        self._barrier = barrier
        self._fingerprint = print_

    def record(self, response: Response) -> RequestRecord:
        """What the state machine is to remember."""
        plain = msgspec.msgpack.encode(
            _Recorded(_FORMAT, self._fingerprint, _json(response.data), response.warnings, _json(response.auth))
        )
        return RequestRecord(key=self.key, response=self._barrier.encrypt(self._associated, plain))

    async def open(self, recorded: bytes) -> Response:
        """The answer given the first time.

        Raises InvalidArgument when the id was used for another request, Corruption when the record does not open."""
        try:
            found = msgspec.msgpack.decode(await self._opened(recorded), type=_Recorded)
        except MALFORMED:
            raise Corruption("a request record does not parse: restore this node from its peers") from None
        if found.fingerprint != self._fingerprint:
            raise InvalidArgument(
                "the request id was used for another request: use an id for one request only", field="request_id"
            )
        return Response(data=_object(found.data), auth=_object(found.auth), warnings=found.warnings)

    async def _opened(self, recorded: bytes) -> bytes:
        while True:
            try:
                return self._barrier.decrypt(self._associated, recorded)
            except UnknownTerm:
                if not await self._barrier.refresh():
                    raise

    @property
    def _associated(self) -> bytes:
        return b"request:" + self.key

    def __repr__(self) -> str:
        return "<Recorder>"
