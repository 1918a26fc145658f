"""Encrypted names and the form of paths and keys."""

import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from holdfast.proto.errors import Corruption, InvalidArgument
from holdfast.storage import keys, paths
from holdfast.storage.names import SIV_BYTES, decrypt_segment, encrypt_segment

CIPHER = AESSIV(bytes(range(64)))


def test_the_cipher_gives_the_vector_of_rfc_5297_a_1() -> None:
    key = bytes.fromhex("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    associated = bytes.fromhex("101112131415161718191a1b1c1d1e1f2021222324252627")
    plaintext = bytes.fromhex("112233445566778899aabbccddee")
    expected = bytes.fromhex("85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c")
    assert AESSIV(key).encrypt(plaintext, [associated]) == expected


def test_the_stored_form_is_a_length_and_the_siv_ciphertext_bound_to_the_parent() -> None:
    segment = encrypt_segment(CIPHER, b"sparent", "db")
    assert segment == (18).to_bytes(2, "big") + CIPHER.encrypt(b"db", [b"sparent"])
    assert decrypt_segment(CIPHER, b"sparent", segment) == "db"


def test_equal_names_are_equal_in_one_folder_and_different_in_two() -> None:
    assert encrypt_segment(CIPHER, b"sa", "db") == encrypt_segment(CIPHER, b"sa", "db")
    assert encrypt_segment(CIPHER, b"sa", "db") != encrypt_segment(CIPHER, b"sb", "db")


def test_a_segment_moved_to_another_folder_is_refused() -> None:
    with pytest.raises(Corruption, match="moved"):
        decrypt_segment(CIPHER, b"sb", encrypt_segment(CIPHER, b"sa", "db"))


def test_every_changed_bit_and_every_wrong_length_is_refused() -> None:
    segment = encrypt_segment(CIPHER, b"s", "name")
    for position in range(len(segment)):
        for bit in range(8):
            changed = bytearray(segment)
            changed[position] ^= 1 << bit
            with pytest.raises(Corruption):
                decrypt_segment(CIPHER, b"s", bytes(changed))
    for wrong in [segment[:n] for n in range(len(segment))] + [segment + b"\x00"]:
        with pytest.raises(Corruption):
            decrypt_segment(CIPHER, b"s", wrong)


def test_a_genuine_segment_that_is_not_utf_8_is_refused_without_its_bytes_in_the_error() -> None:
    with pytest.raises(Corruption) as caught:
        decrypt_segment(CIPHER, b"s", keys.frame(CIPHER.encrypt(b"\xff\xfe", [b"s"])))
    assert caught.value.__suppress_context__


def test_the_longest_name_fits_a_segment() -> None:
    segment = encrypt_segment(CIPHER, b"s", "n" * paths.NAME_BYTES_MAX)
    assert len(segment) - 2 <= keys.SEGMENT_BYTES_MAX
    assert decrypt_segment(CIPHER, b"s", segment) == "n" * paths.NAME_BYTES_MAX


def test_a_readable_cluster_name_can_never_be_an_encrypted_one() -> None:
    assert keys.cluster_key("seal/shamir") == b"c\x00\x0bseal/shamir"
    assert keys.CLEAR_SEGMENT_BYTES_MAX == SIV_BYTES
    assert len(encrypt_segment(CIPHER, b"c", "x")) > 2 + keys.CLEAR_SEGMENT_BYTES_MAX
    with pytest.raises(ValueError, match="at most 16"):
        keys.cluster_key("x" * 17)


@pytest.mark.parametrize("size", [0, keys.SEGMENT_BYTES_MAX + 1])
def test_a_frame_refuses_sizes_out_of_limits(size: int) -> None:
    with pytest.raises(ValueError, match="allowed"):
        keys.frame(bytes(size))


def test_successor_is_the_first_string_behind_a_prefix() -> None:
    assert keys.successor(b"a") == b"b"
    assert keys.successor(b"a\xff\xff") == b"b"
    assert keys.successor(b"\xff") is None


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("", "must begin with"),
        ("other/x", "must begin with"),
        ("/shared/x", "must begin with"),
        ("Shared/x", "must begin with"),
        ("shared/", "empty segment"),
        ("shared//x", "empty segment"),
        ("shared/x/", "empty segment"),
        ("shared/./x", "'.' or '..'"),
        ("shared/x/..", "'.' or '..'"),
        ("shared/marker\x00", "control character"),
        ("shared/marker\n", "control character"),
        ("shared/marker\x7f", "control character"),
        ("shared/marker\x85", "control character"),
        ("shared/marker\ud800", "valid Unicode"),
        ("shared/" + "marker" * 90, "at most 512"),
        ("shared/" + "\u00e9" * 257, "at most 512"),
    ],
)
def test_malformed_paths_are_refused_and_not_repeated(path: str, what: str) -> None:
    with pytest.raises(InvalidArgument, match=what) as caught:
        paths.split(path)
    assert "marker" not in caught.value.message
    assert caught.value.field == "path"


def test_a_name_with_a_slash_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="'/'"):
        paths.check_name("a/b")


@pytest.mark.parametrize("name", ["...", "a b", "..a", "\u00e9\u4e2d\U0001f511", "n" * 512, "\u00a0", "%2e"])
def test_ordinary_and_odd_names_are_accepted(name: str) -> None:
    assert list(paths.split(f"local/a/{name}")[1]) == ["a", name]
    assert decrypt_segment(CIPHER, b"l", encrypt_segment(CIPHER, b"l", name)) == name


def test_two_name_keys_share_nothing() -> None:
    with pytest.raises(Corruption):
        decrypt_segment(AESSIV(os.urandom(64)), b"s", encrypt_segment(CIPHER, b"s", "db"))
