"""Calls between nodes: concurrency, errors by their class, and what the caller may conclude when something breaks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs
from support.peers import Certs, Node, Stranger, closed_port, cluster, eventually, impostor, node, run, stranger

from holdfast.cluster.peer.frames import CALL_FRAME_BYTES_MAX
from holdfast.cluster.peer.session import Opening
from holdfast.cluster.peer.settings import PeerLimits
from holdfast.cluster.peer.tls import Kind
from holdfast.cluster.peer.wire import Call, Cancel, Failure, Reply, decode_answer, decode_request, encode_message
from holdfast.proto.errors import (
    BY_REASON,
    HoldfastError,
    InvalidArgument,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
    Unimplemented,
)

WELCOME = Opening.WELCOME.value
LONG_S = 600.0


async def echo(_: str, payload: bytes) -> bytes:
    return payload


@contextlib.asynccontextmanager
async def pair(certs: Certs, limits: PeerLimits | None = None) -> AsyncIterator[tuple[Node, Node]]:
    """node-1 and node-2, connected; node-2 serves echo."""
    async with cluster(certs, "node-1", "node-2", limits=limits) as (one, two):
        two.network.serve("echo", echo)
        yield one, two


def test_many_calls_are_in_flight_at_once_and_each_gets_its_own_answer(certs: Certs, loop: str) -> None:
    async def main() -> None:
        async with pair(certs) as (one, two):
            arrived: list[bytes] = []
            doors = [asyncio.Event() for _ in range(200)]

            async def wait(peer: str, payload: bytes) -> bytes:
                assert peer == "node-1"
                arrived.append(payload)
                await doors[int(payload)].wait()
                return payload * 2

            two.network.serve("wait", wait)
            calls = [
                asyncio.ensure_future(one.network.call("node-2", "wait", b"%d" % i, timeout_s=LONG_S))
                for i in range(200)
            ]
            await eventually(lambda: len(arrived) == 200)
            assert one.network.stats().calls_in_flight == two.network.stats().calls_being_served == 200
            for door in reversed(doors):
                door.set()
                await asyncio.sleep(0)
            assert await asyncio.gather(*calls) == [b"%d%d" % (i, i) for i in range(200)]
            assert one.network.stats().calls_in_flight == 0
            assert two.network.stats().sessions_incoming == 2, "one session for all calls, one for raft"

    run(main, loop)


def test_calls_go_both_ways(certs: Certs) -> None:
    async def main() -> None:
        async with pair(certs) as (one, two):
            one.network.serve("who", lambda peer, _: asyncio.sleep(0, peer.encode()))
            assert await two.network.call("node-1", "who", b"", timeout_s=LONG_S) == b"node-2"
            assert await one.network.call("node-2", "echo", b"", timeout_s=LONG_S) == b""

    run(main)


@pytest.mark.parametrize("reason", sorted(BY_REASON))
def test_an_error_of_the_tree_reaches_the_caller_as_it_was_raised(certs: Certs, reason: str) -> None:
    async def main() -> None:
        async with pair(certs) as (one, two):

            async def fail(_: str, payload: bytes) -> bytes:
                raise BY_REASON[reason]("what to do", field="path", retry_after_ms=7, details={"leader_id": "node-3"})

            two.network.serve("fail", fail)
            with pytest.raises(HoldfastError) as caught:
                await one.network.call("node-2", "fail", b"", timeout_s=LONG_S)
            error = caught.value
            assert type(error) is BY_REASON[reason]
            assert (error.message, error.field, error.retry_after_ms) == ("what to do", "path", 7)
            assert error.details == {"leader_id": "node-3"}

    run(main)


@pytest.mark.parametrize("cls", [RuntimeError, KeyError, TimeoutError, asyncio.CancelledError])
def test_another_exception_shows_neither_its_text_nor_its_class(certs: Certs, cls: type[BaseException]) -> None:
    async def main() -> None:
        async with pair(certs) as (one, two):

            async def fail(_: str, payload: bytes) -> bytes:
                raise cls("hunter2")

            two.network.serve("fail", fail)
            with pytest.raises(HoldfastError) as caught:
                await one.network.call("node-2", "fail", b"hunter2", timeout_s=LONG_S)
            assert type(caught.value) is HoldfastError
            assert "hunter2" not in caught.value.message
            assert cls.__name__ not in caught.value.message

    with capture_logs() as lines:
        run(main)
    (line,) = [line for line in lines if line["event"] == "peer_call_failed"]
    assert line["error"] == cls.__name__
    assert any("test_peer_calls.py" in place for place in line["where"])
    assert "hunter2" not in str(lines)


def test_an_unreachable_or_unknown_node_is_unavailable(certs: Certs, loop: str) -> None:
    async def main() -> None:
        async with node(certs, "node-1") as one:
            with pytest.raises(Unavailable, match="not among the peers"):
                await one.network.call("node-2", "echo", b"x", timeout_s=LONG_S)
            one.network.set_peers({"node-2": closed_port(), "node-3": "not an address"})
            for peer in ("node-2", "node-3"):
                with pytest.raises(Unavailable, match="cannot be reached"):
                    await one.network.call(peer, "echo", b"x", timeout_s=LONG_S)
            answers = await asyncio.gather(
                *(one.network.call("node-2", "echo", b"x", timeout_s=LONG_S) for _ in range(50)),
                return_exceptions=True,
            )
            assert {type(answer) for answer in answers} == {Unavailable}

    run(main, loop)


def test_no_time_to_dial_is_unavailable(certs: Certs) -> None:
    async def main() -> None:
        async def silent(peer: Stranger) -> None:
            await peer.ended()

        async with (
            impostor(certs.context("node-2", Kind.CALL, server=True), silent) as address,
            node(certs, "node-1", limits=PeerLimits(connect_timeout_s=30)) as one,
        ):
            one.network.set_peers({"node-2": address})
            for timeout_s in (0.05, 0.0, -1.0):
                with pytest.raises(Unavailable):
                    await one.network.call("node-2", "echo", b"x", timeout_s=timeout_s)

    run(main)


def test_a_call_that_a_refused_member_makes_is_unavailable(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1") as one, node(certs, "node-2") as two:
            two.network.serve("echo", echo)
            one.network.set_peers({"node-2": two.network.address})
            with pytest.raises(Unavailable, match="not_a_member"):
                await one.network.call("node-2", "echo", b"x", timeout_s=LONG_S)
            two.network.set_peers({"node-1": one.network.address})
            await eventually(lambda: one.connected("node-2"))
            assert await one.network.call("node-2", "echo", b"x", timeout_s=LONG_S) == b"x"

    run(main)


def test_a_peer_lost_before_it_answers_leaves_the_outcome_unknown(certs: Certs, loop: str) -> None:
    async def main() -> None:
        async with node(certs, "node-1") as one:
            async with node(certs, "node-2", limits=PeerLimits(drain_s=0)) as two:
                two.network.set_peers({"node-1": one.network.address})
                one.network.set_peers({"node-2": two.network.address})
                entered, ended = asyncio.Event(), asyncio.Event()

                async def hang(_: str, payload: bytes) -> bytes:
                    entered.set()
                    try:
                        await asyncio.Event().wait()
                    finally:
                        ended.set()
                    raise AssertionError

                two.network.serve("hang", hang)
                call = asyncio.ensure_future(one.network.call("node-2", "hang", b"x", timeout_s=LONG_S))
                await entered.wait()
            await ended.wait()
            with pytest.raises(OutcomeUnknown, match="lost"):
                await call

    run(main, loop)


def test_a_call_of_which_nothing_was_sent_when_the_session_broke_is_unavailable(certs: Certs, loop: str) -> None:
    async def main() -> None:
        go = asyncio.Event()
        # A busy machine must neither fail the dial nor let the kernel give the deaf peer up before it is told to go.
        patient = PeerLimits(connect_timeout_s=LONG_S, user_timeout_ms=int(LONG_S * 1000))

        async def deaf(peer: Stranger) -> None:
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            peer.send(WELCOME)
            await go.wait()

        async with (
            impostor(certs.context("node-2", Kind.CALL, server=True), deaf) as address,
            node(certs, "node-1", limits=patient) as one,
        ):
            one.network.set_peers({"node-2": address})
            payload = bytes(CALL_FRAME_BYTES_MAX - 1000)
            calls = [
                asyncio.ensure_future(one.network.call("node-2", "x", payload, timeout_s=LONG_S)) for _ in range(6)
            ]
            await eventually(lambda: one.network.stats().calls_in_flight == 6)
            last = asyncio.ensure_future(one.network.call("node-2", "x", b"", timeout_s=LONG_S))
            await eventually(lambda: one.network.stats().calls_in_flight == 7)
            session = one.network._call_links["node-2"].session
            assert session is not None
            await eventually(lambda: session._paused and not session._flush_scheduled)
            go.set()
            results = await asyncio.gather(*calls, last, return_exceptions=True)
            assert type(results[0]) is OutcomeUnknown
            assert type(results[-1]) is Unavailable
            one.network.set_peers({})

    run(main, loop)


def test_a_call_that_takes_too_long_leaves_the_outcome_unknown_and_is_cancelled_over_there(certs: Certs) -> None:
    async def main() -> None:
        async with pair(certs) as (one, two):
            ended = asyncio.Event()

            async def hang(_: str, payload: bytes) -> bytes:
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()
                raise AssertionError

            two.network.serve("hang", hang)
            assert await one.network.call("node-2", "echo", b"x", timeout_s=LONG_S) == b"x"
            with pytest.raises(OutcomeUnknown, match="time"):
                await one.network.call("node-2", "hang", b"x", timeout_s=0.1)
            await ended.wait()
            await eventually(lambda: two.network.stats().calls_being_served == 0)
            assert await one.network.call("node-2", "echo", b"x", timeout_s=LONG_S) == b"x"

    run(main)


def test_the_serving_node_keeps_the_callers_deadline_itself(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda *_: True) as one:
            one.network.serve("hang", lambda *_: asyncio.sleep(LONG_S, b""))
            async with stranger(one.network.address, certs.context("node-2", Kind.CALL)) as caller:
                assert await caller.frame() == WELCOME
                caller.send(encode_message(Call(1, "hang", 20, b"")))
                answer = decode_answer(await caller.frame())
                assert isinstance(answer, Failure)
                assert isinstance(answer.error(), OutcomeUnknown)

    run(main)


def test_a_cancelled_call_is_cancelled_over_there(certs: Certs, loop: str) -> None:
    async def main() -> None:
        async with pair(certs) as (one, two):
            entered, ended = asyncio.Event(), asyncio.Event()

            async def hang(_: str, payload: bytes) -> bytes:
                entered.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()
                raise AssertionError

            two.network.serve("hang", hang)
            call = asyncio.ensure_future(one.network.call("node-2", "hang", b"x", timeout_s=LONG_S))
            await entered.wait()
            call.cancel()
            await ended.wait()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await one.network.call("node-2", "echo", b"x", timeout_s=LONG_S) == b"x"

    run(main, loop)


def test_a_caller_that_gives_up_on_a_dial_does_not_spoil_it_for_the_others(certs: Certs) -> None:
    async def main() -> None:
        async with pair(certs) as (one, _):
            first = asyncio.ensure_future(one.network.call("node-2", "echo", b"1", timeout_s=LONG_S))
            second = asyncio.ensure_future(one.network.call("node-2", "echo", b"2", timeout_s=LONG_S))
            await asyncio.sleep(0)
            first.cancel()
            assert await second == b"2"
            with pytest.raises(asyncio.CancelledError):
                await first

    run(main)


def test_a_name_that_nobody_serves_is_unimplemented(certs: Certs) -> None:
    async def main() -> None:
        async with pair(certs) as (one, _):
            with pytest.raises(Unimplemented):
                await one.network.call("node-2", "nothing", b"", timeout_s=LONG_S)

    run(main)


def test_requests_and_answers_that_do_not_fit_are_refused(certs: Certs) -> None:
    async def main() -> None:
        async with pair(certs) as (one, two):
            fits = bytes(CALL_FRAME_BYTES_MAX - 100)
            assert await one.network.call("node-2", "echo", fits, timeout_s=LONG_S) == fits
            with pytest.raises(InvalidArgument, match="bytes long"):
                await one.network.call("node-2", "echo", bytes(CALL_FRAME_BYTES_MAX), timeout_s=LONG_S)
            two.network.serve("swell", lambda *_: asyncio.sleep(0, bytes(CALL_FRAME_BYTES_MAX)))
            with pytest.raises(HoldfastError, match="answer is"):
                await one.network.call("node-2", "swell", b"", timeout_s=LONG_S)
            assert await one.network.call("node-2", "echo", b"x", timeout_s=LONG_S) == b"x"

    run(main)


def test_calls_over_the_limit_are_refused_at_either_end(certs: Certs) -> None:
    async def main() -> None:
        async with pair(certs, PeerLimits(calls_max=2, call_bytes_max=100)) as (one, two):
            door = asyncio.Event()

            async def wait(_: str, payload: bytes) -> bytes:
                await door.wait()
                return payload

            two.network.serve("wait", wait)
            calls = [
                asyncio.ensure_future(one.network.call("node-2", "wait", b"x" * 60, timeout_s=LONG_S)) for _ in range(2)
            ]
            (refused,), _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            assert isinstance(refused.exception(), Overloaded), "too many bytes at the serving end"
            calls.append(asyncio.ensure_future(one.network.call("node-2", "wait", b"", timeout_s=LONG_S)))
            await eventually(lambda: two.network.stats().calls_being_served == 2)
            with pytest.raises(Overloaded):
                await one.network.call("node-2", "wait", b"", timeout_s=LONG_S)
            door.set()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert sorted(type(answer).__name__ for answer in answers) == ["Overloaded", "bytes", "bytes"]

    run(main)


def test_the_serving_end_counts_for_itself(certs: Certs) -> None:
    async def main() -> None:
        async with node(certs, "node-1", allow=lambda *_: True, limits=PeerLimits(calls_max=1)) as one:
            one.network.serve("hang", lambda *_: asyncio.sleep(LONG_S, b""))
            async with stranger(one.network.address, certs.context("node-2", Kind.CALL)) as caller:
                assert await caller.frame() == WELCOME
                caller.send(encode_message(Call(1, "hang", 10**6, b"")))
                caller.send(encode_message(Call(2, "hang", 10**6, b"")))
                answer = decode_answer(await caller.frame())
                assert isinstance(answer, Failure)
                assert (answer.id, answer.reason) == (2, "RESOURCE_EXHAUSTED")
                caller.send(encode_message(Cancel(1)))
                await eventually(lambda: one.network.stats().calls_being_served == 0)
                caller.send(encode_message(Call(3, "hang", 10**6, b"")))
                caller.send(encode_message(Call(3, "hang", 10**6, b"")))  # an id that is in use
                assert await caller.frame() == b""
            await eventually(lambda: one.network.stats().closed == {"malformed": 1})
            await eventually(lambda: one.network.stats().calls_being_served == 0)

    run(main)


def test_an_answer_to_a_call_that_was_not_made_closes_the_session(certs: Certs) -> None:
    async def main() -> None:
        async def liar(peer: Stranger) -> None:
            peer.send(WELCOME)
            request = decode_request(await peer.frame())
            peer.send(encode_message(Reply(request.id + 1, b"forged")))
            await peer.ended()

        async with (
            impostor(certs.context("node-2", Kind.CALL, server=True), liar) as address,
            node(certs, "node-1") as one,
        ):
            one.network.set_peers({"node-2": address})
            with pytest.raises(OutcomeUnknown):
                await one.network.call("node-2", "echo", b"x", timeout_s=LONG_S)
            assert one.network.stats().closed["malformed"] == 1

    run(main)


def test_calls_work_again_after_the_peer_has_restarted(certs: Certs, loop: str) -> None:
    async def main() -> None:
        async with node(certs, "node-1") as one:
            address = ""
            for payload in (b"first", b"second"):
                async with node(certs, "node-2", bind=address or "127.0.0.1:0") as two:
                    address = two.network.address
                    two.network.serve("echo", echo)
                    two.network.set_peers({"node-1": one.network.address})
                    one.network.set_peers({"node-2": address})
                    await eventually(lambda: one.connected("node-2"))
                    assert await one.network.call("node-2", "echo", payload, timeout_s=LONG_S) == payload
                await eventually(lambda: not one.connected("node-2"))
                with pytest.raises(Unavailable):
                    await one.network.call("node-2", "echo", b"x", timeout_s=LONG_S)

    run(main, loop)


def test_stopping_lets_calls_finish_and_takes_no_more(certs: Certs) -> None:
    async def main() -> None:
        async with pair(certs, PeerLimits(drain_s=LONG_S)) as (one, two):
            entered, door = asyncio.Event(), asyncio.Event()

            async def wait(_: str, payload: bytes) -> bytes:
                entered.set()
                await door.wait()
                return payload

            two.network.serve("wait", wait)
            call = asyncio.ensure_future(one.network.call("node-2", "wait", b"done", timeout_s=LONG_S))
            await entered.wait()
            stopping = asyncio.ensure_future(two.network.stop())
            await eventually(lambda: two.network._calls._draining)
            with pytest.raises(Unavailable, match="stopping"):
                await one.network.call("node-2", "echo", b"x", timeout_s=LONG_S)
            door.set()
            assert await call == b"done"
            await stopping

    run(main)


def test_stopping_tells_callers_that_wait(certs: Certs) -> None:
    async def main() -> None:
        async with pair(certs) as (one, two):
            entered = asyncio.Event()

            async def hang(_: str, payload: bytes) -> bytes:
                entered.set()
                await asyncio.Event().wait()
                raise AssertionError

            two.network.serve("hang", hang)
            call = asyncio.ensure_future(one.network.call("node-2", "hang", b"x", timeout_s=LONG_S))
            await entered.wait()
            await one.network.stop()
            with pytest.raises(OutcomeUnknown):
                await call
            with pytest.raises(Unavailable):
                await one.network.call("node-2", "echo", b"x", timeout_s=LONG_S)

    run(main)
