"""The retry policy: it ends in time, waits as long as it was asked to, and never repeats what must not be repeated."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.client.failures import Failure, TlsFailed
from holdfast.client.retry import REQUEST_AGE_S_MAX, Effect, RetryPolicy, RetrySession, Verdict, verdict
from holdfast.proto import errors
from holdfast.proto.errors import BY_REASON, HoldfastError

CLASSES = [*BY_REASON.values(), TlsFailed]
ADDRESSES = ("a:1", "b:1", "c:1")


@st.composite
def failures(draw: st.DrawFn, *, retryable: bool = False) -> Failure:
    """Any failure; with `retryable`, one that a session goes on after."""
    classes = [cls for cls in CLASSES if cls.retryable] if retryable else CLASSES
    error = draw(st.sampled_from(classes))("it failed", retry_after_ms=draw(st.none() | st.integers(0, 3000)))
    return Failure(error, may_have_acted=draw(st.booleans()), timed_out=draw(st.booleans()))


policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 20),
    base_delay_s=st.floats(0.01, 1),
    delay_s_max=st.floats(0.1, 5),
    attempt_timeout_s=st.floats(0.1, 5),
)
effects = st.sampled_from(Effect)


def session(
    policy: RetryPolicy, addresses: int, effect: Effect, timeout_s: float, uniform: random.Random | None = None
) -> RetrySession:
    rng = uniform or random.Random(7)
    return RetrySession(
        policy, ADDRESSES[:addresses], effect, now=0.0, timeout_s=timeout_s, uniform=rng.uniform
    )  # fmt: skip


def outcome(calls: RetrySession, now: float, failure: Failure) -> tuple[float, HoldfastError | None]:
    """The wait that a failed attempt leads to, or the error that it ends the call with."""
    try:
        return calls.failed(now, failure), None
    except HoldfastError as error:
        return 0.0, error


@given(policies, st.integers(1, 3), effects, st.floats(0.1, 100), st.randoms(use_true_random=False), st.data())
def test_a_call_ends_within_its_deadline_and_its_number_of_retries(
    policy: RetryPolicy, addresses: int, effect: Effect, timeout_s: float, rng: random.Random, data: st.DataObject
) -> None:
    now, attempts, waits = 0.0, 0, 0
    calls = session(policy, addresses, effect, timeout_s, rng)
    ended = False
    while not ended:
        slot = calls.slot(now)
        attempts += 1
        assert slot.timeout_s <= timeout_s - now + 1e-6
        now += data.draw(st.floats(0, slot.timeout_s))
        delay_s, error = outcome(calls, now, data.draw(failures()))
        ended = error is not None
        waits += delay_s > 0
        now += delay_s
        assert ended or now < timeout_s
    assert waits <= policy.max_retries
    assert attempts <= addresses * (policy.max_retries + 1)


@given(policies, failures(retryable=True), st.randoms(use_true_random=False))
def test_a_wait_is_what_the_node_asked_for_plus_full_jitter(
    policy: RetryPolicy, failure: Failure, rng: random.Random
) -> None:
    if isinstance(failure.error, errors.Sealed):
        return
    calls = session(policy, 1, Effect.READ, 1e9, rng)
    floor_s = (failure.error.retry_after_ms or 0) / 1000
    for retry in range(1, policy.max_retries + 1):
        calls.slot(0.0)
        assert floor_s <= calls.failed(0.0, failure) <= floor_s + policy.backoff_s_max(retry)
    with pytest.raises(type(failure.error)):
        calls.failed(0.0, failure)


@given(failures(), effects)
def test_what_is_not_retryable_is_never_repeated_at_the_same_node(failure: Failure, effect: Effect) -> None:
    if failure.error.retryable:
        return
    calls = session(RetryPolicy(), 1, effect, 30.0)
    with pytest.raises(HoldfastError) as raised:
        calls.failed(0.0, failure)
    assert raised.value is failure.error or isinstance(raised.value, errors.OutcomeUnknown)


@given(failures())
def test_what_could_happen_twice_is_not_repeated_when_it_may_have_happened(failure: Failure) -> None:
    if failure.may_have_acted and not isinstance(failure.error, TlsFailed):
        assert verdict(failure, Effect.ONCE) is Verdict.FINAL


@given(st.lists(failures(retryable=True), min_size=1, max_size=30), policies)
def test_a_write_that_may_have_happened_never_ends_as_one_that_did_not(
    sequence: list[Failure], policy: RetryPolicy
) -> None:
    calls = session(policy, 3, Effect.WRITE, 1e9)
    for index, failure in enumerate(sequence):
        _, error = outcome(calls, 0.0, failure)
        if error is not None:
            may_have_acted = any(earlier.may_have_acted for earlier in sequence[: index + 1])
            assert isinstance(error, errors.OutcomeUnknown) or not may_have_acted
            return


@given(st.floats(1, 500), st.integers(1, 3))
def test_a_write_is_not_repeated_when_its_record_may_have_been_forgotten(step_s: float, addresses: int) -> None:
    calls = session(RetryPolicy(max_retries=1000), addresses, Effect.WRITE, 1e9)
    failure = Failure(errors.OutcomeUnknown("?"), may_have_acted=True)
    now, error = 0.0, None
    while error is None:
        assert calls.slot(now).age_ms <= REQUEST_AGE_S_MAX * 1000
        now += step_s
        delay_s, error = outcome(calls, now, failure)
        now += delay_s
    assert isinstance(error, errors.OutcomeUnknown)


def test_one_nodes_fault_sends_the_call_on_at_once_and_back_only_after_a_wait() -> None:
    calls = session(RetryPolicy(), 3, Effect.READ, 30.0)
    down = Failure(errors.Unavailable("down"), may_have_acted=False)
    visited = [calls.slot(0.0).address]
    delays = []
    for _ in range(5):
        delays.append(calls.failed(0.0, down) > 0)
        visited.append(calls.slot(0.0).address)
    assert visited == ["a:1", "b:1", "c:1", "a:1", "b:1", "c:1"]
    assert delays == [False, False, True, False, False]


def test_a_sealed_node_is_left_for_the_others_and_when_all_are_sealed_nobody_waits() -> None:
    calls = session(RetryPolicy(), 3, Effect.READ, 30.0)
    sealed = Failure(errors.Sealed("sealed"), may_have_acted=False)
    assert calls.failed(0.0, sealed) == 0
    assert calls.failed(0.0, Failure(errors.NoLeader("none"), may_have_acted=False)) > 0
    assert calls.slot(0.0).address == "c:1"
    assert calls.failed(0.0, sealed) == 0
    assert calls.slot(0.0).address == "b:1"
    with pytest.raises(errors.Sealed):
        calls.failed(0.0, sealed)


def test_a_silent_node_is_left_soon_and_a_slow_cluster_is_given_more_time() -> None:
    calls = session(RetryPolicy(attempt_timeout_s=1.0), 2, Effect.READ, 30.0)
    silent = Failure(errors.Unavailable("silent"), may_have_acted=True, timed_out=True)
    timeouts = []
    for _ in range(4):
        timeouts.append(calls.slot(0.0).timeout_s)
        calls.failed(0.0, silent)
    assert timeouts == [1.0, 1.0, 2.0, 2.0]


@pytest.mark.parametrize(("addresses", "effect"), [(1, Effect.READ), (1, Effect.WRITE), (3, Effect.ONCE)])
def test_where_no_other_attempt_could_follow_the_first_gets_all_the_time(addresses: int, effect: Effect) -> None:
    assert session(RetryPolicy(), addresses, effect, 30.0).slot(0.0).timeout_s == 30.0
