"""The snapshot file: the whole replicated state of a cluster in one file. Standard library only, so that the light
client can check a file as well as a node can.

    file     = head blocks end
    head     = magic (8 bytes) format (2, 1) length (4) metadata (`length` bytes of JSON) SHA-256 of all that (32)
    block    = length (4, not 0) records
    record   = key length (2) key value length (4) value; keys strictly ascending over the whole file
    end      = 0 (4) SHA-256 of everything before it (32)

Numbers are big-endian. Keys are ciphertext names behind a class byte, values are envelopes (`storage/keys.py`,
`storage/envelope.py`). The metadata is not secret: it says what the file is, counts its records by class, and has the
SHA-256 of all records, so that a file is not only undamaged but complete.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import BinaryIO

from holdfast.proto.errors import InvalidArgument

MAGIC = b"\x89HFSNAP\n"
FORMAT = 1
SUFFIX = ".hfsnap"

CLASSES = {b"c": "cluster", b"l": "local", b"s": "shared"}
"""The classes of keys, by their first byte."""

METADATA_BYTES_MAX = 256 * 1024
BLOCK_BYTES = 64 * 1024
"""A block is closed when it has reached this size."""
BLOCK_BYTES_MAX = 8 * 1024 * 1024
KEY_BYTES_MAX = 4096

_HEAD = struct.Struct(">8sHI")
_LENGTH = struct.Struct(">I")
_KEY_LENGTH = struct.Struct(">H")
_DIGEST_BYTES = 32


class SnapshotDamaged(InvalidArgument):
    """The file is no snapshot, or is damaged. Use another one; nothing was changed."""


@dataclass(frozen=True)
class SnapshotMember:
    """A member of the cluster when the snapshot was made."""

    node_id: str
    cluster_address: str
    api_address: str
    voter: bool


@dataclass(frozen=True)
class SnapshotMetadata:
    """What a snapshot says about itself.

    key_set: names the set of shares that opens it. index, term, cluster_time_ms: the last log entry that is in it.
    created: RFC 3339, by the clock of the node that made it. records: how many, by class. content_bytes,
    content_sha256: of all records one behind the other.
    """

    cluster_id: str
    cluster_name: str
    key_set: str
    index: int
    term: int
    cluster_time_ms: int
    created: str
    version: str
    node_id: str
    members: tuple[SnapshotMember, ...]
    records: dict[str, int]
    content_bytes: int
    content_sha256: str

    def encode(self) -> bytes:
        """The metadata as it stands in a file."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


def check_of(offset: int, data: bytes) -> int:
    """The checksum of a part of a file on its way."""
    return zlib.crc32(data, zlib.crc32(offset.to_bytes(8, "big")))


def encode_record(key: bytes, value: bytes) -> bytes:
    """A record as it stands in a block."""
    assert 0 < len(key) <= KEY_BYTES_MAX
    return b"".join((_KEY_LENGTH.pack(len(key)), key, _LENGTH.pack(len(value)), value))


class SnapshotWriter:
    """Makes a file, part by part: `head` once, `block` for each run of records, `end` once. size: bytes so far."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.size = 0

    def _took(self, data: bytes) -> bytes:
        self._digest.update(data)
        self.size += len(data)
        return data

    def head(self, metadata: SnapshotMetadata) -> bytes:
        """The beginning of the file."""
        encoded = metadata.encode()
        assert len(encoded) <= METADATA_BYTES_MAX
        head = _HEAD.pack(MAGIC, FORMAT, len(encoded)) + encoded
        return self._took(head + hashlib.sha256(head).digest())

    def block(self, records: bytes) -> bytes:
        """Whole records, in order."""
        assert 0 < len(records) <= BLOCK_BYTES_MAX
        return self._took(_LENGTH.pack(len(records)) + records)

    def end(self) -> bytes:
        """The end of the file."""
        zero = self._took(_LENGTH.pack(0))
        return zero + self._took(self._digest.digest())

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the file so far."""
        return self._digest.digest()


