"""The envelope: its bytes, and that nothing but the whole of it, at its place, opens."""

import os

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.proto.errors import Corruption
from holdfast.storage import envelope

KEY = bytes(range(32))
NONCE = bytes(range(100, 112))
PLACE = b"s\x00\x03abc"
SECRET = b"correct horse battery staple"


def sealed() -> bytes:
    return envelope.encrypt(AESGCM(KEY), 7, NONCE, PLACE, SECRET)


def test_the_cipher_gives_the_published_aes_256_gcm_vector() -> None:
    # McGrew and Viega, "The Galois/Counter Mode of Operation", test case 16.
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    plaintext = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    associated = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    expected = bytes.fromhex(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b"
    )
    assert AESGCM(key).encrypt(bytes.fromhex("cafebabefacedbaddecaf888"), plaintext, associated) == expected


def test_the_stored_form_is_the_documented_one() -> None:
    header = b"\x01" + (7).to_bytes(4, "big") + NONCE
    encryptor = Cipher(algorithms.AES(KEY), modes.GCM(NONCE)).encryptor()
    encryptor.authenticate_additional_data(header + PLACE)
    ciphertext = encryptor.update(SECRET) + encryptor.finalize()
    assert sealed() == header + ciphertext + encryptor.tag
    assert len(sealed()) == len(SECRET) + envelope.OVERHEAD_BYTES


def test_it_opens_at_its_place_and_names_its_term() -> None:
    assert envelope.decrypt(AESGCM(KEY), PLACE, sealed()) == SECRET
    assert envelope.term_of(sealed()) == 7


def test_a_ciphertext_moved_to_another_key_is_refused() -> None:
    with pytest.raises(Corruption, match="moved"):
        envelope.decrypt(AESGCM(KEY), PLACE + b"x", sealed())


def test_another_key_is_refused() -> None:
    with pytest.raises(Corruption):
        envelope.decrypt(AESGCM(os.urandom(32)), PLACE, sealed())


def test_every_changed_bit_is_refused() -> None:
    for position in range(len(sealed())):
        for bit in range(8):
            changed = bytearray(sealed())
            changed[position] ^= 1 << bit
            with pytest.raises(Corruption):
                envelope.decrypt(AESGCM(KEY), PLACE, bytes(changed))


def test_every_truncation_and_an_extension_are_refused() -> None:
    for length in range(len(sealed())):
        with pytest.raises(Corruption):
            envelope.decrypt(AESGCM(KEY), PLACE, sealed()[:length])
    with pytest.raises(Corruption):
        envelope.decrypt(AESGCM(KEY), PLACE, sealed() + b"\x00")


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(Corruption, match="unknown format 2"):
        envelope.term_of(b"\x02" + sealed()[1:])


def test_an_error_carries_neither_content_nor_a_cause_with_content() -> None:
    with pytest.raises(Corruption) as caught:
        envelope.decrypt(AESGCM(KEY), PLACE, sealed()[:-1] + b"!")
    assert SECRET.decode() not in caught.value.message
    assert caught.value.__suppress_context__
    assert isinstance(caught.value.__context__, InvalidTag)
    assert str(caught.value.__context__) == ""
