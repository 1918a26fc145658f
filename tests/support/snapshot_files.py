"""Snapshot files made by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from holdfast.proto.snapshot_file import CLASSES, SnapshotMember, SnapshotMetadata, SnapshotWriter, encode_record


def metadata_of(content_of: Sequence[tuple[bytes, bytes]], **changes: object) -> SnapshotMetadata:
    content = b"".join(encode_record(key, value) for key, value in content_of)
    facts: dict[str, object] = {
        "cluster_id": "8a7f", "cluster_name": "test", "key_set": "01020304", "index": 41, "term": 3,
        "cluster_time_ms": 1234, "created": "2026-11-24T12:00:00Z", "version": "1.0", "node_id": "node-1",
        "members": (SnapshotMember("node-1", "a:1", "a:2", voter=True),),
        "records": {name: sum(key[:1] == first for key, _ in content_of) for first, name in CLASSES.items()},
        "content_bytes": len(content), "content_sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    return SnapshotMetadata(**(facts | changes))  # type: ignore[arg-type]


def file_of(content_of: Sequence[tuple[bytes, bytes]], *, per_block: int = 2, **changes: object) -> bytes:
    """A file with these records, which are in order."""
    writer = SnapshotWriter()
    head = writer.head(metadata_of(content_of, **changes))
    blocks = [
        writer.block(b"".join(encode_record(*record) for record in content_of[at : at + per_block]))
        for at in range(0, len(content_of), per_block)
    ]
    return b"".join([head, *blocks, writer.end()])
