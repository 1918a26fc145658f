"""What a snapshot file says of itself must be true, even where its hashes are."""

import io

import pytest
from support.snapshot_files import file_of

from holdfast.proto.snapshot_file import SnapshotDamaged, SnapshotReader

RECORDS = [(b"c1", b"v1"), (b"l1", b"v2"), (b"s1", b"v3"), (b"s2", b"v4")]


def verify(data: bytes) -> None:
    SnapshotReader(io.BytesIO(data)).verify()


@pytest.mark.parametrize(
    "lie",
    [
        {"records": {"cluster": 1, "local": 1, "shared": 3}},
        {"content_bytes": 1},
        {"content_sha256": "00"},
        {"records": {"cluster": 1}},
        {"index": -1},
        {"term": "3"},
        {"index": True},
        {"index": 1 << 64},
        {"cluster_id": 7},
        {"cluster_name": "\x1b[2J"},
        {"cluster_name": "\ud800"},
        {"members": [{"node_id": "a\n", "cluster_address": "", "api_address": "", "voter": True}]},
        {"members": [{"node_id": "a"}]},
    ],
)
def test_metadata_that_is_not_true_or_has_another_form_is_refused(lie: dict[str, object]) -> None:
    verify(file_of(RECORDS))
    with pytest.raises(SnapshotDamaged):
        verify(file_of(RECORDS, **lie))


@pytest.mark.parametrize(
    "records",
    [[(b"s2", b"v"), (b"s1", b"v")], [(b"s1", b"v"), (b"s1", b"w")], [(b"x1", b"v")]],
)
def test_records_out_of_order_twice_or_of_no_class_are_refused(records: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(SnapshotDamaged):
        verify(file_of(records))


def test_another_format_is_named() -> None:
    data = bytearray(file_of(RECORDS))
    data[9] = 7
    with pytest.raises(SnapshotDamaged, match="format 7"):
        verify(bytes(data))


def test_another_kind_of_file_is_called_that() -> None:
    with pytest.raises(SnapshotDamaged, match="not a Holdfast snapshot"):
        verify(b"PK\x03\x04" + bytes(100))
