"""The keyring: terms, wrapping, and that it lets go of its keys."""

import copy
import gc
import os
import pickle

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.proto.errors import Corruption, FailedPrecondition, Sealed
from holdfast.storage import keyring as module
from holdfast.storage.barrier import Barrier
from holdfast.storage.keyring import Keyring

ROOT = bytes(range(32))


class Counted:
    """Predictable bytes that never repeat."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, size: int) -> bytes:
        self.calls += 1
        return self.calls.to_bytes(2, "big") * (size // 2) + b"\x00" * (size % 2)


def test_a_wrapped_keyring_opens_with_all_its_keys() -> None:
    ring = Keyring.generate(os.urandom).rotated(os.urandom)
    copied = Keyring.unwrap(ring.wrap(ROOT), ROOT)
    assert (copied.terms, copied.active_term) == ((1, 2), 2)
    assert copied.request_key(b"x") == ring.request_key(b"x")
    old, new = Barrier(ring, os.urandom), Barrier(copied, os.urandom)
    assert old.physical("shared/a") == new.physical("shared/a")
    assert new.decrypt(b"sk", old.encrypt(b"sk", b"value")) == b"value"


def test_the_wrapped_form_is_the_documented_one() -> None:
    blob = Keyring.generate(Counted()).wrap(ROOT, lambda size: b"n" * size)
    assert blob[:13] == b"\x01" + b"n" * 12
    plaintext = AESGCM(ROOT).decrypt(b"n" * 12, blob[13:], b"holdfast/keyring" + blob[:13])
    one, two, three = b"\x00\x01" * 16, b"\x00\x02" * 32, b"\x00\x03" * 16
    assert msgspec.msgpack.decode(plaintext, strict=False) == [1, {1: one}, two, three, {}]


def test_rotation_adds_a_term_and_keeps_the_old_ones_and_the_names() -> None:
    first = Keyring.generate(os.urandom)
    before = Barrier(first, os.urandom)
    stored, place = before.encrypt(b"sk", b"old"), before.physical("shared/a/b")
    second = first.rotated(os.urandom)
    assert (first.terms, second.terms, second.active_term) == ((1,), (1, 2), 2)
    after = Barrier(second, os.urandom)
    before.close()
    assert after.decrypt(b"sk", stored) == b"old"
    assert after.encrypt(b"sk", b"new")[1:5] == (2).to_bytes(4, "big")
    assert after.physical("shared/a/b") == place


def test_a_wrong_root_key_and_every_changed_byte_give_one_clear_error() -> None:
    blob = Keyring.generate(os.urandom).wrap(ROOT)
    messages = set()
    with pytest.raises(Corruption) as wrong:
        Keyring.unwrap(blob, bytes(32))
    messages.add(wrong.value.message)
    for position in range(1, len(blob)):
        changed = bytearray(blob)
        changed[position] ^= 1
        with pytest.raises(Corruption) as tampered:
            Keyring.unwrap(bytes(changed), ROOT)
        messages.add(tampered.value.message)
    assert len(messages) == 1
    assert "root key is another one" in messages.pop()


def test_short_and_foreign_blobs_are_refused() -> None:
    blob = Keyring.generate(os.urandom).wrap(ROOT)
    for length in range(len(blob)):
        with pytest.raises(Corruption):
            Keyring.unwrap(blob[:length], ROOT)
    with pytest.raises(Corruption, match="unknown format 9"):
        Keyring.unwrap(b"\x09" + blob[1:], ROOT)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([1, {}, b"n" * 64, b"r" * 32]),
        msgspec.msgpack.encode([2, {1: b"k" * 32}, b"n" * 64, b"r" * 32]),
        msgspec.msgpack.encode([1, {1: b"k" * 31}, b"n" * 64, b"r" * 32]),
        msgspec.msgpack.encode([1, {1: b"k" * 32}, b"n" * 63, b"r" * 32]),
        msgspec.msgpack.encode([0, {0: b"k" * 32}, b"n" * 64, b"r" * 32]),
    ],
)
def test_a_blob_that_opens_and_is_no_keyring_is_refused(content: bytes) -> None:
    header = b"\x01" + bytes(12)
    blob = header + AESGCM(ROOT).encrypt(header[1:], content, b"holdfast/keyring" + header)
    with pytest.raises(Corruption, match="not a keyring"):
        Keyring.unwrap(blob, ROOT)


def test_a_root_key_of_another_length_is_a_callers_mistake() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Keyring.generate(os.urandom).wrap(b"short")


def test_a_value_of_a_term_it_does_not_hold_is_refused() -> None:
    newer = Barrier(Keyring.generate(os.urandom).rotated(os.urandom), os.urandom)
    with pytest.raises(Corruption, match="key term 2"):
        Barrier(Keyring.generate(os.urandom), os.urandom).decrypt(b"sk", newer.encrypt(b"sk", b"v"))


def test_the_number_of_terms_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TERMS_MAX", 2)
    ring = Keyring.generate(os.urandom).rotated(os.urandom)
    with pytest.raises(FailedPrecondition, match="key terms"):
        ring.rotated(os.urandom)


def test_ciphers_are_made_once_per_term() -> None:
    ring = Keyring.generate(os.urandom).rotated(os.urandom)
    assert ring.cipher(1) is ring.cipher(1)
    assert ring.name_cipher() is ring.name_cipher()


def test_close_lets_go_of_keys_and_ciphers_and_everything_after_is_sealed() -> None:
    ring = Keyring.generate(os.urandom)
    name_key = bytes(bytearray(os.urandom(64)))
    ring = Keyring(module._Keys(active=1, terms={1: os.urandom(32)}, name_key=name_key, request_key=os.urandom(32)))
    ring.cipher(1)
    ring.close()
    ring.close()
    gc.collect()
    held = [thing for thing in gc.get_referents(ring) if isinstance(thing, (AESGCM, module._Keys))]
    assert not held
    assert not [r for r in gc.get_referrers(name_key) if isinstance(r, (module._Keys, tuple))]
    for use in (
        lambda: ring.cipher(1),
        ring.name_cipher,
        lambda: ring.request_key(b"x"),
        lambda: ring.wrap(ROOT),
        lambda: ring.rotated(os.urandom),
        lambda: ring.active_term,
        lambda: ring.terms,
    ):
        with pytest.raises(Sealed):
            use()


def test_it_shows_copies_and_pickles_no_key() -> None:
    ring = Keyring.generate(Counted())
    assert repr(ring) == "<Keyring terms=1 active=1>"
    assert repr(ring._keys) == "<keys>"
    for leak in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="wrap it"):
            leak(ring)
    ring.close()
    assert repr(ring) == "<Keyring closed>"
