"""Adding, removing, opening and renewing wraps: what is stored, and that nothing is where something is wrong."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from support.local_consensus import LocalConsensus
from support.providers import Vaults, entries, spec
from support.seal_rig import Clock, initialized, manager_of, stream, unsealed

from holdfast.cluster.seal.providers import envelope, records
from holdfast.cluster.seal.providers.contract import Health, ProviderError
from holdfast.cluster.seal.providers.records import PROVIDERS_KEY, PROVIDERS_MAX, ProviderList, ProviderRecord
from holdfast.cluster.seal.providers.wraps import ProviderWraps, Spec
from holdfast.cluster.seal.records import KEYRING_KEY
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.shares import Shares
from holdfast.proto.errors import (
    AlreadyExists,
    Conflict,
    Corruption,
    FailedPrecondition,
    HoldfastError,
    InvalidArgument,
    NotFound,
    Sealed,
)
from holdfast.storage.batch import Batch, Put, Record

T_S = 5.0


class Rig:
    """One unsealed node, and wraps over it. entries: its credentials."""

    seal: SealManager
    shares: Shares
    wraps: ProviderWraps

    def __init__(self, vaults: Vaults) -> None:
        self.consensus = LocalConsensus()
        self.vaults = vaults
        self.entries = entries("a", "b")

    async def load(self) -> None:
        self.seal = await manager_of(self.consensus)
        self.shares = await initialized(self.seal)
        await unsealed(self.seal, self.shares)
        self.wraps = self.more_wraps(self.seal)

    def more_wraps(self, seal: SealManager) -> ProviderWraps:
        return ProviderWraps(
            seal, self.consensus, node_id="node-1", credentials=lambda name: self.entries.get(name),
            wall_clock=Clock(), random_bytes=stream("wraps"), calls=self.vaults,
        )  # fmt: skip

    @property
    def root_key(self) -> bytes:
        return self.seal.with_root_key(bytes)

    async def add(self, name: str, priority: int = 1) -> ProviderRecord:
        return await self.wraps.add(spec(name, priority), timeout_s=T_S)

    async def refused(self, what: Awaitable[object], error: type[HoldfastError]) -> HoldfastError:
        before = dict(self.consensus.records)
        with pytest.raises(error) as caught:
            await what
        assert self.consensus.records == before, "something was changed"
        return caught.value


def on_rig(story: Callable[[Rig], Awaitable[None]]) -> None:
    async def run() -> None:
        rig = Rig(Vaults())
        await rig.load()
        try:
            await story(rig)
        finally:
            await rig.seal.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_an_added_provider_was_seen_to_unwrap_and_opens_the_cluster() -> None:
    async def story(rig: Rig) -> None:
        record = await rig.add("a")
        assert rig.vaults["a"].calls == ["wrap", "unwrap"]
        assert (await rig.wraps.stored()).providers == (record,)
        assert await rig.wraps.recover(record) == rig.root_key
        await rig.wraps.check(record)
        stored = rig.consensus.records[PROVIDERS_KEY].value
        assert rig.root_key not in stored
        rig.seal.seal("test")
        await rig.seal.unseal_with_root_key(await rig.wraps.recover(record))
        assert not rig.seal.sealed

    on_rig(story)


def test_the_provider_is_never_given_the_root_key() -> None:
    async def story(rig: Rig) -> None:
        record = await rig.add("a")
        await rig.wraps.check(record)
        assert len(rig.vaults["a"].given) == 3
        assert rig.root_key not in rig.vaults["a"].given

    on_rig(story)


def test_a_provider_that_fails_or_does_not_give_back_is_not_stored() -> None:
    async def story(rig: Rig) -> None:
        vault = rig.vaults["a"]
        vault.failing = ProviderError(Health.REFUSED, "the token was revoked")
        error = await rig.refused(rig.add("a"), FailedPrecondition)
        assert error.details == {"health": "refused"}
        assert "the token was revoked" in error.message
        vault.failing = None
        vault.answering["unwrap"] = b"something else"
        assert (await rig.refused(rig.add("a"), FailedPrecondition)).details == {"health": "wrong_key"}
        for nothing in (b"", b"x" * 9000):
            vault.answering["wrap"] = nothing
            assert (await rig.refused(rig.add("a"), FailedPrecondition)).details == {"health": "failed"}

    on_rig(story)


def test_what_cannot_be_added_is_refused_before_anybody_is_asked() -> None:
    async def story(rig: Rig) -> None:
        def bad(**changes: object) -> Awaitable[ProviderRecord]:
            given = {"name": "a", "type": "age", "priority": 1, "parameters": {}, **changes}
            return rig.wraps.add(Spec(**given), timeout_s=T_S)  # type: ignore[arg-type]

        for changes in (
            {"name": "shamir"}, {"name": "A"}, {"name": ""}, {"name": "x" * 33}, {"type": "gcp"}, {"priority": 0},
            {"priority": 1001}, {"parameters": {"more": "x"}},
        ):  # fmt: skip
            assert (await rig.refused(bad(**changes), InvalidArgument)).field
        assert (await rig.refused(rig.add("c"), FailedPrecondition)).details == {"health": "not_configured"}
        await rig.add("a")
        await rig.refused(rig.add("a"), AlreadyExists)
        rig.seal.seal("test")
        await rig.refused(rig.add("b"), Sealed)
        assert not rig.vaults["b"].calls

    on_rig(story)


def test_there_are_at_most_so_many() -> None:
    async def story(rig: Rig) -> None:
        names = [f"p{number}" for number in range(PROVIDERS_MAX + 1)]
        rig.entries = entries(*names)
        for name in names[:-1]:
            await rig.add(name)
        await rig.refused(rig.add(names[-1]), FailedPrecondition)

    on_rig(story)


def test_a_provider_is_removed_and_the_shamir_seal_never_is() -> None:
    async def story(rig: Rig) -> None:
        await rig.add("a")
        await rig.add("b", 2)
        await rig.refused(rig.wraps.remove("shamir", timeout_s=T_S), InvalidArgument)
        await rig.refused(rig.wraps.remove("c", timeout_s=T_S), NotFound)
        await rig.wraps.remove("a", timeout_s=T_S)
        left = await rig.wraps.stored()
        assert [record.name for record in left.providers] == ["b"]
        rig.wraps.keep(left)
        assert rig.vaults.kept == {"b"}
        rig.seal.seal("test")
        await unsealed(rig.seal, rig.shares)

    on_rig(story)


def test_a_change_of_keys_or_providers_in_between_is_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(rig: Rig) -> None:
        vault = rig.vaults["a"]
        for key in (PROVIDERS_KEY, KEYRING_KEY):
            value = records.encode(ProviderList()) if key == PROVIDERS_KEY else rig.consensus.records[key].value

            async def meddle(key: bytes = key, value: bytes = value) -> None:
                await rig.consensus.propose(Batch(puts=(Put(key, value),)), timeout_s=T_S)

            propose = rig.consensus.propose

            async def after_meddling(batch: Batch, *, timeout_s: float, propose=propose, meddle=meddle):  # type: ignore[no-untyped-def]
                monkeypatch.setattr(rig.consensus, "propose", propose)
                await meddle()
                return await propose(batch, timeout_s=timeout_s)

            monkeypatch.setattr(rig.consensus, "propose", after_meddling)
            with pytest.raises(Conflict):
                await rig.add("a")
            assert not (await rig.wraps.stored()).providers
        assert vault.calls.count("wrap") == 2

    on_rig(story)


def test_a_root_key_that_the_node_has_not_yet_taken_up_is_not_wrapped() -> None:
    async def story(rig: Rig) -> None:
        replaced = rig.consensus.records[KEYRING_KEY]
        record = Record(replaced.value[:-1] + bytes([replaced.value[-1] ^ 1]), replaced.revision)
        rig.consensus.records[KEYRING_KEY] = record
        await rig.refused(rig.add("a"), Conflict)

    on_rig(story)


def test_a_wrong_answer_is_a_wrong_key_and_never_the_end_of_a_node() -> None:
    async def story(rig: Rig) -> None:
        record = await rig.add("a")
        vault = rig.vaults["a"]
        for answer in (b"", b"\x00" * 32, b"\x00" * 4000):
            vault.answering["unwrap"] = answer
            with pytest.raises(ProviderError) as caught:
                await rig.wraps.check(record)
            assert caught.value.health is Health.WRONG_KEY

    on_rig(story)


def test_a_wrap_of_another_root_key_is_a_wrong_key() -> None:
    async def story(rig: Rig) -> None:
        await rig.add("a")
        renewal = await rig.wraps.renewed(b"another root key of 32 bytes....")
        await rig.consensus.propose(Batch(puts=renewal.puts, preconditions=renewal.preconditions), timeout_s=T_S)
        (record,) = (await rig.wraps.stored()).providers
        with pytest.raises(ProviderError) as caught:
            await rig.wraps.check(record)
        assert caught.value.health is Health.WRONG_KEY

    on_rig(story)


def test_a_renewal_makes_every_wrap_anew_in_one_batch() -> None:
    async def story(rig: Rig) -> None:
        none = await rig.wraps.renewed(b"n" * 32)
        assert none.puts == ()
        assert [check.revision for check in none.preconditions] == [0]
        before = [await rig.add("a"), await rig.add("b", 2)]
        renewal = await rig.wraps.renewed(b"n" * 32)
        (put,) = renewal.puts
        after = records.decode(put.value).providers
        for old, new in zip(before, after, strict=True):
            assert envelope.sealed_key(old.wrap) != envelope.sealed_key(new.wrap), "a new wrapping key"
            assert await rig.wraps.recover(new) == b"n" * 32
            assert new.priority == old.priority
        await rig.wraps.remove("a", timeout_s=T_S)
        stale = Batch(puts=renewal.puts, preconditions=renewal.preconditions)
        assert type(await rig.consensus.propose(stale, timeout_s=T_S)).__name__ == "Conflicted"
        rig.vaults["b"].failing = ProviderError(Health.UNREACHABLE, "down")
        error = await rig.refused(rig.wraps.renewed(b"n" * 32), FailedPrecondition)
        assert "b" in error.message

    on_rig(story)


def test_damage_is_corruption() -> None:
    async def story(rig: Rig) -> None:
        record = await rig.add("a")
        rig.consensus.records[PROVIDERS_KEY] = Record(b"\x01\xc1", 9)
        with pytest.raises(Corruption):
            await rig.wraps.stored()
        del rig.consensus.records[KEYRING_KEY]
        with pytest.raises(Corruption):
            await rig.wraps.check(record)

    on_rig(story)


def test_a_provider_is_opened_anew_when_this_node_s_credentials_changed_their_type() -> None:
    async def story(rig: Rig) -> None:
        record = await rig.add("a")
        await rig.wraps.check(record)
        rig.entries = {}
        with pytest.raises(ProviderError) as caught:
            await rig.wraps.recover(record)
        assert caught.value.health is Health.NOT_CONFIGURED
        from holdfast.cluster.seal.providers.credentials import AwsKmsCredentials

        rig.entries = {"a": AwsKmsCredentials()}
        with pytest.raises(ProviderError) as caught:
            await rig.wraps.recover(record)
        assert caught.value.health is Health.MISCONFIGURED

    on_rig(story)


def test_a_wrap_that_was_carried_over_from_another_cluster_opens_nothing_here() -> None:
    async def story(rig: Rig) -> None:
        foreign = Rig(rig.vaults)
        foreign.seal = await manager_of(foreign.consensus, seed="another cluster")
        foreign.shares = await initialized(foreign.seal)
        await unsealed(foreign.seal, foreign.shares)
        foreign.wraps = foreign.more_wraps(foreign.seal)
        record = await foreign.add("a")
        await foreign.wraps.check(record)
        with pytest.raises(ProviderError) as caught:
            await rig.wraps.recover(record)
        assert caught.value.health is Health.WRONG_KEY
        await foreign.seal.close()

    on_rig(story)
