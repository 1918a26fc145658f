"""The pure parts of the peer network hold for any input: frames, outbox, call messages, back-off, addresses."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.cluster.peer.backoff import Backoff
from holdfast.cluster.peer.dialer import split_address
from holdfast.cluster.peer.frames import FrameDecoder, FrameTooLarge, encode
from holdfast.cluster.peer.outbox import Outbox
from holdfast.cluster.peer.wire import Call, Cancel, Failure, Reply, decode_answer, decode_request, encode_message
from holdfast.proto.errors import BY_REASON, HoldfastError

LIMIT = 300
payloads = st.lists(st.binary(max_size=LIMIT), max_size=20)
cuts = st.lists(st.integers(min_value=0, max_value=400), max_size=60)
words = st.text(max_size=40)
identifiers = st.integers(min_value=1, max_value=2**62)


def pieces(stream: bytes, lengths: list[int]) -> list[bytes]:
    """The stream in pieces of these lengths, and the rest."""
    parts = []
    for length in lengths:
        parts.append(stream[:length])
        stream = stream[length:]
    return [*parts, stream]


@settings(deadline=None, max_examples=300)
@given(payloads, cuts)
def test_frames_come_out_as_they_went_in_however_the_stream_is_split(frames: list[bytes], lengths: list[int]) -> None:
    decoder = FrameDecoder(limit=LIMIT)
    stream = b"".join(encode(frame, limit=LIMIT) for frame in frames)
    found = [frame for piece in pieces(stream, lengths) for frame in decoder.feed(piece)]
    assert found == frames
    assert decoder.buffered == 0


@settings(deadline=None, max_examples=300)
@given(payloads, cuts, st.integers(min_value=LIMIT + 1, max_value=2**32 - 1), st.binary(max_size=50))
def test_an_oversized_frame_is_refused_at_its_header_after_the_frames_before_it(
    frames: list[bytes], lengths: list[int], size: int, rest: bytes
) -> None:
    decoder = FrameDecoder(limit=LIMIT)
    stream = b"".join(encode(frame, limit=LIMIT) for frame in frames) + size.to_bytes(4, "big") + rest
    found: list[bytes] = []

    def read() -> None:
        for piece in pieces(stream, lengths):
            for frame in decoder.feed(piece):
                found.append(frame)  # noqa: PERF402  the frames before the exception count

    with pytest.raises(FrameTooLarge):
        read()
    assert found == frames


@settings(deadline=None)
@given(payloads, st.integers(min_value=1, max_value=20))
def test_a_reader_that_stops_early_loses_nothing(frames: list[bytes], stop: int) -> None:
    decoder = FrameDecoder(limit=LIMIT)
    stream = b"".join(encode(frame, limit=LIMIT) for frame in frames)
    found = list(itertools.islice(decoder.feed(stream), stop))
    assert found + list(decoder.feed(b"")) == frames


def test_a_frame_over_the_limit_is_not_encoded() -> None:
    with pytest.raises(FrameTooLarge):
        encode(b"12345", limit=4)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(st.binary(min_size=1, max_size=40), st.integers(min_value=1, max_value=60)), max_size=60))
def test_an_outbox_gives_out_what_was_put_in_and_counts_it(steps: list[bytes | int]) -> None:
    outbox = Outbox(limit=10**9)
    put, taken = b"", b""
    for step in steps:
        if isinstance(step, bytes):
            assert outbox.end == len(put)
            outbox.append(step)
            put += step
        else:
            chunk = outbox.take(step)
            assert len(chunk) == min(step, len(put) - len(taken))
            taken += chunk
        assert outbox.taken == len(taken)
        assert outbox.size == len(put) - len(taken)
    assert taken + outbox.take(10**9) == put


@given(st.integers(min_value=1, max_value=50), st.lists(st.integers(min_value=0, max_value=80), max_size=20))
def test_an_outbox_holds_no_more_than_its_limit_or_one_piece(limit: int, lengths: list[int]) -> None:
    outbox = Outbox(limit=limit)
    for length in lengths:
        if outbox.fits(length):
            outbox.append(b"x" * length)
    assert outbox.size <= max(limit, 80)
    assert len(outbox._pieces) == 1 or outbox.size <= limit or 0 in lengths


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_call_message_or_a_value_error(payload: bytes) -> None:
    for decode in (decode_request, decode_answer):
        try:
            message = decode(payload)
        except ValueError:
            continue
        assert isinstance(message, Call | Cancel | Reply | Failure)


@given(identifiers, st.text(min_size=1, max_size=100), st.integers(min_value=1, max_value=2**31 - 1), st.binary())
def test_requests_and_replies_survive_the_wire(call_id: int, name: str, timeout_ms: int, payload: bytes) -> None:
    call = Call(call_id, name, timeout_ms, payload)
    assert decode_request(encode_message(call)) == call
    assert decode_request(encode_message(Cancel(call_id))) == Cancel(call_id)
    assert decode_answer(encode_message(Reply(call_id, payload))) == Reply(call_id, payload)


@given(
    st.sampled_from(sorted(BY_REASON.values(), key=lambda cls: cls.reason)),
    words,
    words,
    st.none() | st.integers(min_value=0, max_value=10**6),
    st.dictionaries(words, words, max_size=4),
)
def test_every_error_of_the_tree_survives_the_wire(
    cls: type[HoldfastError], message: str, field: str, retry_after_ms: int | None, details: dict[str, str]
) -> None:
    error = cls(message, field=field, retry_after_ms=retry_after_ms, details=details)
    sent = decode_answer(encode_message(Failure.of(1, error)))
    assert isinstance(sent, Failure)
    received = sent.error()
    assert type(received) is cls
    assert (received.message, received.field, received.details) == (message, field, details)
    assert received.retry_after_ms == error.retry_after_ms


@given(st.lists(st.floats(min_value=0, max_value=1, exclude_max=True), min_size=1, max_size=30))
def test_back_off_doubles_within_its_bounds_and_starts_anew_after_a_reset(draws: list[float]) -> None:
    numbers = iter(draws)
    backoff = Backoff(minimum_s=0.05, maximum_s=1.0, jitter=lambda: next(numbers))
    for step in range(len(draws) - 1):
        full = min(1.0, 0.05 * 2**step)
        assert full / 2 <= backoff.next_s() <= full
    backoff.reset()
    assert 0.025 <= backoff.next_s() <= 0.05


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:8201", ("127.0.0.1", 8201)),
        ("node-1.example.com:0", ("node-1.example.com", 0)),
        ("[::1]:8201", ("::1", 8201)),
    ],
)
def test_addresses_are_host_and_port(address: str, expected: tuple[str, int]) -> None:
    assert split_address(address) == expected


@pytest.mark.parametrize("address", ["", "host", ":1", "host:", "host:x", "host:-1", "host:65536", "::1:80", "host:٣"])
def test_what_is_not_an_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        split_address(address)
