"""What a failed attempt means: every error of the table survives the wire, and gRPC's own words are understood."""

from collections.abc import Iterable

import grpc
import pytest
from support.fake_server import rich_status

from holdfast.client.failures import TlsFailed, translate
from holdfast.client.retry import Effect, Verdict, verdict
from holdfast.proto import errors
from holdfast.proto.errors import BY_REASON, HoldfastError


class Rpc:
    """A gRPC error as sync and asyncio calls raise it."""

    def __init__(self, code: grpc.StatusCode, text: str, trailing: Iterable[tuple[str, str | bytes]] = ()) -> None:
        self._parts = (code, text, tuple(trailing))

    def code(self) -> grpc.StatusCode:
        return self._parts[0]

    def details(self) -> str:
        return self._parts[1]

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        return self._parts[2]


def told(error: HoldfastError) -> Rpc:
    trailing = [("grpc-status-details-bin", rich_status(error).SerializeToString())]
    return Rpc(getattr(grpc.StatusCode, error.grpc_code), error.message, trailing)


@pytest.mark.parametrize("cls", BY_REASON.values(), ids=lambda cls: cls.reason)
def test_every_error_of_the_table_arrives_as_it_was_sent(cls: type[HoldfastError]) -> None:
    sent = cls("what happened", field="path", retry_after_ms=1234, details={"leader_id": "node-2"})
    got = translate(told(sent), "a:1").error
    assert type(got) is cls
    assert (got.message, got.field, got.retry_after_ms, got.details) == (
        "what happened", "path", 1234, {"leader_id": "node-2"},
    )  # fmt: skip


def test_a_nodes_refusal_means_that_nothing_happened_except_where_it_says_it_does_not_know() -> None:
    for cls in BY_REASON.values():
        failure = translate(told(cls("x")), "a:1")
        unsure = issubclass(cls, errors.OutcomeUnknown | errors.Fatal) or cls is HoldfastError
        assert failure.may_have_acted == unsure


def test_a_reason_from_the_future_keeps_its_text() -> None:
    class Newer(HoldfastError):
        reason = "NEWER"

    assert translate(told(Newer("a new thing went wrong")), "a:1").error.message == "a new thing went wrong"


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"", rich_status(errors.Sealed("x")).SerializeToString()[:9]])
def test_details_that_cannot_be_read_count_as_none(garbage: bytes) -> None:
    failure = translate(Rpc(grpc.StatusCode.NOT_FOUND, "x", [("grpc-status-details-bin", garbage)]), "a:1")
    assert type(failure.error) is errors.NotFound


NEVER_CONNECTED = [
    ("last error: UNKNOWN: Failed to connect to remote host: Connection refused", "nothing listens at a:1"),
    (
        "errors resolving a:1: [field:hostname lookup error:address lookup failed for a:1]",
        "name a could not be resolved",
    ),
    ("last error: UNAVAILABLE: ipv4:1.2.3.4:1: Handshake read failed (Endpoint closing)", "could not be reached"),
    ("failed to connect to all addresses; connect: No route to host (113)", "could not be reached"),
]
TLS = [
    ("Ssl handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED: self signed", "-ca-cert"),
    ("Custom verification check failed: UNAUTHENTICATED: Hostname Verification Check failed.", "-tls-server-name"),
    ("Ssl handshake failed: SSL_ERROR_SSL: WRONG_VERSION_NUMBER: Invalid certificate verification context", "TLS"),
    ("Ssl handshake failed: SSL_ERROR_SSL: TLSV1_ALERT_UNKNOWN_CA", "-client-cert"),
]


@pytest.mark.parametrize(("text", "words"), NEVER_CONNECTED)
def test_a_call_that_never_left_names_the_address_and_may_be_repeated(text: str, words: str) -> None:
    failure = translate(Rpc(grpc.StatusCode.UNAVAILABLE, text), "a:1")
    assert type(failure.error) is errors.Unavailable
    assert words in failure.error.message
    assert not failure.may_have_acted
    assert failure.error.details["address"] == "a:1"
    assert verdict(failure, Effect.ONCE) is Verdict.NEXT


@pytest.mark.parametrize(("text", "words"), TLS)
def test_a_tls_failure_says_so_and_what_to_look_at(text: str, words: str) -> None:
    failure = translate(Rpc(grpc.StatusCode.UNAVAILABLE, text), "a:1")
    assert type(failure.error) is TlsFailed
    assert words in failure.error.message
    assert "a:1" in failure.error.message
    assert verdict(failure, Effect.ONCE) is Verdict.ELSEWHERE


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED])
def test_a_call_that_broke_off_may_have_happened(code: grpc.StatusCode) -> None:
    failure = translate(Rpc(code, "Socket closed"), "a:1")
    assert type(failure.error) is errors.Unavailable
    assert failure.may_have_acted
    assert verdict(failure, Effect.ONCE) is Verdict.FINAL
    assert verdict(failure, Effect.WRITE) is Verdict.NEXT


def test_a_silent_node_is_unavailable_and_may_have_acted() -> None:
    failure = translate(Rpc(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"), "a:1")
    assert type(failure.error) is errors.Unavailable
    assert failure.may_have_acted
    assert failure.timed_out


def test_a_message_that_is_too_large_is_not_sent_again() -> None:
    failure = translate(Rpc(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)"), "a:1")
    assert type(failure.error) is errors.InvalidArgument
