"""Rekey and the generation of a root token: what holders are told, lost outcomes, encrypted shares."""

import asyncio
import base64
from collections.abc import Awaitable, Callable

import pyrage
import pysequoia
import pytest
from support.local_consensus import Fault, LocalConsensus
from support.seal_rig import initialized, manager_of, stream, unsealed

from holdfast.cluster.raft.consensus import Applied, Role
from holdfast.cluster.seal import generate_root, rekey
from holdfast.cluster.seal.generate_root import GenerateRoot, make_otp
from holdfast.cluster.seal.recipients import Recipients, checked
from holdfast.cluster.seal.records import SEAL_KEY, decode_config
from holdfast.cluster.seal.rekey import NewShares, Rekey
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.shares import Shares, decode
from holdfast.proto.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotLeader,
    OutcomeUnknown,
    Sealed,
    ShareRejected,
    Unavailable,
    Unimplemented,
)
from holdfast.storage.transaction import Transaction

Scenario = Callable[[LocalConsensus, SealManager, Shares, Rekey], Awaitable[None]]

TOKEN = "hfs." + "T" * 43


def on_an_open_node(scenario: Scenario, *, wait_s: float = 60.0) -> None:
    async def run() -> None:
        consensus = LocalConsensus()
        manager = await manager_of(consensus)
        try:
            shares = await initialized(manager)
            await unsealed(manager, shares)
            made = Rekey(consensus, manager, random_bytes=stream("rekey"), wait_s=wait_s)
            await scenario(consensus, manager, shares, made)
        finally:
            await manager.close()

    asyncio.run(run())


async def give_all(ceremony: Rekey, shares: Shares) -> NewShares:
    status = await ceremony.status()
    for number, text in enumerate(shares.texts[: shares.threshold - 1], 1):
        step = await ceremony.give(status.nonce, text)
        assert isinstance(step, rekey.RekeyStatus)
        assert step.progress == number
    made = await ceremony.give(status.nonce, shares.texts[shares.threshold - 1])
    assert isinstance(made, NewShares)
    return made


def test_without_verification_the_new_shares_are_in_force_when_they_are_handed_out() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, ceremony: Rekey) -> None:
        await ceremony.init(shares=3, threshold=2, verify=False, recipients=None)
        made = await give_all(ceremony, shares)
        assert (made.in_force, len(made.texts), made.threshold) == ("yes", 3, 2)
        assert (await ceremony.status()).nonce == ""
        manager.seal("test")
        with pytest.raises(ShareRejected, match="from before a rekey") as refused:
            await manager.unseal(shares.texts[0])
        assert refused.value.details == {"kind": "other_set"}
        for text in made.texts[1:]:
            await manager.unseal(text)
        assert not manager.sealed

    on_an_open_node(scenario)


def test_until_the_new_shares_are_verified_the_old_ones_unseal() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, ceremony: Rekey) -> None:
        await ceremony.init(shares=3, threshold=2, verify=True, recipients=None)
        made = await give_all(ceremony, shares)
        assert made.in_force == "pending"
        manager.seal("test")
        await unsealed(manager, shares)
        with pytest.raises(FailedPrecondition, match="wait for verification"):
            await ceremony.give((await ceremony.status()).nonce, shares.texts[0])
        with pytest.raises(InvalidArgument, match="nonce"):
            await ceremony.verify((await ceremony.status()).nonce, made.texts[0])
        with pytest.raises(ShareRejected):
            await ceremony.verify(made.verification_nonce, shares.texts[0])
        await ceremony.verify(made.verification_nonce, made.texts[2])
        done = await ceremony.verify(made.verification_nonce, made.texts[0])
        assert (done.complete, done.set_id) == (True, made.set_id)
        assert decode_config(consensus.records[SEAL_KEY].value).set_id.hex() == made.set_id

    on_an_open_node(scenario)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("fault", [Fault.LOST_REPLY, Fault.LOST_PROPOSAL])