class SnapshotReader:
    """Reads and checks a file that is open for reading at its beginning. What it yields counts only once `records` has
    come to its end without an error.

    Raises SnapshotDamaged. digest, size: of the whole file, known at the end.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0
        head = self._take(_HEAD.size)
        magic, form, length = _HEAD.unpack(head)
        if magic != MAGIC:
            raise SnapshotDamaged("this is not a Holdfast snapshot: name a file that `snapshot save` has made")
        if form != FORMAT:
            raise SnapshotDamaged(
                f"the snapshot has format {form}, this version reads {FORMAT}: use the one that made it"
            )
        if length > METADATA_BYTES_MAX:
            raise _damaged("its head is")
        encoded = self._take(length)
        if self._take(_DIGEST_BYTES) != hashlib.sha256(head + encoded).digest():
            raise _damaged("its head is")
        self.metadata = _decode_metadata(encoded)

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise SnapshotDamaged("the snapshot is cut short: use another one")
        self._digest.update(data)
        self.size += size
        return data

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key and value, in order. At the end everything that the file says of itself has been checked."""
        content = hashlib.sha256()
        counts = dict.fromkeys(CLASSES.values(), 0)
        total, last = 0, b""
        while length := _LENGTH.unpack(self._take(_LENGTH.size))[0]:
            if length > BLOCK_BYTES_MAX:
                raise _damaged("a length in it is")
            block = self._take(length)
            content.update(block)
            total += length
            for key, value in _split(block):
                name = CLASSES.get(key[:1])
                if name is None or key <= last:
                    raise _damaged("the order of its records is")
                counts[name] += 1
                last = key
                yield key, value
        self._check_end(content.hexdigest(), counts, total)

    def _check_end(self, content: str, counts: dict[str, int], total: int) -> None:
        expected = self._digest.digest()
        if self._take(_DIGEST_BYTES) != expected:
            raise _damaged("its SHA-256 is")
        if self._file.read(1):
            raise SnapshotDamaged("there is more behind the snapshot's end: use another file")
        meta = self.metadata
        if (content, counts, total) != (meta.content_sha256, meta.records, meta.content_bytes):
            raise _damaged("its content is")

    def verify(self) -> None:
        """Read to the end."""
        for _ in self.records():
            pass

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the file so far."""
        return self._digest.digest()


def _split(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(block):
        if at + _KEY_LENGTH.size > len(block):
            raise _damaged("a record in it is")
        key_end = at + _KEY_LENGTH.size + _KEY_LENGTH.unpack_from(block, at)[0]
        key = block[at + _KEY_LENGTH.size : key_end]
        if not 0 < len(key) <= KEY_BYTES_MAX or key_end + _LENGTH.size > len(block):
            raise _damaged("a record in it is")
        begin = key_end + _LENGTH.size
        at = begin + _LENGTH.unpack_from(block, key_end)[0]
        if at > len(block):
            raise _damaged("a record in it is")
        yield key, block[begin:at]


def _damaged(what: str) -> SnapshotDamaged:
    return SnapshotDamaged(f"the snapshot is damaged ({what} not what was written): use another one")


_TEXTS = ("cluster_id", "cluster_name", "key_set", "created", "version", "node_id", "content_sha256")
_NUMBER_MAX = (1 << 63) - 1
_NUMBERS = ("index", "term", "cluster_time_ms", "content_bytes")


def _decode_metadata(encoded: bytes) -> SnapshotMetadata:
    try:
        found = json.loads(encoded)
    except (ValueError, RecursionError):
        raise _damaged("its metadata is") from None
    if not isinstance(found, dict) or set(found) != {field.name for field in fields(SnapshotMetadata)}:
        raise _damaged("its metadata is")
    well_formed = (
        all(_is_text(found[name]) for name in _TEXTS)
        and all(_is_number(found[name]) for name in _NUMBERS)
        and isinstance(found["records"], dict)
        and set(found["records"]) == set(CLASSES.values())
        and all(_is_number(count) for count in found["records"].values())
        and isinstance(found["members"], list)
        and all(_is_member(member) for member in found["members"])
    )
    if not well_formed:
        raise _damaged("its metadata is")
    found["members"] = tuple(SnapshotMember(**member) for member in found["members"])
    return SnapshotMetadata(**found)


def _is_text(value: object) -> bool:
    """Texts are shown on terminals and sent on: no control characters, nothing that is no Unicode."""
    return isinstance(value, str) and value.isprintable()


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _NUMBER_MAX


def _is_member(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {field.name for field in fields(SnapshotMember)}
        and isinstance(value["voter"], bool)
        and all(_is_text(value[name]) for name in ("node_id", "cluster_address", "api_address"))
    )
