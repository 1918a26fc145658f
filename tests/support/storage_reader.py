"""A reader over a store that applies batches as the state machine does, for tests of transactions."""

from holdfast.storage.batch import Batch, Record
from holdfast.storage.listing import Child, children
from holdfast.storage.store import Store

BASE = b"d"


class StoreReader:
    """Applies batches to a store and reads from it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.revision = 0

    async def get(self, key: bytes) -> Record | None:
        stored = self.store.get(BASE + key)
        return None if stored is None else Record(stored[8:], int.from_bytes(stored[:8], "big"))

    async def children(self, prefix: bytes, after: bytes, limit: int) -> list[Child]:
        return children(self.store, BASE, prefix, after, limit)

    def apply(self, batch: Batch) -> None:
        self.revision += 1
        stamp = self.revision.to_bytes(8, "big")
        self.store.write([(BASE + put.key, stamp + put.value) for put in batch.puts], [BASE + k for k in batch.deletes])
