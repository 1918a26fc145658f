"""Whether, where and when a failed call is tried again. Pure: time and chance come in, decisions come out.

Three rules. A call is repeated only where repeating cannot do it twice: reads, writes under a request id, and anything
that certainly did not happen. A fault of one node (down, paused, sealed, wrong certificate) is answered by asking the
next one at once; a fault of the cluster (no leader, overload) by waiting, with full jitter, at least as long as the
node asked for. Nothing goes on past the call's deadline.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holdfast.client.failures import Failure, TlsFailed
from holdfast.proto import errors
from holdfast.proto.errors import HoldfastError

_SETTLING = (
    errors.InvalidArgument,
    errors.NotFound,
    errors.AlreadyExists,
    errors.Conflict,
    errors.FailedPrecondition,
)
"""Answers to a repetition that hold for the attempts before it as well: the cluster looked for their effect before it
evaluated the request anew. A refused token, a node without keys or an internal error is said before anybody looks."""

REQUEST_AGE_S_MAX = 60.0
"""How old a write may be when it is retried. Nodes refuse older ones, because its record may have been forgotten."""


class Effect(enum.Enum):
    """What repeating a call does."""

    READ = "read"
    """Nothing: it may be repeated at will."""
    WRITE = "write"
    """It takes effect once, because every attempt carries the same request id."""
    ONCE = "once"
    """It might take effect twice, so it is repeated only when it certainly did not happen."""


class Verdict(enum.Enum):
    """What to do about one failed attempt."""

    FINAL = "final"
    ELSEWHERE = "elsewhere"
    """Ask other nodes; this one will answer the same until somebody intervenes."""
    NEXT = "next"
    """Ask the next node at once; come back to this one after a wait."""
    WAIT = "wait"
    """Every node would say the same; wait, then ask the next one."""


@dataclass(frozen=True)
class RetryPolicy:
    """Limits and pace. The n-th wait is between 0 and `base_delay_s` * 2^(n-1), at most `delay_s_max`, on top of what
    the node asked for."""

    max_retries: int = 10
    base_delay_s: float = 0.1
    delay_s_max: float = 2.0
    attempt_timeout_s: float = 1.0

    def backoff_s_max(self, retry: int) -> float:
        """The upper end of the jitter before the `retry`-th repetition (from 1), in seconds."""
        assert retry >= 1
        return min(self.delay_s_max, self.base_delay_s * 2.0 ** min(retry - 1, 30))


def verdict(failure: Failure, effect: Effect) -> Verdict:
    """What to do about a failed attempt, by the class of its error alone."""
    error = failure.error
    if isinstance(error, TlsFailed):
        return Verdict.ELSEWHERE
    if failure.may_have_acted and effect is Effect.ONCE:
        return Verdict.FINAL
    if isinstance(error, errors.Sealed | errors.Uninitialized):  # so does a node that joined and has not caught up
        return Verdict.ELSEWHERE
    if not error.retryable:
        return Verdict.FINAL
    if isinstance(error, errors.NoLeader | errors.NotLeader | errors.Overloaded | errors.OutcomeUnknown):
        return Verdict.WAIT
    return Verdict.NEXT


@dataclass(frozen=True)
class Slot:
    """The next attempt: where, for how long, and its age: the milliseconds since the first attempt that may have taken
    effect, 0 when none did."""

    address: str
    timeout_s: float
    age_ms: int


class RetrySession:
    """The attempts of one call. Ask for a `slot`, make the attempt, and report how it `failed`, until it does not.

    addresses: where the call may go, the first choice first. uniform: a number between two bounds, all equally likely.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        addresses: Sequence[str],
        effect: Effect,
        *,
        now: float,
        timeout_s: float,
        uniform: Callable[[float, float], float],
    ) -> None:
        assert addresses
        self._policy = policy
        self._addresses = tuple(addresses)
        self._effect = effect
        self._slot_time = now
        self._acted_since: float | None = None
        self._deadline = now + timeout_s
        self._uniform = uniform
        self._index = 0
        self._retries = 0
        self._timeouts = 0
        self._asked: set[int] = set()
        self._hopeless: set[int] = set()

    def slot(self, now: float) -> Slot:
        """The attempt to make now."""
        remaining = max(0.001, self._deadline - now)
        timeout_s = remaining
        if len(self._addresses) > 1 and self._effect is not Effect.ONCE:
            rounds = self._timeouts // len(self._addresses)
            timeout_s = min(remaining, self._policy.attempt_timeout_s * 2.0 ** min(rounds, 30))
        age_ms = 0 if self._acted_since is None else max(1, round((now - self._acted_since) * 1000))
        self._slot_time = now
        return Slot(self._addresses[self._index], timeout_s, age_ms)

    def failed(self, now: float, failure: Failure) -> float:
        """How many seconds to wait before the next `slot`. Raises the call's error when there is to be none."""
        if failure.may_have_acted and self._acted_since is None:
            self._acted_since = self._slot_time
        self._timeouts += failure.timed_out
        decision = verdict(failure, self._effect)
        if decision is Verdict.FINAL:
            raise self._final(failure.error)
        self._asked.add(self._index)
        self._hopeless.discard(self._index)
        if decision is Verdict.ELSEWHERE:
            self._hopeless.add(self._index)
        if len(self._hopeless) == len(self._addresses):
            raise self._final(failure.error)
        delay_s = self._move_on(failure.error, decision)
        resume = now + delay_s
        if resume >= self._deadline:
            raise self._final(failure.error)
        forgotten = self._acted_since is not None and resume - self._acted_since > REQUEST_AGE_S_MAX
        if forgotten and self._effect is Effect.WRITE:
            raise self._final(failure.error)
        return delay_s

    def _move_on(self, error: HoldfastError, decision: Verdict) -> float:
        """Choose the next address; the wait before it in seconds."""
        count = len(self._addresses)
        ring = [(self._index + step) % count for step in range(1, count + 1)]
        fresh = [index for index in ring if index not in self._asked | self._hopeless]
        if fresh and decision is not Verdict.WAIT:
            self._index = fresh[0]
            return 0.0
        self._retries += 1
        if self._retries > self._policy.max_retries:
            raise self._final(error)
        self._asked.clear()
        self._index = next(index for index in ring if index not in self._hopeless)
        return (error.retry_after_ms or 0) / 1000 + self._uniform(0.0, self._policy.backoff_s_max(self._retries))

    def _final(self, error: HoldfastError) -> HoldfastError:
        """The error to raise: `error` itself, unless an earlier attempt may have acted and nothing since settles it."""
        if self._acted_since is None or self._effect is Effect.READ or isinstance(error, _SETTLING):
            return error
        if isinstance(error, errors.OutcomeUnknown):
            return error
        return errors.OutcomeUnknown(
            "the request was sent and its outcome is not known: it may or may not have taken effect. "
            f"Look at the current state before repeating it. (Last problem: {error.message.rstrip('.')}.)",
            details=error.details,
        )
