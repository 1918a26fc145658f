"""Shamir's secret sharing over GF(256) (A. Shamir, "How to share a secret", 1979), the field of AES (FIPS 197,
section 4): polynomials over GF(2) modulo x^8 + x^4 + x^3 + x + 1, 0x11b.

Each byte of the secret is the constant term of its own random polynomial of degree threshold - 1; a share holds the
polynomials' values at one x. Any `threshold` shares determine the secret; fewer say nothing about it, for every value
of the secret is equally consistent with them. A share is laid out as Vault's: the values, then x in the last byte.

Timing. A secret byte is never an index, a branch or a divisor here: all polynomials are evaluated at once, packed into
one wide integer, with shifts, masks and exclusive-ors; only the x coordinates, which are public, steer the control
flow. Python cannot promise more: its integers drop leading zeros, so that the time of an operation may depend on
whether the first bytes of a value are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

SHARES_MAX = 255
"""The most shares there can be: x runs from 1 to 255, and 0 is where the secret is."""

_POLYNOMIAL_LOW = 0x1B  # 0x11b without x^8


def multiply(vector: int, scalar: int, length: int = 1) -> int:
    """Each of the `length` bytes of `vector` times the byte `scalar`. Branches on `scalar` only: it must be public."""
    ones = int.from_bytes(b"\x01" * length, "big")
    low_bits = 0x7F * ones
    product = 0
    while scalar:
        if scalar & 1:
            product ^= vector
        scalar >>= 1
        carries = (vector >> 7) & ones
        vector = ((vector & low_bits) << 1) ^ (carries * _POLYNOMIAL_LOW)
    return product


def inverse(scalar: int) -> int:
    """The multiplicative inverse of a public byte other than 0: its 254th power."""
    if not 0 < scalar < 256:
        raise ValueError("only the bytes 1 to 255 have an inverse")
    result, square = 1, scalar
    for _ in range(7):  # 254 = 2 + 4 + ... + 128
        square = multiply(square, square)
        result = multiply(result, square)
    return result


def split(secret: bytes, shares: int, threshold: int, random_bytes: Callable[[int], bytes]) -> tuple[bytes, ...]:
    """`shares` shares of `secret`, each one byte longer than it, of which any `threshold` recover it.

    random_bytes: cryptographically secure. A threshold of 1 is allowed for a single share only (which then holds the
    secret itself). Raises ValueError on an empty secret or numbers out of range."""
    if not secret:
        raise ValueError("the secret is empty")
    if not 1 <= shares <= SHARES_MAX:
        raise ValueError(f"{shares} shares; 1 to {SHARES_MAX} allowed")
    if not 1 <= threshold <= shares or (threshold == 1 and shares > 1):
        raise ValueError(f"a threshold of {threshold} for {shares} shares; 2 to the number of shares allowed")
    length = len(secret)
    # Every coefficient is uniform, the highest one too: excluding zero there would make some secrets less likely.
    coefficients = [int.from_bytes(secret, "big")]
    for _ in range(threshold - 1):
        drawn = random_bytes(length)
        assert len(drawn) == length, "the source of randomness gave too few bytes"
        coefficients.append(int.from_bytes(drawn, "big"))
    return tuple(_evaluate(coefficients, x, length).to_bytes(length, "big") + bytes((x,)) for x in range(1, shares + 1))


def combine(shares: Sequence[bytes]) -> bytes:
    """The secret that the shares determine. With fewer than the threshold, or with a false share among them, the
    result is a wrong secret: shares carry no proof of their own, so check the result against a key check value.

    Raises ValueError when the shares are not of one length, or an x is 0 or repeated."""
    if not shares or len({len(share) for share in shares}) != 1 or len(shares[0]) < 2:
        raise ValueError("shares must be of one length, of two bytes at least")
    xs = [share[-1] for share in shares]
    if 0 in xs or len(set(xs)) != len(xs):
        raise ValueError("the shares' x coordinates must be distinct and not 0")
    length = len(shares[0]) - 1
    secret = 0
    for x, share in zip(xs, shares, strict=True):
        secret ^= multiply(int.from_bytes(share[:-1], "big"), _weight_at_zero(x, xs), length)
    return secret.to_bytes(length, "big")


def _evaluate(coefficients: Sequence[int], x: int, length: int) -> int:
    """Horner's rule, all bytes at once."""
    value = 0
    for coefficient in reversed(coefficients):
        value = multiply(value, x, length) ^ coefficient
    return value


def _weight_at_zero(x: int, xs: Sequence[int]) -> int:
    """The Lagrange basis polynomial of `x` at 0: the product of other / (other - x); minus is exclusive-or."""
    numerator = denominator = 1
    for other in xs:
        if other != x:
            numerator = multiply(numerator, other)
            denominator = multiply(denominator, other ^ x)
    return multiply(numerator, inverse(denominator))
