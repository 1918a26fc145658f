"""The contract of audit devices, and the chain that shows that no line of one was removed or changed.

A line is the entry's JSON object with one member more, `chain`, always the last:

    {..., "chain": {"seq": 17, "prev": "<hex>", "mac": "<hex>"}}

seq counts the lines of a device from 1. prev is the SHA-256 of the whole line before, without its newline; 64 zeros at
the first. mac is HMAC-SHA-256(chain key, SHA-256(the line up to and with the comma before "mac")). Since each line
holds the hash of the one before, the mac of the last line vouches for all of them, and only who holds the key can make
one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Protocol

FIRST = "0" * 64
"""`prev` of a first line."""

_MAC = b',"mac":"'


class Chain:
    """Links the lines of one device. mac: what the chain key says of 32 bytes; the key itself stays with the core."""

    def __init__(self, mac: Callable[[bytes], str]) -> None:
        self._mac = mac
        self.seq = 0
        self.prev = FIRST

    def resume(self, last_line: bytes) -> bool:
        """Go on after a line. Returns whether it was made with this chain's key; if not, a new chain begins.

        To go on after a forged line would vouch for it, since the next line's mac covers its hash."""
        try:
            stored = json.loads(last_line)["chain"]
            seq, mac = int(stored["seq"]), str(stored["mac"]).encode()
        except (ValueError, KeyError, TypeError):
            seq, mac = 0, b""
        head = last_line[: last_line.rfind(_MAC) + 1]
        expected = self._mac(hashlib.sha256(head).digest()).encode()
        if not hmac.compare_digest(mac, expected) or last_line != b'%b"mac":"%b"}}' % (head, mac):
            self.seq, self.prev = 0, FIRST
            return False
        self.seq = seq
        self.prev = hashlib.sha256(last_line).hexdigest()
        return True

    def line(self, entry: bytes) -> bytes:
        """The line of an entry, without a newline. `advance` when it is written."""
        assert entry.endswith(b"}")
        head = b'%b,"chain":{"seq":%d,"prev":"%b"' % (entry[:-1], self.seq + 1, self.prev.encode())
        mac = self._mac(hashlib.sha256(head + b",").digest())
        return b'%b%b%b"}}' % (head, _MAC, mac.encode())

    def advance(self, line: bytes) -> None:
        """The line was written: the next one follows it."""
        self.seq += 1
        self.prev = hashlib.sha256(line).hexdigest()

    def __repr__(self) -> str:
        return f"<Chain seq={self.seq}>"


def chain_mac(key: bytes) -> Callable[[bytes], str]:
    """The `mac` of a Chain under a key."""
    return lambda digest: hmac.digest(key, digest, "sha256").hex()


class AuditSink(Protocol):
    """An open device."""

    async def write(self, entry: bytes) -> None:
        """Keep one entry, a JSON object on one line, as the next line of the chain. Returns when it is kept as the
        device promises, or raises; after an error the device goes on as if the entry had never been given. May be
        cancelled; the entry may be kept all the same."""
        ...

    async def close(self) -> None:
        """Let go of what is open. Entries under way are finished or fail."""
        ...


class AuditDeviceType(Protocol):
    """A kind of audit device: one file in `audit_devices/` and a line in the registry."""

    @property
    def type(self) -> str:
        """The name used to enable it, e.g. "file"."""
        ...

    @property
    def options(self) -> Mapping[str, str]:
        """Accepted options and their help."""
        ...

    def check(self, options: Mapping[str, str]) -> None:
        """Raise InvalidArgument, naming the option, when no device can be made of the options. Opens nothing."""
        ...

    async def open(self, options: Mapping[str, str], chain: Chain, *, node_id: str) -> AuditSink:
        """Open a device. Raises OSError or FailedPrecondition when it cannot be used on this node."""
        ...
