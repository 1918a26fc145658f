"""The checker of histories, held against every order there is."""

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.linearizability import Kind, Operation, linearizable


def write(called_s: float, returned_s: float, stored: object) -> Operation:
    return Operation(Kind.WRITE, called_s, returned_s, stored=stored)


def read(called_s: float, returned_s: float, seen: object) -> Operation:
    return Operation(Kind.READ, called_s, returned_s, seen=seen)


def update(called_s: float, returned_s: float, seen: object, stored: object) -> Operation:
    return Operation(Kind.UPDATE, called_s, returned_s, seen=seen, stored=stored)


@pytest.mark.parametrize(
    ("history", "explained"),
    [
        ([], True),
        ([read(0, 1, None)], True),
        ([read(0, 1, "a")], False),
        ([write(0, 1, "a"), read(2, 3, "a")], True),
        ([write(0, 1, "a"), read(2, 3, None)], False),  # stale
        ([write(0, 5, "a"), read(2, 3, None), read(2, 3, "a")], True),
        ([write(0, 5, "a"), read(1, 2, "a"), read(3, 4, None)], False),  # back in time
        ([write(0, math.inf, "a"), read(8, 9, None)], True),
        ([write(0, math.inf, "a"), read(7, 8, "a"), read(9, 10, None)], False),
        ([write(0, 1, "a"), write(2, 3, "b"), read(4, 5, "a")], False),
        ([write(0, 3, "a"), write(0, 3, "b"), read(4, 5, "a"), read(6, 7, "b")], False),
        ([update(0, 1, None, "a"), update(0, 1, None, "b")], False),  # a lost update
        ([update(0, 3, "b", "a"), update(0, 3, None, "b")], True),
        ([write(0, 1, "a"), update(2, 3, None, "b")], False),
        ([write(0, 1, "a"), write(2, 3, None), read(4, 5, None)], True),  # deleted
    ],
)
def test_a_history_is_explained_or_not(history: Sequence[Operation], explained: bool) -> None:
    assert linearizable(history) is explained


def dumbly(history: Sequence[Operation]) -> bool:
    """Every order there is."""
    for order in itertools.permutations(history):
        if any(b.returned_s < a.called_s for a, b in itertools.combinations(order, 2)):
            continue
        value: object = None
        for operation in order:
            if operation.kind is not Kind.WRITE and operation.seen != value:
                break
            if operation.kind is not Kind.READ:
                value = operation.stored
        else:
            return True
    return False


values = st.sampled_from([None, "a", "b"])
operations = st.builds(
    lambda kind, called_s, takes_s, *rest: Operation(kind, called_s, called_s + takes_s, *rest),
    st.sampled_from(Kind), st.integers(0, 8), st.sampled_from([1, 2, 5, math.inf]), values, values, st.integers(0, 3),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(operations, max_size=5))
def test_the_search_finds_what_every_order_finds(history: list[Operation]) -> None:
    assert linearizable(history) is dumbly(history)
