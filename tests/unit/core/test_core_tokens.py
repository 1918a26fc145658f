"""Tokens: what is stored, what is recognised, and that every refusal looks the same."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from support.core_node import CoreNode

from holdfast.core import tokens
from holdfast.core.tokens import TokenEntry
from holdfast.proto.errors import Corruption, PermissionDenied, Unauthenticated
from holdfast.storage.transaction import Transaction

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)


class Store:
    """A StorageView of one dict that counts its reads."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.reads: list[str] = []

    async def get(self, path: str) -> bytes | None:
        self.reads.append(path)
        return self.records.get(path)

    def put(self, path: str, value: bytes) -> None:
        self.records[path] = value

    def delete(self, path: str) -> None:
        self.records.pop(path, None)

    async def list(self, path: str, *, after: str = "", limit: int = 1000) -> list[str]:
        raise NotImplementedError


def made() -> tuple[Store, str]:
    store = Store()
    tokens.create_salt(store, secrets.token_bytes)
    token = asyncio.run(tokens.create_root(store, now=NOW, random_bytes=secrets.token_bytes))
    return store, token


def test_a_root_token_is_recognised_and_does_not_expire() -> None:
    store, token = made()
    assert token.startswith("hfs.")
    assert len(token) == 4 + 43
    known = asyncio.run(tokens.lookup(store, token, now=NOW + timedelta(days=40_000)))
    entry = known.entry
    assert entry.policies == ("root",)
    assert (entry.type, entry.orphan, entry.expires, entry.num_uses) == ("service", True, None, 0)
    assert asyncio.run(tokens.named(store, entry.accessor, now=NOW)) == known
    assert asyncio.run(tokens.named(store, "unknown", now=NOW)) is None


def test_nothing_stored_holds_the_token_or_leads_to_it_without_the_salt() -> None:
    store, token = made()
    for path, record in store.records.items():
        assert token not in path
        assert token.encode() not in record
        assert token[4:].encode() not in record


def test_every_unknown_token_is_refused_alike_and_after_the_same_reads() -> None:
    store, token = made()
    expired = TokenEntry(accessor="a", policies=("root",), created=NOW - timedelta(hours=2), ttl_s=3600)
    store.put(next(p for p in store.records if p.startswith("id/")), msgspec.msgpack.encode(expired))
    messages, reads = set(), set()
    for wrong in ("", "x", "hfs.", token[:-1], token + "x", token.upper(), "\ud800", "y" * 100_000, token):
        store.reads.clear()
        with pytest.raises(Unauthenticated) as refusal:
            asyncio.run(tokens.lookup(store, wrong, now=NOW))
        messages.add(str(refusal.value))
        reads.add(tuple(path.split("/")[0] for path in store.reads))
        assert refusal.value.__cause__ is None
    assert len(messages) == 1
    assert reads == {("salt", "id")}


def test_a_damaged_store_is_corruption_not_a_refusal() -> None:
    store, token = made()
    store.put(next(p for p in store.records if p.startswith("id/")), b"\xc1")
    with pytest.raises(Corruption):
        asyncio.run(tokens.lookup(store, token, now=NOW))
    store.delete("salt")
    with pytest.raises(Corruption):
        asyncio.run(tokens.lookup(store, token, now=NOW))


async def limited(node: CoreNode, policies: tuple[str, ...] = ("other",)) -> str:
    """A token with other policies than root, stored as the token store does."""
    txn = Transaction(node.consensus, node.barrier)
    entry = TokenEntry(accessor="acc", policies=policies, created=NOW)
    token = await tokens.create(txn.view(tokens.TOKENS_PREFIX), entry, secrets.token_bytes)
    await node.consensus.propose(txn.batch(), timeout_s=1)
    return token


def test_whoever_has_not_the_root_policy_may_do_nothing() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        token = await limited(node)
        for operation, path in (("read", "secret/data/x"), ("update", "secret/data/x"), ("read", "sys/mounts")):
            with pytest.raises(PermissionDenied):
                await node.ask(operation, path, token=token)
            with pytest.raises(Unauthenticated):
                await node.ask(operation, path, token="")
        with pytest.raises(PermissionDenied):
            await node.core.authorize(node.request("update", "sys/seal", token=token))

    asyncio.run(main())


def test_who_has_no_token_learns_nothing_of_the_mounts() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        for path in ("secret/data/x", "secret/nothing", "nothing/at/all", "sys/nothing"):
            for operation in ("read", "update", "list"):
                with pytest.raises(Unauthenticated):
                    await node.ask(operation, path, {"any": "member"}, token="hfs.unknown")

    asyncio.run(main())


def test_lookup_self_tells_what_is_stored_without_the_token() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        answer = await node.ask("read", "auth/token/lookup-self")
        assert answer["policies"] == ["root"]
        assert answer["path"] == "auth/token/root"
        assert answer["ttl"] == 0
        assert answer["expire_time"] is None
        assert node.token not in str(answer)

    asyncio.run(main())


def test_sys_mounts_shows_the_first_mount() -> None:
    async def main() -> None:
        node = await CoreNode().bootstrap()
        answer = await node.ask("read", "sys/mounts")
        assert list(answer) == ["secret/", "sys/"]
        assert answer["secret/"]["type"] == "kv"
        assert answer["secret/"]["options"] == {"version": "2"}

    asyncio.run(main())
