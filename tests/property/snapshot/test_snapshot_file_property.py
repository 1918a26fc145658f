"""The snapshot file: what was written comes back, and any other bytes are refused."""

import io

from hypothesis import given
from hypothesis import strategies as st
from support.snapshot_files import file_of, metadata_of

from holdfast.proto.snapshot_file import SnapshotDamaged, SnapshotReader

keys = st.builds(lambda first, rest: first + rest, st.sampled_from([b"c", b"l", b"s"]), st.binary(max_size=20))
contents = st.dictionaries(keys, st.binary(max_size=60), max_size=8).map(lambda found: sorted(found.items()))


def refused(data: bytes) -> bool:
    try:
        SnapshotReader(io.BytesIO(data)).verify()
    except SnapshotDamaged:
        return True
    return False


@given(contents, st.integers(1, 4))
def test_what_was_written_comes_back(records: list[tuple[bytes, bytes]], per_block: int) -> None:
    data = file_of(records, per_block=per_block)
    reader = SnapshotReader(io.BytesIO(data))
    assert list(reader.records()) == records
    assert reader.metadata == metadata_of(records)
    assert reader.size == len(data)


@given(contents, st.data())
def test_any_truncation_is_refused(records: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    file = file_of(records)
    assert refused(file[: data.draw(st.integers(0, len(file) - 1))])


@given(contents, st.data())
def test_any_flipped_bit_is_refused(records: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    file = bytearray(file_of(records))
    file[data.draw(st.integers(0, len(file) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert refused(bytes(file))


@given(contents, st.binary(min_size=1, max_size=5))
def test_anything_behind_the_end_is_refused(records: list[tuple[bytes, bytes]], more: bytes) -> None:
    assert refused(file_of(records) + more)


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    assert refused(data)
    assert refused(file_of([])[:14] + data)
