"""GF(256) and Shamir a second time, as textbooks have it: logarithm tables over the generator 3, one byte at a time."""

from __future__ import annotations

from collections.abc import Sequence

EXP = [1] * 255
for _i in range(1, 255):
    _doubled = EXP[_i - 1] << 1
    EXP[_i] = (_doubled ^ (0x11B if _doubled > 255 else 0)) ^ EXP[_i - 1]
LOG = {value: power for power, value in enumerate(EXP)}


def times(a: int, b: int) -> int:
    return 0 if 0 in (a, b) else EXP[(LOG[a] + LOG[b]) % 255]


def over(a: int, b: int) -> int:
    return 0 if a == 0 else EXP[(LOG[a] - LOG[b]) % 255]


def evaluate(polynomial: Sequence[int], x: int) -> int:
    """The sum of c[i] * x^i."""
    total, power = 0, 1
    for coefficient in polynomial:
        total ^= times(coefficient, power)
        power = times(power, x)
    return total


def at_zero(points: Sequence[tuple[int, int]]) -> int:
    """Lagrange interpolation of (x, y) points at x = 0."""
    total = 0
    for x, y in points:
        weight = 1
        for other, _ in points:
            if other != x:
                weight = times(weight, over(other, other ^ x))
        total ^= times(y, weight)
    return total
