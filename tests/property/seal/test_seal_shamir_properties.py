"""Shamir: any threshold of the shares recovers the secret, fewer leave every secret possible."""

from hypothesis import given, settings
from hypothesis import strategies as st
from support import gf256_reference as reference
from support.seal_rig import stream

from holdfast.cluster.seal.shamir import combine, multiply, split


@st.composite
def sets(draw: st.DrawFn) -> tuple[bytes, int, list[bytes]]:
    """A secret, a threshold, and all shares in some order."""
    secret = draw(st.binary(min_size=1, max_size=64))
    count = draw(st.integers(2, 24) | st.just(255))
    threshold = draw(st.integers(2, min(count, 24)))
    shares = split(secret, count, threshold, stream(draw(st.integers())))
    return secret, threshold, list(draw(st.permutations(shares)) if count < 32 else shares)


@settings(max_examples=200, deadline=None)
@given(sets(), st.data())
def test_any_threshold_or_more_of_the_shares_recovers_the_secret(
    made: tuple[bytes, int, list[bytes]], data: st.DataObject
) -> None:
    secret, threshold, shares = made
    assert combine(shares[: data.draw(st.integers(threshold, min(len(shares), 40)))]) == secret


@settings(max_examples=200, deadline=None)
@given(sets(), st.data())
def test_fewer_shares_fit_any_other_secret(made: tuple[bytes, int, list[bytes]], data: st.DataObject) -> None:
    secret, threshold, shares = made
    known, missing_x = shares[: threshold - 1], shares[threshold - 1][-1]
    other = data.draw(st.binary(min_size=len(secret), max_size=len(secret)))
    # The polynomials through the known shares and the other secret at 0 give the one share that would complete it.
    forged = bytes(
        at_x([(0, other[at]), *((share[-1], share[at]) for share in known)], missing_x) for at in range(len(secret))
    )
    assert combine([*known, forged + bytes((missing_x,))]) == other


@settings(max_examples=200, deadline=None)
@given(sets())
def test_combining_agrees_with_the_reference(made: tuple[bytes, int, list[bytes]]) -> None:
    secret, threshold, shares = made
    used = shares[:threshold]
    assert secret == bytes(reference.at_zero([(share[-1], share[at]) for share in used]) for at in range(len(secret)))


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=64), st.integers(0, 255), st.integers(0, 255))
def test_the_product_distributes_over_the_sum(vector: bytes, a: int, b: int) -> None:
    value, length = int.from_bytes(vector, "big"), len(vector)
    assert multiply(value, a, length) ^ multiply(value, b, length) == multiply(value, a ^ b, length)


def at_x(points: list[tuple[int, int]], x: int) -> int:
    """The value at `x` of the polynomial through the points: interpolation at 0 after a shift by `x`."""
    return reference.at_zero([(point ^ x, value) for point, value in points])