def test_an_outcome_that_was_lost_is_found_out_before_the_shares_are_handed_out(fault: Fault, verify: bool) -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, ceremony: Rekey) -> None:
        await ceremony.init(shares=1, threshold=1, verify=verify, recipients=None)
        consensus.fail_next(fault, fault, fault)
        made = await give_all(ceremony, shares)
        assert made.in_force == ("pending" if verify else "yes")
        in_force = decode_config(consensus.records[SEAL_KEY].value).set_id
        assert in_force.hex() == (shares.set_id.hex() if verify else made.set_id)

    on_an_open_node(scenario)


def test_shares_whose_outcome_stays_unknown_are_handed_out_and_said_to_be_so() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, ceremony: Rekey) -> None:
        await ceremony.init(shares=1, threshold=1, verify=False, recipients=None)
        consensus.fail_next(*[Fault.LATE] * 100)
        made = await give_all(ceremony, shares)
        assert made.in_force == "unknown"
        assert isinstance(consensus.deliver_late()[0], Applied)
        await manager.refresh()
        manager.seal("test")
        assert not (await manager.unseal(made.texts[0])).sealed

    on_an_open_node(scenario, wait_s=0.6)


def test_shares_that_could_not_be_answered_in_time_are_not_made() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, ceremony: Rekey) -> None:
        began = await ceremony.init(shares=1, threshold=1, verify=False, recipients=None)
        before = consensus.records[SEAL_KEY]
        for text in shares.texts[:2]:
            await ceremony.give(began.nonce, text, answer_by=0.0)
        with pytest.raises(Unavailable, match="nothing was made"):
            await ceremony.give(began.nonce, shares.texts[2], answer_by=0.0)
        assert consensus.records[SEAL_KEY] == before

    on_an_open_node(scenario)


def test_one_rekey_at_a_time_and_a_cancelled_one_leaves_nothing() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, ceremony: Rekey) -> None:
        before = set(consensus.records)
        began = await ceremony.init(shares=3, threshold=2, verify=True, recipients=None)
        with pytest.raises(FailedPrecondition, match=began.nonce):
            await ceremony.init(shares=3, threshold=2, verify=True, recipients=None)
        await ceremony.give(began.nonce, shares.texts[0])
        with pytest.raises(InvalidArgument, match="nonce"):
            await ceremony.cancel("00")
        await ceremony.cancel(began.nonce)
        assert set(consensus.records) == before
        for call in (ceremony.cancel(), ceremony.give(began.nonce, shares.texts[0])):
            with pytest.raises(FailedPrecondition, match="no rekey is under way"):
                await call
        again = await ceremony.init(shares=3, threshold=2, verify=True, recipients=None)
        assert (again.progress, again.nonce != began.nonce) == (0, True)

    on_an_open_node(scenario)


def test_new_shares_of_a_rekey_that_a_restore_brought_back_do_not_replace_a_later_set() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, ceremony: Rekey) -> None:
        await ceremony.init(shares=1, threshold=1, verify=True, recipients=None)
        void = await give_all(ceremony, shares)
        key = manager.barrier.physical(rekey.PATH)
        kept = consensus.records[key]
        await ceremony.cancel()
        await ceremony.init(shares=1, threshold=1, verify=False, recipients=None)
        later = await give_all(ceremony, shares)
        consensus.records[key] = kept
        with pytest.raises(FailedPrecondition, match="in force no more"):
            await ceremony.verify(void.verification_nonce, void.texts[0])
        await ceremony.cancel()
        assert (await ceremony.status()).set_id == later.set_id

    on_an_open_node(scenario)


def test_a_node_that_is_sealed_or_does_not_lead_takes_no_share() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, ceremony: Rekey) -> None:
        began = await ceremony.init(shares=3, threshold=2, verify=True, recipients=None)
        consensus.set_role(Role.FOLLOWER, leader_id="node-2")
        with pytest.raises(NotLeader):
            await ceremony.give(began.nonce, shares.texts[0])
        consensus.set_role(Role.LEADER)
        manager.seal("test")
        with pytest.raises(Sealed):
            await ceremony.give(began.nonce, shares.texts[0])

    on_an_open_node(scenario)


