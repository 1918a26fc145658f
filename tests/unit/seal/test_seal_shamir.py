"""Shamir over GF(256): the field exhaustively, published values, a second implementation, exact secrecy."""

import itertools

import pytest
from support import gf256_reference as reference
from support.seal_rig import stream

from holdfast.cluster.seal.shamir import combine, inverse, multiply, split


def interpolate(*points: tuple[int, int]) -> int:
    return combine([bytes((y, x)) for x, y in points])[0]


def test_all_65536_products_agree_with_the_reference() -> None:
    for a, b in itertools.product(range(256), repeat=2):
        assert multiply(a, b) == reference.times(a, b)


def test_all_255_inverses_are_inverses() -> None:
    for a in range(1, 256):
        assert multiply(a, inverse(a)) == 1
        assert inverse(a) == reference.over(1, a)


@pytest.mark.parametrize("scalar", [0, 256, -1])
def test_what_has_no_inverse_is_refused(scalar: int) -> None:
    with pytest.raises(ValueError, match="inverse"):
        inverse(scalar)


def test_a_vector_is_multiplied_byte_by_byte() -> None:
    vector = bytes(range(256))
    for scalar in range(256):
        product = multiply(int.from_bytes(vector, "big"), scalar, 256).to_bytes(256, "big")
        assert list(product) == [reference.times(byte, scalar) for byte in vector]


def test_products_of_fips_197_section_4_2() -> None:
    assert multiply(0x57, 0x83) == 0xC1
    assert multiply(0x57, 0x13) == 0xFE
    assert [multiply(0x57, power) for power in (0x02, 0x04, 0x08, 0x10)] == [0xAE, 0x47, 0x8E, 0x07]
    assert inverse(0x53) == 0xCA  # the example of the S-box in section 5.1.1: its inverse, then the affine map


def test_values_published_with_codahale_shamir() -> None:
    assert multiply(90, 21) == 254
    assert multiply(133, 5) == 167
    assert multiply(90, inverse(21)) == 189
    assert multiply(6, inverse(55)) == 151
    assert multiply(22, inverse(192)) == 138
    assert interpolate((1, 1), (2, 2), (3, 3)) == 0
    assert interpolate((1, 80), (2, 90), (3, 20)) == 30
    assert interpolate((1, 43), (2, 22), (3, 86)) == 107


def test_values_published_with_vaults_shamir() -> None:
    assert multiply(3, 7) == 9
    assert multiply(6, inverse(3)) == 2
    assert multiply(3, inverse(3)) == 1


def test_shares_are_the_values_of_the_reference_polynomials_then_x() -> None:
    secret, drawn = bytes(range(1, 33)), [bytes(range(100, 132)), bytes(range(200, 232))]
    draws = iter(drawn)
    shares = split(secret, 255, 3, lambda _count: next(draws))
    for x, share in enumerate(shares, start=1):
        polynomials = zip(secret, *drawn, strict=True)
        assert share == bytes(reference.evaluate(polynomial, x) for polynomial in polynomials) + bytes((x,))


def test_a_split_that_must_never_change() -> None:
    draws = iter([bytes((0xFF,)) * 4, b"\x01\x02\x04\x80"])
    shares = split(b"\x00\x01\x80\xff", 3, 3, lambda _count: next(draws))
    assert [share.hex() for share in shares] == ["fefc7b8001", "e1ec752c02", "1f118e5303"]
    assert combine(shares) == b"\x00\x01\x80\xff"


def test_the_largest_set_recovers_from_any_255() -> None:
    secret = stream("secret")(32)
    shares = split(secret, 255, 255, stream("split"))
    assert combine(shares) == secret
    assert combine(shares[:254]) != secret


def test_every_threshold_subset_of_every_small_set_recovers() -> None:
    secret = stream("secret")(32)
    for count in range(2, 7):
        for threshold in range(2, count + 1):
            shares = split(secret, count, threshold, stream((count, threshold)))
            for size in range(threshold, count + 1):
                for subset in (
                    itertools.permutations(shares, size) if size < 4 else itertools.combinations(shares, size)
                ):
                    assert combine(subset) == secret


def test_one_share_with_a_threshold_of_one_is_the_secret() -> None:
    assert split(b"secret", 1, 1, stream(0)) == (b"secret\x01",)


def test_one_share_below_the_threshold_is_uniform_whatever_the_secret() -> None:
    for secret in (0, 1, 0x53, 255):
        drawn = iter([bytes((coefficient,)) for coefficient in range(256)])
        sets = [split(bytes((secret,)), 3, 2, lambda _count: next(drawn)) for _ in range(256)]  # noqa: B023
        for x in (1, 2, 3):
            assert len({shares[x - 1][0] for shares in sets}) == 256


def test_shares_below_the_threshold_fit_every_secret_equally_well() -> None:
    shares = split(b"\x2a", 5, 3, stream("split"))
    for known in itertools.combinations(shares, 2):
        x = next(x for x in range(1, 256) if x not in {share[-1] for share in known})
        assert len({combine([*known, bytes((y, x))]) for y in range(256)}) == 256


@pytest.mark.parametrize(
    ("shares", "threshold"), [(0, 0), (0, 1), (256, 3), (5, 0), (5, 6), (5, -1), (2, 1), (-1, -1), (255, 256)]
)
def test_numbers_out_of_range_are_refused(shares: int, threshold: int) -> None:
    with pytest.raises(ValueError, match="allowed"):
        split(b"secret", shares, threshold, stream(0))


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        split(b"", 5, 3, stream(0))


@pytest.mark.parametrize(
    "shares",
    [[], [b""], [b"\x01"], [b"a\x01", b"bb\x02"], [b"a\x00", b"b\x01"], [b"a\x01", b"b\x01"]],
    ids=["none", "empty", "no value", "two lengths", "x is 0", "x twice"],
)
def test_shares_that_cannot_be_combined_are_refused(shares: list[bytes]) -> None:
    with pytest.raises(ValueError, match="must be"):
        combine(shares)
