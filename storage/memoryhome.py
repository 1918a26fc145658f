"""The in-memory twin of the RocksDB home, for tests and the simulation. A copy has two files, so that chunks cross a
boundary between files. `on_step` may raise, as a process dies: the home is then used again through `crash`.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.proto.errors import Corruption
from holdfast.storage.home import Files, Reception, digest_of_names
from holdfast.storage.memory import MemoryStore


class MemoryHome:
    """A StateHome that forgets."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self._store = store or MemoryStore()
        self.on_step: Callable[[str], None] = lambda _step: None
        self.installs = 0

    @property
    def store(self) -> MemoryStore:
        """See StateHome."""
        return self._store

    def prepare(self) -> None:
        """See StateHome."""

    def copy(self, purpose: str = "copy") -> MemoryCopy:  # noqa: ARG002 - copies have no place here
        """See StateHome."""
        encoded = b"".join(
            part for entry in self._store.scan(b"") for item in entry for part in (len(item).to_bytes(4, "big"), item)
        )
        return MemoryCopy(encoded)

    def receive(self, files: Files) -> MemoryReception:
        """See StateHome."""
        return MemoryReception(files)

    def stage(self) -> MemoryStaging:
        """See StateHome."""
        return MemoryStaging(())

    def install(self, reception: Reception) -> None:
        """See StateHome. The two renames of the RocksDB home are one step here."""
        assert isinstance(reception, MemoryReception), "a home installs what it received"
        self.on_step("before")
        self._store.close()
        self._store = reception.open()
        self.installs += 1
        self.on_step("after")

    def tidy(self) -> None:
        """See StateHome."""

    def close(self) -> None:
        """See StateHome."""
        self._store.close()

    def crash(self, *, unsynced_kept: int = 0) -> MemoryHome:
        """The home after a loss of power."""
        return MemoryHome(self._store.crash(unsynced_kept=unsynced_kept))


class MemoryCopy:
    """A StateCopy in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def files(self) -> Files:
        """See StateCopy."""
        half = len(self._data) // 2
        return (("empty", 0), ("first", half), ("second", len(self._data) - half))

    def read(self, offset: int, size: int) -> bytes:
        """See StateCopy."""
        return self._data[offset : offset + size]

    def open(self) -> MemoryStore:
        """See StateCopy."""
        return _decode(self._data)

    def discard(self) -> None:
        """See StateCopy."""


class MemoryReception:
    """A Reception in memory."""

    def __init__(self, files: Files) -> None:
        self._digest = digest_of_names(files)
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        """See Reception."""
        self._digest.update(data)
        self._data += data

    def finish(self) -> bytes:
        """See Reception."""
        return self._digest.digest()

    def open(self) -> MemoryStore:
        """See Reception."""
        return _decode(bytes(self._data))

    def discard(self) -> None:
        """See Reception."""
        self._data.clear()


class MemoryStaging(MemoryReception):
    """A store that is filled in place."""

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._store = MemoryStore()

    def open(self) -> MemoryStore:
        """See Reception."""
        self._store = self._store.reopened()
        return self._store


def _decode(data: bytes) -> MemoryStore:
    items: list[bytes] = []
    offset = 0
    while offset < len(data):
        end = offset + 4 + int.from_bytes(data[offset : offset + 4], "big")
        items.append(bytes(data[offset + 4 : end]))
        offset = end
    if offset != len(data) or len(items) % 2:
        raise Corruption("the copy does not decode")
    store = MemoryStore()
    if items:
        store.write(list(zip(items[::2], items[1::2], strict=True)))
        store.sync()
    return store