def test_another_way_to_the_root_key_makes_new_shares_and_a_wrong_key_none() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, ceremony: Rekey) -> None:
        began = await ceremony.init(shares=1, threshold=1, verify=False, recipients=None)
        with pytest.raises(FailedPrecondition, match="not this cluster's root key"):
            await ceremony.recover(began.nonce, bytes(32))
        made = await ceremony.recover(began.nonce, manager.with_root_key(bytes))
        manager.seal("test")
        assert not (await manager.unseal(made.texts[0])).sealed

    on_an_open_node(scenario)


def test_shares_encrypted_to_openpgp_keys_are_read_by_their_holders_alone() -> None:
    holders = [pysequoia.Tsk.generate(user_id=f"holder {n} <holder{n}@example.org>") for n in range(2)]

    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, ceremony: Rekey) -> None:
        armored, other = (str(holder.extract_certificate()) for holder in holders)
        keys = [armored, base64.b64encode(bytes(holders[1].extract_certificate())).decode()]
        assert other.startswith("-----BEGIN PGP")
        recipients = checked("pgp", keys, 2)
        began = await ceremony.init(shares=2, threshold=2, verify=True, recipients=recipients)
        assert began.fingerprints == recipients.fingerprints()
        made = await give_all(ceremony, shares)
        plain = [
            pysequoia.decrypt(decryptor=holder.decryptor(), bytes=text.encode()).bytes.decode()
            for holder, text in zip(holders, made.texts, strict=True)
        ]
        for text in plain:
            done = await ceremony.verify(made.verification_nonce, text)
        assert done.complete

    on_an_open_node(scenario)


def test_shares_encrypted_to_age_recipients_are_read_by_their_holders() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, ceremony: Rekey) -> None:
        identities = [pyrage.x25519.Identity.generate() for _ in range(3)]
        recipients = checked("age", [str(identity.to_public()) for identity in identities], 3)
        await ceremony.init(shares=3, threshold=2, verify=False, recipients=recipients)
        made = await give_all(ceremony, shares)
        assert made.fingerprints == recipients.keys
        for identity, text in zip(identities, made.texts, strict=True):
            assert decode(pyrage.decrypt(text.encode(), [identity]).decode()).set_id.hex() == made.set_id

    on_an_open_node(scenario)


@pytest.mark.parametrize(
    ("kind", "keys", "problem"),
    [
        ("pgp", ["x"], "cannot be read"),
        ("pgp", ["-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nzz"], "cannot be read"),
        ("age", ["age1nonsense"], "cannot be used"),
        ("age", ["ssh-ed25519 nonsense"], "cannot be used"),
        ("age", [], "1 keys are needed"),
        ("pgp", [""], "characters"),
    ],
)
def test_keys_that_cannot_be_used_are_refused_before_anything_begins(kind: str, keys: list[str], problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem) as refused:
        checked(kind, keys, 1)
    assert refused.value.field == ("pgp_keys" if kind == "pgp" else "age_recipients")
    assert "backtrace" not in refused.value.message


def test_a_node_without_the_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyrage", None)
    with pytest.raises(Unimplemented, match=r"holdfast\[age\]"):
        checked("age", ["age1x"], 1)


# --- a root token


def root_of(consensus: LocalConsensus, manager: SealManager, *, wait_s: float = 60.0) -> GenerateRoot:
    async def make_token(transaction: Transaction) -> str:
        transaction.put("local/token/test", b"entry")
        return TOKEN

    return GenerateRoot(
        consensus,
        manager,
        make_token=make_token,
        token_chars=len(TOKEN),
        random_bytes=stream("root"),
        wait_s=wait_s,
    )


def token_in(encoded: str, otp: str) -> str:
    mixed = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    return bytes(a ^ b for a, b in zip(mixed, otp.encode(), strict=True)).decode()


