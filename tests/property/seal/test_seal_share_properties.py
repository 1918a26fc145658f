"""The text of a share: what is encoded is decoded, and no mistake passes for a share."""

import string

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from holdfast.cluster.seal.shares import Share, decode
from holdfast.proto.errors import ShareRejected

shares = st.builds(
    Share,
    set_id=st.binary(min_size=4, max_size=4),
    threshold=st.integers(1, 255),
    core=st.binary(min_size=33, max_size=33).filter(lambda core: core[-1] != 0),
)
characters = st.sampled_from(string.ascii_letters + string.digits + "-_")


@settings(max_examples=300, deadline=None)
@given(shares, st.text(" \t\r\n", max_size=3), st.text(" \t\r\n", max_size=3))
def test_what_is_encoded_is_decoded(share: Share, before: str, after: str) -> None:
    text = share.encode()
    assert len(text) == 61
    read = decode(before + text + after)
    assert (read.set_id, read.threshold, read.core) == (share.set_id, share.threshold, share.core)
    assert read.encode() == text


@settings(max_examples=300, deadline=None)
@given(shares, st.lists(st.tuples(st.integers(5, 60), characters), min_size=1, max_size=6))
def test_some_mistyped_characters_are_told(share: Share, mistakes: list[tuple[int, str]]) -> None:
    typed = list(share.encode())
    for at, character in mistakes:
        typed[at] = character
    assume("".join(typed) != share.encode())
    with pytest.raises(ShareRejected) as caught:
        decode("".join(typed))
    assert caught.value.details == {"kind": "mistyped"}


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text().map(lambda text: "hfs1." + text) | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_other_text_is_refused_without_being_echoed(text: str) -> None:
    with pytest.raises(ShareRejected) as caught:
        decode(text)
    assert caught.value.details["kind"] in ("not_a_share", "mistyped", "unknown_version")
    assert len(text.strip()) < 12 or text.strip() not in str(caught.value)
