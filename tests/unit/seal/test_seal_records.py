"""The seal's record: what it binds, what a damaged or foreign one is told as."""

from typing import Any

import msgspec
import pytest
from support.seal_rig import stream

from holdfast.cluster.seal.records import SealConfig, decode_config, encode_config, make_config
from holdfast.proto.errors import Corruption, ShareRejected

ROOT = stream("root")(32)
SHARE_KEY = stream("share")(32)


def config(**changes: Any) -> SealConfig:
    values: dict[str, Any] = {
        "root_key": ROOT,
        "share_key": SHARE_KEY,
        "cluster_id": "6f9619ff-8b86-4011-b42d-00cf4fc964ff",
        "cluster_name": "demo",
        "created_ms": 1_800_000_000_000,
        "set_id": b"\x01\x02\x03\x04",
        "shares": 5,
        "threshold": 3,
        "random_bytes": stream("nonce"),
    }
    return make_config(**{**values, **changes})


def test_the_share_key_opens_the_root_key() -> None:
    assert config().unwrap(SHARE_KEY) == ROOT
    assert decode_config(encode_config(config())) == config()


def test_the_record_that_must_stay_readable() -> None:
    stored = encode_config(config())
    assert stored[:1] == b"\x01"
    assert config().check_value.hex() == "4cda84da69057bbe"
    assert config().wrapped_root_key.hex() == (
        "010d62b183cd0f0581f354c8fa577c5ff5f755c413cd26b6d3d4a579e82c9d0127568ff055014556662c4699fcd128236d76b35942292218"
        "a9f3653d43"
    )


def test_a_wrong_share_key_is_a_rejected_share_and_not_corruption() -> None:
    with pytest.raises(ShareRejected) as caught:
        config().unwrap(bytes(32))
    assert caught.value.details == {"kind": "wrong_set"}


def test_no_key_is_in_the_record() -> None:
    stored = encode_config(config())
    assert ROOT not in stored
    assert SHARE_KEY not in stored


@pytest.mark.parametrize(
    "change",
    [
        {"cluster_id": "00000000-8b86-4011-b42d-00cf4fc964ff"},
        {"set_id": b"\x01\x02\x03\x05"},
        {"shares": 6},
        {"threshold": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_wrap_moved_to_another_seal_does_not_open(change: dict[str, Any]) -> None:
    moved = msgspec.structs.replace(config(), **change)
    with pytest.raises(ShareRejected):
        moved.unwrap(SHARE_KEY)
    rechecked = msgspec.structs.replace(moved, check_value=config(**change).check_value)
    with pytest.raises(Corruption, match="does not open"):
        rechecked.unwrap(SHARE_KEY)


def test_every_changed_byte_of_the_wrap_is_corruption() -> None:
    wrapped = config().wrapped_root_key
    for at in range(len(wrapped)):
        changed = wrapped[:at] + bytes((wrapped[at] ^ 1,)) + wrapped[at + 1 :]
        with pytest.raises(Corruption):
            msgspec.structs.replace(config(), wrapped_root_key=changed).unwrap(SHARE_KEY)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"", "unknown format none"),
        (b"\x02" + encode_config(config())[1:], "unknown format 2"),
        (b"\x01", "damaged"),
        (encode_config(config())[:-1], "damaged"),
        (encode_config(config()) + b"\x00", "damaged"),
        (encode_config(msgspec.structs.replace(config(), threshold=6)), "damaged"),
        (encode_config(msgspec.structs.replace(config(), threshold=0)), "damaged"),
        (encode_config(msgspec.structs.replace(config(), shares=256)), "damaged"),
        (encode_config(msgspec.structs.replace(config(), set_id=b"")), "damaged"),
        (encode_config(msgspec.structs.replace(config(), check_value=b"")), "damaged"),
        (encode_config(msgspec.structs.replace(config(), wrapped_root_key=b"")), "damaged"),
    ],
)
def test_a_damaged_or_foreign_record_is_corruption(value: bytes, told: str) -> None:
    with pytest.raises(Corruption, match=told):
        decode_config(value)


def test_a_record_whose_text_is_not_utf8_is_corruption() -> None:
    with pytest.raises(Corruption, match="damaged"):
        decode_config(bytes((1,)) + b"\x81\xa1\x80")