@pytest.mark.parametrize("own", [True, False])
def test_a_threshold_of_shares_makes_a_root_token_for_whoever_has_the_otp(own: bool) -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, _: Rekey) -> None:
        ceremony = root_of(consensus, manager)
        otp = make_otp(stream("otp"), len(TOKEN)) if own else ""
        began = await ceremony.init(otp=otp, recipients=None)
        assert bool(began.otp) is not own
        otp = otp or began.otp
        for text in shares.texts[:2]:
            step = await ceremony.give(began.nonce, text)
            assert (step.complete, step.encoded, step.otp) == (False, "", "")
            assert await Transaction(consensus, manager.barrier).get("local/token/test") is None
        done = await ceremony.give(began.nonce, shares.texts[4])
        assert token_in(done.encoded, otp) == TOKEN
        assert await Transaction(consensus, manager.barrier).get("local/token/test") == b"entry"
        assert (await ceremony.status()).nonce == ""
        with pytest.raises(FailedPrecondition, match="no root token generation"):
            await ceremony.give(began.nonce, shares.texts[4])

    on_an_open_node(scenario)


def test_a_generation_goes_on_under_the_next_leader_and_its_shares_are_given_again() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, _: Rekey) -> None:
        first = root_of(consensus, manager)
        began = await first.init(otp="", recipients=None)
        await first.give(began.nonce, shares.texts[0])
        second = root_of(consensus, manager)
        assert await second.status() == generate_root.RootStatus(required=3, nonce=began.nonce, progress=0)
        for text in shares.texts[1:4]:
            done = await second.give(began.nonce, text)
        assert token_in(done.encoded, began.otp) == TOKEN

    on_an_open_node(scenario)


def test_forged_shares_make_no_token() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, _: Rekey) -> None:
        ceremony = root_of(consensus, manager)
        began = await ceremony.init(otp="", recipients=None)
        forged = decode(shares.texts[0])
        core = bytes((forged.core[0] ^ 1,)) + forged.core[1:]
        text = type(forged)(set_id=forged.set_id, threshold=forged.threshold, core=core).encode()
        await ceremony.give(began.nonce, text)
        await ceremony.give(began.nonce, shares.texts[1])
        with pytest.raises(ShareRejected) as refused:
            await ceremony.give(began.nonce, shares.texts[2])
        assert refused.value.details == {"kind": "wrong_set"}
        assert await Transaction(consensus, manager.barrier).get("local/token/test") is None
        assert (await ceremony.status()).progress == 0

    on_an_open_node(scenario)


def test_a_token_whose_outcome_is_unknown_is_not_shown() -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, _: Rekey) -> None:
        ceremony = root_of(consensus, manager, wait_s=0.6)
        began = await ceremony.init(otp="", recipients=None)
        for text in shares.texts[:2]:
            await ceremony.give(began.nonce, text)
        consensus.fail_next(*[Fault.LATE] * 100)
        with pytest.raises(OutcomeUnknown):
            await ceremony.give(began.nonce, shares.texts[2])

    on_an_open_node(scenario)


@pytest.mark.parametrize("otp", ["short", "é" * 47, "\n" * 47])
def test_an_otp_of_another_form_is_refused(otp: str) -> None:
    async def scenario(consensus: LocalConsensus, manager: SealManager, shares: Shares, _: Rekey) -> None:
        with pytest.raises(InvalidArgument, match="OTP"):
            await root_of(consensus, manager).init(otp=otp, recipients=None)

    on_an_open_node(scenario)


def test_otps_use_every_character_of_their_alphabet_about_equally() -> None:
    drawn = make_otp(stream("alphabet"), 62 * 200)
    counts = {character: drawn.count(character) for character in generate_root.OTP_ALPHABET}
    assert min(counts.values()) > 120
    assert max(counts.values()) < 280


def test_nothing_of_a_ceremony_prints_a_secret() -> None:
    shown = [
        NewShares(texts=("hfs1.secret",), set_id="00", threshold=1, in_force="yes"),
        generate_root.RootStatus(required=1, otp="secret", encoded="secret"),
        generate_root.RootRecord(nonce="", otp="secret"),
        rekey.RekeyRecord(nonce="", shares=1, threshold=1, verify=True, recipients=Recipients("age", ("k",))),
    ]
    assert not [thing for thing in shown if "secret" in repr(thing)]
