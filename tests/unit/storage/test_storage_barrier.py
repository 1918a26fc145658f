"""The barrier: keys of paths, its bounded memory of them, and what remains when it is closed."""

import os

import pytest

from holdfast.proto.errors import Corruption, InvalidArgument, Sealed
from holdfast.storage import barrier as module
from holdfast.storage import keys
from holdfast.storage.barrier import Barrier
from holdfast.storage.keyring import Keyring


def made() -> Barrier:
    return Barrier(Keyring.generate(os.urandom), os.urandom)


def test_a_key_is_its_parents_key_and_one_segment() -> None:
    barrier = made()
    assert [barrier.physical(c) for c in ("cluster", "shared", "local")] == [b"c", b"s", b"l"]
    parent = barrier.physical("shared/a")
    assert barrier.physical("shared/a/b") == parent + barrier.segment(parent, "b")
    assert barrier.open_segment(parent, barrier.segment(parent, "b")) == "b"


def test_a_remembered_key_equals_a_computed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Keyring.generate(os.urandom)
    fresh, used = Barrier(ring, os.urandom), Barrier(ring, os.urandom)
    names = [f"shared/{a}/{b}/{c}" for a in "xy" for b in "xy" for c in "xyz"]
    for name in names + names[::-1]:
        fresh._physical.clear()
        assert used.physical(name) == fresh.physical(name)


def test_it_remembers_a_bounded_number_of_paths_and_no_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED_PATHS_MAX", 10)
    barrier = made()
    for number in range(50):
        barrier.physical(f"shared/{number}")
        barrier.physical("shared/kept")
    assert len(barrier._physical) == 10
    assert "shared/kept" in barrier._physical
    long = "shared/" + "/".join(["n" * 100] * 10)
    assert len(barrier.physical(long)) > 1000
    assert long not in barrier._physical


def test_a_path_that_is_too_deep_or_too_long_is_refused() -> None:
    barrier = made()
    deepest = "shared" + "/a" * (3999 // 19)
    assert len(barrier.physical(deepest)) <= keys.KEY_BYTES_MAX
    for path in (deepest + "/a", "shared" + "/a" * 100_000, "shared" + ("/" + "n" * 512) * 8):
        with pytest.raises(InvalidArgument, match="too long or too deep"):
            barrier.physical(path)


def test_a_value_opens_only_where_it_was_put() -> None:
    barrier = made()
    here, there = barrier.physical("shared/a"), barrier.physical("shared/b")
    stored = barrier.encrypt(here, b"value")
    assert barrier.decrypt(here, stored) == b"value"
    with pytest.raises(Corruption):
        barrier.decrypt(there, stored)


def test_equal_values_never_look_equal_and_are_counted() -> None:
    barrier = made()
    assert len({barrier.encrypt(b"sk", b"value") for _ in range(100)}) == 100
    assert barrier.encryptions == 100


def test_request_keys_are_stable_keyed_and_16_bytes() -> None:
    barrier = made()
    assert barrier.request_key(b"client-1") == barrier.request_key(b"client-1")
    assert (
        len({barrier.request_key(b"client-1"), barrier.request_key(b"client-2"), made().request_key(b"client-1")}) == 3
    )
    assert len(barrier.request_key(b"")) == 16


def test_a_closed_barrier_is_sealed_for_every_use_and_remembers_no_name() -> None:
    barrier = made()
    key = barrier.physical("shared/a")
    stored, segment = barrier.encrypt(key, b"v"), barrier.segment(b"s", "n")
    barrier.close()
    barrier.close()
    for use in (
        lambda: barrier.physical("shared/a"),
        lambda: barrier.physical("malformed"),
        lambda: barrier.segment(b"s", "n"),
        lambda: barrier.open_segment(b"s", segment),
        lambda: barrier.encrypt(key, b"v"),
        lambda: barrier.decrypt(key, stored),
        lambda: barrier.decrypt(key, b"garbage"),
        lambda: barrier.request_key(b"x"),
    ):
        with pytest.raises(Sealed):
            use()
    assert not barrier._physical
    assert repr(barrier) == "<Barrier <Keyring closed>>"
