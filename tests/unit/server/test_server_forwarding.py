"""Requests and responses between nodes arrive as they left."""

import asyncio
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.front_end import Switchboard

from holdfast.core.request import Consistency, Operation, Request, RequestId, Response
from holdfast.proto.errors import Conflict, HoldfastError, InvalidArgument, NotLeader, OutcomeUnknown
from holdfast.server.forwarding import (
    CORE_REQUEST,
    PeerForwarder,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    serve_forwarded,
)
from holdfast.server.metrics import Metrics

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(text, v, max_size=3),
    max_leaves=10,
)
data = st.dictionaries(text, values, max_size=4)
requests = st.builds(
    Request,
    operation=st.sampled_from(Operation),
    path=text,
    data=data,
    token=text,
    id=text,
    request_id=st.none()
    | st.builds(RequestId, client=st.binary(min_size=16, max_size=16), sequence=st.integers(0, 2**63 - 1)),
    consistency=st.sampled_from(Consistency),
    remote_address=text,
    timeout_s=st.floats(0.001, 90),
)


@settings(deadline=None, max_examples=200)
@given(requests)
def test_a_request_arrives_as_it_left_and_names_who_forwarded_it(request: Request) -> None:
    arrived = decode_request(encode_request(request), forwarded_by="node-2")
    assert arrived.forwarded_by == "node-2"
    for field in Request.__struct_fields__:
        if field not in ("forwarded_by", "data"):
            assert getattr(arrived, field) == getattr(request, field)
    assert json.dumps(arrived.data) == json.dumps(request.data)


@settings(deadline=None, max_examples=100)
@given(st.none() | data, st.lists(text, max_size=3))
def test_a_response_arrives_as_it_left(members: dict[str, object] | None, warnings: list[str]) -> None:
    arrived = decode_response(encode_response(Response(data=members, warnings=tuple(warnings))))
    assert json.dumps(arrived.data) == json.dumps(members)
    assert arrived.warnings == tuple(warnings)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
@example(b"\x81\xa1\x80")
def test_bytes_that_are_no_envelope_are_refused(payload: bytes) -> None:
    with pytest.raises(InvalidArgument):
        decode_request(payload, forwarded_by="node-2")
    with pytest.raises(HoldfastError):
        decode_response(payload)


@pytest.mark.parametrize("error", [Conflict("no"), NotLeader("no", details={"leader_id": "node-3"})])
def test_what_the_leader_raises_is_raised_here_and_counted(error: HoldfastError) -> None:
    async def main() -> None:
        board, metrics = Switchboard(), Metrics(version="test")

        async def handle(_request: Request) -> Response:
            raise error

        serve_forwarded(board.port("node-1"), handle, lambda _error: None)
        forwarder = PeerForwarder(board.port("node-2"), metrics)
        with pytest.raises(type(error)):
            await forwarder.forward("node-1", Request(operation=Operation.UPDATE, path="secret/data/a"))
        assert f'holdfast_forwards_total{{outcome="{error.reason}"}} 1.0' in metrics.exposition().decode()

    asyncio.run(main())


def test_what_the_leader_cannot_name_has_an_unknown_outcome() -> None:
    async def main() -> None:
        board, metrics = Switchboard(), Metrics(version="test")

        async def handle(_request: Request) -> Response:
            raise HoldfastError("an internal error")

        async def answer(_caller: str, _payload: bytes) -> bytes:
            return b"of another version"

        serve_forwarded(board.port("node-1"), handle, lambda _error: None)
        board.port("node-3").serve(CORE_REQUEST, answer)
        forwarder = PeerForwarder(board.port("node-2"), metrics)
        for leader_id in ("node-1", "node-3"):
            with pytest.raises(OutcomeUnknown):
                await forwarder.forward(leader_id, Request(operation=Operation.UPDATE, path="secret/data/a"))

    asyncio.run(main())


def test_an_envelope_does_not_show_its_token() -> None:
    request = Request(operation=Operation.READ, path="secret/data/marker", token="hvs.marker")
    assert "marker" not in repr(decode_request(encode_request(request), forwarded_by="n"))
