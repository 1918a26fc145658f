"""The text of a share: what it looks like, which mistakes it tells, what it never shows."""

import base64
import copy
import hashlib
import pickle
import string

import pytest

from holdfast.cluster.seal.shares import Share, Shares, decode
from holdfast.proto.errors import ShareRejected

SHARE = Share(set_id=b"\x01\x02\x03\x04", threshold=3, core=bytes(range(32)) + b"\x07")
TEXT = SHARE.encode()


def kind(text: str) -> str:
    with pytest.raises(ShareRejected) as caught:
        decode(text)
    assert len(text.strip()) < 5 or text.strip() not in str(caught.value)
    return caught.value.details["kind"]


def forged(body: bytes) -> str:
    checksum = hashlib.sha256(b"holdfast/seal/share/1" + body).digest()[:4]
    return "hfs1." + base64.urlsafe_b64encode(body + checksum).decode()


def test_the_text_that_must_never_change() -> None:
    assert TEXT == "hfs1.AQIDBAMAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHwfbImfr"


def test_a_share_is_one_line_of_61_characters_that_need_no_quoting() -> None:
    assert len(TEXT) == 61
    assert set(TEXT) <= set(string.ascii_letters + string.digits + ".-_")


def test_a_share_is_read_back_with_white_space_around_it() -> None:
    read = decode(f"  {TEXT}\r\n")
    assert (read.set_id, read.threshold, read.core, read.x) == (SHARE.set_id, 3, SHARE.core, 7)


def test_every_replaced_character_is_told() -> None:
    alphabet = string.ascii_letters + string.digits + "-_+/=.ä \n"
    for at in range(len("hfs1."), len(TEXT)):
        for other in alphabet:
            if other != TEXT[at]:
                assert kind(TEXT[:at] + other + TEXT[at + 1 :]) == "mistyped"


def test_the_other_base64_alphabet_is_told_though_it_means_the_same() -> None:
    text = Share(set_id=b"\xff\xef\xbe\xfb", threshold=3, core=b"\xff" * 33).encode()
    assert {"-", "_"} <= set(text)
    assert kind(text.replace("-", "+")) == "mistyped"
    assert kind(text.replace("_", "/")) == "mistyped"


def test_two_swapped_neighbours_are_told() -> None:
    for at in range(len("hfs1."), len(TEXT) - 1):
        if TEXT[at] != TEXT[at + 1]:
            assert kind(TEXT[:at] + TEXT[at + 1] + TEXT[at] + TEXT[at + 2 :]) == "mistyped"


def test_a_lost_or_added_character_is_told_with_the_counts() -> None:
    with pytest.raises(ShareRejected, match="60 characters instead of 61"):
        decode(TEXT[:-1])
    assert kind(TEXT + "A") == "mistyped"
    assert kind("hfs1.") == "mistyped"


@pytest.mark.parametrize("text", ["", "   ", "hello", TEXT[5:], "HFS1." + TEXT[5:], "hfs", "s.token", "\0" * 61])
def test_what_does_not_look_like_a_share_is_told_so(text: str) -> None:
    assert kind(text) == "not_a_share"


def test_a_share_of_a_later_format_is_told_so() -> None:
    assert kind("hfs2." + TEXT[5:]) == "unknown_version"


def test_numbers_that_cannot_be_are_refused_even_with_a_right_checksum() -> None:
    assert kind(forged(b"\x01\x02\x03\x04" + b"\x00" + SHARE.core)) == "not_a_share"
    assert kind(forged(b"\x01\x02\x03\x04" + b"\x03" + bytes(33))) == "not_a_share"


def test_an_error_never_echoes_what_was_typed() -> None:
    planted = "hfs1.MARKERMARKERMARKER"
    for text in (planted, planted.ljust(61, "M"), "MARKER" * 10, "hfs9.MARKER"):
        with pytest.raises(ShareRejected) as caught:
            decode(text)
        assert "MARKER" not in f"{caught.value!r} {caught.value.message} {caught.value.details}"


def test_no_repr_or_copy_shows_a_share() -> None:
    shares = Shares(set_id=SHARE.set_id, threshold=3, texts=(TEXT,))
    assert repr(SHARE) == "<Share 7 of set 01020304>"
    assert repr(shares) == "<Shares 1, threshold 3, set 01020304>"
    assert f"{[SHARE, shares]}" == f"[{SHARE!r}, {shares!r}]"
    for thing in (SHARE, shares):
        with pytest.raises(TypeError, match="never copied"):
            pickle.dumps(thing)
        with pytest.raises(TypeError, match="never copied"):
            copy.copy(thing)
