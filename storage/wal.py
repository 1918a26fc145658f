"""A look at RocksDB's write-ahead logs before RocksDB replays them. Knows the log's file format, not RocksDB.

RocksDB verifies every record's checksum, and it covers neither the record's length nor the end of the file. Three
kinds of damage get past it, and are refused here:

- a length that reaches behind the end of the file looks like a record torn by a loss of power, so that this record and
  all behind it would be dropped without a word;
- zeros from the end of a record on look like space that was never written, and are skipped, with what they replaced;
- a record type of the kind used for recycled logs, which are never written here, makes the replay run for ever.

    log    = blocks of 32 KiB; a record never crosses a block, a trailer of less than 7 bytes is left empty
    record = checksum (4 bytes) length (2 bytes, little-endian) type (1 byte: full, first, middle, last) payload
    checksum = masked CRC-32C of type and payload

(https://github.com/facebook/rocksdb/wiki/Write-Ahead-Log-File-Format)
"""

from __future__ import annotations

import functools
from pathlib import Path

from holdfast.proto.errors import Corruption

_BLOCK_BYTES = 32 * 1024
_HEADER_BYTES = 7
_TYPES = range(1, 5)


def check_logs(folder: Path) -> None:
    """Check all logs of a database that nothing has open. A torn end is normal in the last one with content: power was
    lost.

    Raises Corruption."""
    logs = [log for log in sorted(folder.glob("*.log"), key=lambda log: int(log.stem)) if log.stat().st_size]
    for log in logs:
        if _torn(log) and log != logs[-1]:
            raise _damaged(log, "it ends within a record and a later log follows")


def _torn(log: Path) -> bool:
    """Whether a log ends within a record, or in space that was never written."""
    ended = False
    with log.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            if ended and block.strip(b"\0"):
                raise _damaged(log, "a part was overwritten with zeros")
            ended = ended or _ends_within(log, block)
    return ended


def _ends_within(log: Path, block: bytes) -> bool:
    position = 0
    while position < len(block) and _BLOCK_BYTES - position >= _HEADER_BYTES:
        if len(block) - position < _HEADER_BYTES:
            return True
        length, kind = _header(block, position)
        if kind == 0 and length == 0:
            if block[position:].strip(b"\0"):
                raise _damaged(log, "a part was overwritten with zeros")
            return True
        end = position + _HEADER_BYTES + length
        if kind not in _TYPES or end > _BLOCK_BYTES:
            raise _damaged(log, "a record's header is impossible")
        if end > len(block):
            _check_tail(log, block[position:])
            return True
        position = end
    return False


def _check_tail(log: Path, tail: bytes) -> None:
    """Refuse a tail that names a longer record than there is, yet holds whole ones: it was not torn off."""
    if _checksum(tail[6:]) == _stored_checksum(tail, 0):
        raise _damaged(log, "a record's length is wrong")
    for position in range(1, len(tail) - _HEADER_BYTES):
        length, kind = _header(tail, position)
        end = position + _HEADER_BYTES + length
        if (
            kind in _TYPES
            and end <= len(tail)
            and _checksum(tail[position + 6 : end]) == _stored_checksum(tail, position)
        ):
            raise _damaged(log, "a record's length is wrong")


def _header(block: bytes, position: int) -> tuple[int, int]:
    return int.from_bytes(block[position + 4 : position + 6], "little"), block[position + 6]


def _stored_checksum(block: bytes, position: int) -> int:
    return int.from_bytes(block[position : position + 4], "little")


def _checksum(data: bytes) -> int:
    """RocksDB's masked CRC-32C. Slow, and only computed for what follows a torn record: at most a block."""
    table = _crc32c_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _crc32c_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


def _damaged(log: Path, what: str) -> Corruption:
    return Corruption(
        f"the write-ahead log {log} is damaged ({what}): move the folder away and rebuild this node from its peers"
    )
