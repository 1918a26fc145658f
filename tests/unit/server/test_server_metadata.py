"""What a call carries beside its message."""

import pytest

from holdfast.core.request import Consistency, RequestId
from holdfast.proto.errors import InvalidArgument
from holdfast.server.metadata import Call, call_of

CLIENT = "0123456789abcdef0123456789abcdef"


def parsed(
    *metadata: tuple[str, str | bytes], remaining: float | None = None, peer: str = "ipv4:127.0.0.1:5000"
) -> Call:
    return call_of(call_id="id", metadata=metadata, time_remaining_s=remaining, peer=peer)


def test_a_bare_call_has_the_defaults() -> None:
    assert parsed(("user-agent", "x")) == Call(id="id", remote_address="127.0.0.1:5000")


def test_everything_is_read() -> None:
    call = parsed(
        ("x-holdfast-token", "hvs.abc"),
        ("x-holdfast-request-id", f"{CLIENT}-42"),
        ("x-holdfast-request-age-ms", "1500"),
        ("x-holdfast-consistency", "stale"),
    )
    assert call.token == "hvs.abc"
    assert call.request_id == RequestId(client=bytes.fromhex(CLIENT), sequence=42, age_ms=1500)
    assert call.consistency is Consistency.STALE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-holdfast-token", "two words"),
        ("x-holdfast-token", "t" * 1025),
        ("x-holdfast-token", "tökén"),
        ("x-holdfast-request-id", "1-1"),
        ("x-holdfast-request-id", f"{CLIENT.upper()}-1"),
        ("x-holdfast-request-id", f"{CLIENT}-"),
        ("x-holdfast-request-id", f"{CLIENT}--1"),
        ("x-holdfast-request-id", f"{CLIENT}-9999999999999999999"),
        ("x-holdfast-request-id", f"{CLIENT}-\u0661"),
        ("x-holdfast-request-age-ms", "-1"),
        ("x-holdfast-request-age-ms", "1.5"),
        ("x-holdfast-request-age-ms", "5"),  # an age without an id
        ("x-holdfast-consistency", "Stale"),
        ("x-holdfast-consistency", "eventual"),
    ],
)
def test_what_is_malformed_is_refused_by_name_and_not_quoted(name: str, value: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parsed((name, value))
    assert caught.value.field == name
    assert value not in caught.value.message or len(value) < 3


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="given twice"):
        parsed(("x-holdfast-token", "a"), ("x-holdfast-token", "b"))


@pytest.mark.parametrize(
    ("remaining", "expected"), [(None, 30.0), (5.0, 5.0), (90.0, 90.0), (3600.0, 90.0), (-1.0, 0.001), (9e18, 30.0)]
)
def test_the_deadline_is_the_clients_up_to_ninety_seconds(remaining: float | None, expected: float) -> None:
    assert parsed(remaining=remaining).timeout_s == expected


@pytest.mark.parametrize(
    ("peer", "expected"),
    [("ipv6:%5B::1%5D:80", "[::1]:80"), ("ipv4:10.0.0.1:9", "10.0.0.1:9"), ("unix:/x", "unix:/x"), ("", "")],
)
def test_the_callers_address_is_read_off_grpcs_name_of_it(peer: str, expected: str) -> None:
    assert parsed(peer=peer).remote_address == expected


def test_a_call_does_not_show_its_token() -> None:
    assert "hvs" not in repr(parsed(("x-holdfast-token", "hvs.abc")))
