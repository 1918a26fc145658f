"""Round trips of names, keys and values, and AES-SIV against a second version written from RFC 5297."""

import os

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.cmac import CMAC
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.storage import keys
from holdfast.storage.barrier import Barrier
from holdfast.storage.keyring import Keyring
from holdfast.storage.names import decrypt_segment, encrypt_segment
from holdfast.storage.paths import NAME_BYTES_MAX

BARRIER = Barrier(Keyring.generate(os.urandom), os.urandom)
NAMES = (
    st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/"), min_size=1, max_size=40)
    .filter(lambda name: name not in (".", ".."))
    .filter(lambda name: len(name.encode()) <= NAME_BYTES_MAX)
)


def cmac(key: bytes, message: bytes) -> bytes:
    mac = CMAC(algorithms.AES(key))
    mac.update(message)
    return mac.finalize()


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def doubled(block: bytes) -> bytes:
    shifted = int.from_bytes(block, "big") << 1
    if shifted >> 128:
        shifted = (shifted & ((1 << 128) - 1)) ^ 0x87
    return shifted.to_bytes(16, "big")


def siv_by_the_rfc(key: bytes, associated: bytes, plaintext: bytes) -> bytes:
    mac_key, counter_key = key[: len(key) // 2], key[len(key) // 2 :]
    digest = xor(doubled(cmac(mac_key, bytes(16))), cmac(mac_key, associated))
    if len(plaintext) >= 16:
        last = plaintext[:-16] + xor(plaintext[-16:], digest)
    else:
        last = xor(doubled(digest), (plaintext + b"\x80").ljust(16, b"\x00"))
    iv = cmac(mac_key, last)
    counter = bytearray(iv)
    counter[8] &= 0x7F
    counter[12] &= 0x7F
    encryptor = Cipher(algorithms.AES(counter_key), modes.CTR(bytes(counter))).encryptor()
    return iv + encryptor.update(plaintext) + encryptor.finalize()


def test_the_second_version_gives_the_vector_of_rfc_5297_a_1() -> None:
    key = bytes.fromhex("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    associated = bytes.fromhex("101112131415161718191a1b1c1d1e1f2021222324252627")
    expected = bytes.fromhex("85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c")
    assert siv_by_the_rfc(key, associated, bytes.fromhex("112233445566778899aabbccddee")) == expected


@settings(deadline=None, max_examples=200)
@given(key=st.binary(min_size=64, max_size=64), parent=st.binary(min_size=1, max_size=60), name=NAMES)
def test_a_name_is_encrypted_as_the_rfc_says_and_comes_back(key: bytes, parent: bytes, name: str) -> None:
    cipher = AESSIV(key)
    segment = encrypt_segment(cipher, parent, name)
    assert segment == keys.frame(siv_by_the_rfc(key, parent, name.encode()))
    assert decrypt_segment(cipher, parent, segment) == name


@settings(deadline=None, max_examples=200)
@given(names=st.lists(NAMES, min_size=1, max_size=6))
def test_a_path_can_be_read_back_from_its_key(names: list[str]) -> None:
    key = BARRIER.physical("local/" + "/".join(names))
    found, offset = [], 1
    while offset < len(key):
        segment = keys.segment_at(key, offset)
        found.append(BARRIER.open_segment(key[:offset], segment))
        offset += len(segment)
    assert found == names


@settings(deadline=None, max_examples=200)
@given(key=st.binary(min_size=1, max_size=100), value=st.binary(max_size=400))
def test_a_value_comes_back_from_its_place(key: bytes, value: bytes) -> None:
    assert BARRIER.decrypt(key, BARRIER.encrypt(key, value)) == value


@settings(deadline=None, max_examples=200)
@given(prefix=st.binary(max_size=4), other=st.binary(max_size=6))
def test_successor_divides_what_begins_with_a_prefix_from_what_follows(prefix: bytes, other: bytes) -> None:
    end = keys.successor(prefix)
    assert end is None or end > prefix
    inside = other >= prefix and (end is None or other < end)
    assert inside == other.startswith(prefix)
