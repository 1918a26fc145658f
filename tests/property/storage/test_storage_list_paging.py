"""Listing page by page against a model that reads everything."""

import asyncio
import os

from hypothesis import given, settings
from hypothesis import strategies as st
from support.storage_reader import StoreReader

from holdfast.storage.barrier import Barrier
from holdfast.storage.keyring import Keyring
from holdfast.storage.memory import MemoryStore
from holdfast.storage.transaction import Transaction

SEGMENTS = st.sampled_from(["a", "b", "c", "longer name", "\u00e9", "0123456789abcdef"])
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join)


def naive(paths: set[str], folder: str) -> set[str]:
    below = folder + "/" if folder else ""
    rests = [path[len(below) :] for path in paths if path.startswith(below)]
    return {rest.partition("/")[0] + ("/" if "/" in rest else "") for rest in rests if rest}


async def pages(transaction: Transaction, folder: str, limit: int) -> list[list[str]]:
    view, found, after = transaction.view("shared/mount"), [], ""
    while page := list(await view.list(folder, after=after, limit=limit)):
        found.append(page)
        after = page[-1]
    return found


@settings(deadline=None, max_examples=200)
@given(paths=st.sets(PATHS, max_size=25), gone=st.sets(PATHS, max_size=5), limit=st.integers(1, 6), data=st.data())
def test_pages_hold_each_name_once_and_a_pair_together(
    paths: set[str], gone: set[str], limit: int, data: st.DataObject
) -> None:
    reader, barrier = StoreReader(MemoryStore()), Barrier(Keyring.generate(os.urandom), os.urandom)
    transaction = Transaction(reader, barrier)
    for path in paths:
        transaction.put(f"shared/mount/{path}", b"v")
        transaction.put(f"shared/other/{path}", b"v")
    reader.apply(transaction.batch())
    transaction = Transaction(reader, barrier)
    for path in gone:
        transaction.delete(f"shared/mount/{path}")
    reader.apply(transaction.batch())

    folder = data.draw(st.sampled_from(["", *sorted(paths)]))
    found = asyncio.run(pages(Transaction(reader, barrier), folder, limit))
    names = [name for page in found for name in page]
    assert len(names) == len(set(names))
    assert set(names) == naive(paths - gone, folder)
    for page in found:
        assert len(page) <= limit + 1
    for page in found[:-1]:
        assert len(page) >= limit
    for name in names:
        if name + "/" in names:
            assert any(name in page and name + "/" in page for page in found)
