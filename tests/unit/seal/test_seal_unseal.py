"""Collecting shares: every way a ceremony goes on, ends or is refused."""

import pytest
from support.seal_rig import stream

from holdfast.cluster.seal import shamir
from holdfast.cluster.seal.shares import Share, rejected
from holdfast.cluster.seal.unseal import UnsealProgress
from holdfast.proto.errors import ShareRejected

KEY = stream("key")(32)
SET = b"\x01\x02\x03\x04"
SHARES = [Share(set_id=SET, threshold=3, core=core) for core in shamir.split(KEY, 5, 3, stream("split"))]


def verify(key: bytes) -> None:
    if key != KEY:
        raise rejected("wrong_set", "not the key")


def progress() -> UnsealProgress:
    return UnsealProgress(set_id=SET, threshold=3, verify=verify, random_bytes=stream("nonce"))


def refused(machine: UnsealProgress, share: Share) -> str:
    with pytest.raises(ShareRejected) as caught:
        machine.give(share)
    return caught.value.details["kind"]


def test_the_threshold_makes_the_key_and_ends_the_ceremony() -> None:
    machine = progress()
    assert (machine.given, machine.nonce) == (0, "")
    assert machine.give(SHARES[4]) is None
    nonce = machine.nonce
    assert len(nonce) == 32
    assert machine.give(SHARES[0]) is None
    assert (machine.given, machine.nonce) == (2, nonce)
    assert machine.give(SHARES[2]) == KEY
    assert (machine.given, machine.nonce) == (0, "")


def test_each_ceremony_has_a_nonce_of_its_own() -> None:
    machine = progress()
    machine.give(SHARES[0])
    first = machine.nonce
    machine.reset()
    machine.give(SHARES[0])
    assert machine.nonce not in ("", first)


def test_a_repeated_share_is_refused_and_the_progress_stays() -> None:
    machine = progress()
    machine.give(SHARES[0])
    machine.give(SHARES[1])
    assert refused(machine, SHARES[0]) == "repeated"
    assert machine.given == 2
    assert machine.give(SHARES[2]) == KEY


def test_a_share_of_another_set_is_refused_at_once_and_the_progress_stays() -> None:
    machine = progress()
    machine.give(SHARES[0])
    assert refused(machine, Share(set_id=b"old!", threshold=3, core=SHARES[1].core)) == "other_set"
    assert refused(machine, Share(set_id=SET, threshold=2, core=SHARES[1].core)) == "other_set"
    assert machine.given == 1


def test_a_refused_first_share_begins_no_ceremony() -> None:
    machine = progress()
    assert refused(machine, Share(set_id=b"old!", threshold=3, core=SHARES[1].core)) == "other_set"
    assert machine.nonce == ""


def test_a_set_that_does_not_make_the_key_is_refused_and_forgotten() -> None:
    machine = progress()
    false = Share(set_id=SET, threshold=3, core=bytes(32) + b"\x09")
    machine.give(SHARES[0])
    machine.give(false)
    assert refused(machine, SHARES[1]) == "wrong_set"
    assert (machine.given, machine.nonce) == (0, "")
    assert [machine.give(share) for share in SHARES[:3]] == [None, None, KEY]


def test_a_reset_forgets_all_shares() -> None:
    machine = progress()
    machine.give(SHARES[0])
    machine.reset()
    assert (machine.given, machine.nonce) == (0, "")
    assert machine.give(SHARES[0]) is None


def test_a_threshold_of_one_opens_with_one_share() -> None:
    machine = UnsealProgress(set_id=SET, threshold=1, verify=verify, random_bytes=stream("nonce"))
    (core,) = shamir.split(KEY, 1, 1, stream("split"))
    assert machine.give(Share(set_id=SET, threshold=1, core=core)) == KEY


def test_a_repr_shows_counts_only() -> None:
    machine = progress()
    machine.give(SHARES[0])
    assert repr(machine) == "<UnsealProgress 1 of 3>"
