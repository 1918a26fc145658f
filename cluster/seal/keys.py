"""What an unsealed node holds: the root key, the keyring and the barrier made of them. Nothing here is ever printed.

The root key stays while the node is unsealed, since a keyring that is rotated on another node arrives wrapped under it.

What Python can promise about memory: after `close` no object here refers to a key, and CPython frees what nothing
refers to at once. It does not overwrite freed memory, `bytes` cannot be overwritten in place, and the cryptography
library copies keys into contexts of its own. So traces may remain until the memory is used again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Never, TypeVar

from holdfast.storage.barrier import Barrier
from holdfast.storage.batch import Record
from holdfast.storage.keyring import Keyring

_RETIRED_MAX = 4

T = TypeVar("T")


class OpenKeys:
    """The keys of an unsealed node. `close` takes them from everyone who still has a barrier of them."""

    __slots__ = ("_keyring_revision", "_retired", "_root_key", "barrier")

    def __init__(self, root_key: bytes, keyring: Keyring, revision: int, random_bytes: Callable[[int], bytes]) -> None:
        self.barrier = Barrier(keyring, random_bytes)
        self._root_key = root_key
        self._keyring_revision = revision
        self._retired: list[Barrier] = []

    @classmethod
    def unwrap(cls, root_key: bytes, record: Record, random_bytes: Callable[[int], bytes]) -> OpenKeys:
        """The keys in the keyring's record. Raises Corruption when the root key does not open it."""
        return cls(root_key, Keyring.unwrap(record.value, root_key), record.revision, random_bytes)

    def adopt(self, record: Record, random_bytes: Callable[[int], bytes]) -> None:
        """Go over to a newer keyring. A request under way may finish with the barrier it began with."""
        if record.revision == self._keyring_revision:
            return
        keyring = Keyring.unwrap(record.value, self._root_key)
        self._retired.append(self.barrier)
        if len(self._retired) > _RETIRED_MAX:
            self._retired.pop(0).close()
        self.barrier, self._keyring_revision = Barrier(keyring, random_bytes), record.revision

    def lend(self, use: Callable[[bytes], T]) -> T:
        """What `use` makes of the root key; it must not keep the key."""
        return use(self._root_key)

    def close(self) -> None:
        """Close every barrier and drop the root key."""
        for barrier in (self.barrier, *self._retired):
            barrier.close()
        self._retired.clear()
        self._root_key = b""

    def __repr__(self) -> str:
        return f"<OpenKeys {self.barrier!r}>"

    def __reduce__(self) -> Never:
        raise TypeError("keys are never copied or serialised")
