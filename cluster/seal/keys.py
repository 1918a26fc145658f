"""What an unsealed node holds: the root key, the keyring and the barrier made of them. Nothing here is ever printed.

The root key stays while the node is unsealed, since a keyring that is rotated on another node arrives wrapped under it.

What Python can promise about memory: after `close` no object here refers to a key, and CPython frees what nothing
refers to at once. It does not overwrite freed memory, `bytes` cannot be overwritten in place, and the cryptography
library copies keys into contexts of its own. So traces may remain until the memory is used again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Never, TypeVar

from holdfast.cluster.seal.records import KEYRING_KEY
from holdfast.storage.barrier import Barrier
from holdfast.storage.batch import Precondition, Record
from holdfast.storage.keyring import Keyring

T = TypeVar("T")


class OpenKeys:
    """The keys of an unsealed node. `close` takes them from everyone who still has the barrier."""

    __slots__ = ("_root_key", "barrier")

    def __init__(self, root_key: bytes, barrier: Barrier) -> None:
        self.barrier = barrier
        self._root_key = root_key

    @classmethod
    def unwrap(
        cls,
        root_key: bytes,
        record: Record,
        random_bytes: Callable[[int], bytes],
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> OpenKeys:
        """The keys in the keyring's record. Raises Corruption when the root key does not open it."""
        keyring = Keyring.unwrap(record.value, root_key)
        return cls(root_key, Barrier(keyring, random_bytes, fence=_fence(record), refresh=refresh))

    def adopt(self, record: Record) -> None:
        """Go over to a newer keyring. Raises Corruption."""
        if _fence(record) != self.barrier.fence:
            self.barrier.adopt(Keyring.unwrap(record.value, self._root_key), _fence(record))

    def lend(self, use: Callable[[bytes], T]) -> T:
        """What `use` makes of the root key; it must not keep the key."""
        return use(self._root_key)

    def close(self) -> None:
        """Close the barrier and drop the root key."""
        self.barrier.close()
        self._root_key = b""

    def __repr__(self) -> str:
        return f"<OpenKeys {self.barrier!r}>"

    def __reduce__(self) -> Never:
        raise TypeError("keys are never copied or serialised")


def _fence(record: Record) -> Precondition:
    return Precondition(KEYRING_KEY, record.revision)
