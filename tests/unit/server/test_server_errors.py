"""One translation from the error tree to gRPC statuses: every class, its code and its details."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from holdfast.proto.errors import BY_REASON, DOMAIN, HoldfastError, InvalidArgument, Overloaded
from holdfast.server.errors import MESSAGE_CHARS_MAX, status_of, unexpected


def rich(error: HoldfastError) -> tuple[grpc.Status, status_pb2.Status]:
    status = status_of(error)
    ((key, raw),) = status.trailing_metadata
    assert key == "grpc-status-details-bin"
    return status, status_pb2.Status.FromString(raw)


def unpack(status: status_pb2.Status, kind: type) -> object | None:
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):  # type: ignore[attr-defined]
            message = kind()
            packed.Unpack(message)
            return message  # type: ignore[no-any-return]
    return None


@pytest.mark.parametrize("cls", BY_REASON.values(), ids=BY_REASON.keys())
def test_every_class_of_the_tree_has_its_code_and_its_reason_on_the_wire(cls: type[HoldfastError]) -> None:
    error = cls("what happened; what to do", details={"a": "b"})
    status, rich_status = rich(error)
    assert status.code is grpc.StatusCode[cls.grpc_code]
    assert status.details == rich_status.message == "what happened; what to do"
    assert rich_status.code == status.code.value[0]
    info = unpack(rich_status, error_details_pb2.ErrorInfo)
    assert info == error_details_pb2.ErrorInfo(reason=cls.reason, domain=DOMAIN, metadata={"a": "b"})
    retry = unpack(rich_status, error_details_pb2.RetryInfo)
    assert (retry is not None) == (cls.default_retry_after_ms is not None)
    assert unpack(rich_status, error_details_pb2.BadRequest) is None


def test_a_retry_hint_is_a_duration() -> None:
    _, rich_status = rich(Overloaded("full", retry_after_ms=1250))
    retry = unpack(rich_status, error_details_pb2.RetryInfo)
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 1250


def test_a_field_at_fault_is_named() -> None:
    _, rich_status = rich(InvalidArgument("too long", field="path"))
    bad = unpack(rich_status, error_details_pb2.BadRequest)
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad.field_violations] == [("path", "too long")]


def test_a_long_message_is_cut_so_that_the_status_fits_a_header() -> None:
    status, _ = rich(InvalidArgument("x" * 100_000, field="path"))
    assert len(status.details) == MESSAGE_CHARS_MAX


def test_an_unexpected_exception_tells_nothing_but_the_request_id() -> None:
    status, rich_status = rich(unexpected("abc123"))
    assert status.code is grpc.StatusCode.INTERNAL
    assert "abc123" in rich_status.message
