"""Rekey against a model, under every order of shares, mistakes, cancellations, crashes at each step, and rotations.

The model is who holds which shares. As long as new shares are verified, people always hold the set that is in force,
and no other set opens the cluster.
"""

import asyncio

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.crashing_consensus import Crash, CrashingConsensus
from support.seal_rig import BOOTSTRAP_PATH, BOOTSTRAP_VALUE, initialized, manager_of, stream, unsealed

from holdfast.cluster.seal.records import SEAL_KEY, decode_config
from holdfast.cluster.seal.rekey import NewShares, Rekey
from holdfast.cluster.seal.rotation import rotate
from holdfast.cluster.seal.shamir import combine
from holdfast.cluster.seal.shares import decode
from holdfast.proto.errors import FailedPrecondition, InvalidArgument, ShareRejected
from holdfast.storage.transaction import Transaction

Texts = tuple[str, ...]


class RekeyMachine(RuleBasedStateMachine):
    """sets: every set that people were ever given, by its id. current: the one in force."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.lives = 0
        self.sets: dict[str, Texts] = {}
        self.current = ""
        self.waiting = ""  # a set that was handed out and waits for verification
        self.threshold = 0  # of the ceremony under way; 0: none
        self.given: set[int] = set()
        self.verified: set[int] = set()

    @initialize(count=st.integers(2, 4), data=st.data())
    def start(self, count: int, data: st.DataObject) -> None:
        self.consensus = CrashingConsensus()
        self.manager = self.runner.run(manager_of(self.consensus))
        shares = self.runner.run(
            initialized(self.manager, shares=count, threshold=data.draw(st.integers(2, count), label="threshold"))
        )
        self.current = shares.set_id.hex()
        self.sets[self.current] = shares.texts
        self.runner.run(unsealed(self.manager, shares))
        self.rekey = Rekey(self.consensus, self.manager, random_bytes=stream("rekey 0"))

    def teardown(self) -> None:
        self.runner.run(self.manager.close())
        self.runner.close()

    @rule(count=st.integers(2, 4), data=st.data())
    def begin(self, count: int, data: st.DataObject) -> None:
        self.begin_with(count, data.draw(st.integers(2, count)))

    def begin_with(self, count: int, threshold: int) -> None:
        was = self.threshold

        async def init() -> None:
            await self.rekey.init(shares=count, threshold=threshold, verify=True, recipients=None)

        try:
            outcome = self.survives(init)
        except FailedPrecondition:
            assert was
            return
        assert not was
        if outcome is not Crash:
            self.threshold = threshold
        else:
            self.look()

    @precondition(lambda self: self.threshold)
    @rule(data=st.data())
    def give_a_share_in_force(self, data: st.DataObject) -> None:
        self.give(data.draw(st.sampled_from(self.sets[self.current])))

    @precondition(lambda self: self.threshold and len(self.sets) > 1)
    @rule(data=st.data())
    def give_a_share_of_another_set(self, data: st.DataObject) -> None:
        other = data.draw(st.sampled_from(sorted(set(self.sets) - {self.current})))
        self.give(data.draw(st.sampled_from(self.sets[other])), foreign=True)

    def give(self, text: str, *, foreign: bool = False) -> None:
        nonce = self.runner.run(self.rekey.status()).nonce
        share = decode(text)
        last = not foreign and len(self.given | {share.x}) == self.needed()
        try:
            outcome = self.survives(lambda: self.rekey.give(nonce, text))
        except FailedPrecondition:  # ShareRejected is one
            assert self.waiting or foreign or share.x in self.given
            return
        assert not foreign
        assert not self.waiting
        if outcome is Crash:
            self.look()
        elif last:
            assert isinstance(outcome, NewShares)
            assert outcome.in_force == "pending"
            assert len(outcome.texts) >= outcome.threshold == self.threshold
            self.waiting = outcome.set_id
            self.sets[self.waiting] = outcome.texts
            self.given.clear()
        else:
            self.given.add(share.x)
            assert outcome.progress == len(self.given)

    @rule(steps=st.integers(1, 8), die_in=st.sampled_from([None, None, 0, 1, 2]), after=st.booleans())
    def go_on_as_people_mean_to(self, steps: int, die_in: int | None, after: bool) -> None:
        """Begin when nothing is under way, and give shares that were not given; dying on the way or not."""
        if die_in is not None:
            self.consensus.crash_in, self.consensus.crash_after = die_in, after
        for _ in range(steps):
            if not self.threshold:
                self.begin_with(3, 2)
            elif not self.waiting:
                self.give(next(t for t in self.sets[self.current] if decode(t).x not in self.given))
            elif self.waiting in self.sets:
                self.verify(next(t for t in self.sets[self.waiting] if decode(t).x not in self.verified))

    @precondition(lambda self: self.waiting in self.sets)
    @rule(data=st.data())
    def verify_a_new_share(self, data: st.DataObject) -> None:
        self.verify(data.draw(st.sampled_from(self.sets[self.waiting])))

    def verify(self, text: str) -> None:
        share = decode(text)
        nonce = self.runner.run(self.rekey.status()).verification_nonce
        last = len(self.verified | {share.x}) == self.threshold
        try:
            outcome = self.survives(lambda: self.rekey.verify(nonce, text))
        except ShareRejected:
            assert share.x in self.verified
            return
        if outcome is Crash:
            assert last, "giving a share that is not the last one proposes nothing"
            config = decode_config(self.consensus.records[SEAL_KEY].value)
            assert config.set_id.hex() in (self.current, self.waiting)
            self.current = config.set_id.hex()
            self.look()
        elif last:
            assert outcome.complete
            event("new shares in force")
            self.current, self.waiting, self.threshold = self.waiting, "", 0
            self.verified.clear()
        else:
            self.verified.add(share.x)
            assert outcome.verification_progress == len(self.verified)

    @rule()
    def cancel(self) -> None:
        try:
            outcome = self.survives(self.rekey.cancel)
        except FailedPrecondition:
            assert not self.threshold
            return
        if outcome is Crash:
            self.look()
            return
        self.threshold, self.waiting = 0, ""
        self.given.clear()
        self.verified.clear()

    @precondition(lambda self: self.waiting)
    @rule()
    def restart_the_verification(self) -> None:
        if self.survives(self.rekey.restart_verification) is Crash:
            self.look()
        self.verified.clear()

    @rule()
    def a_nonce_of_another_ceremony_is_refused(self) -> None:
        text = self.sets[self.current][0]
        for give in (self.rekey.give, self.rekey.verify):
            try:
                self.runner.run(give("0" * 32, text))
                raise AssertionError("taken under a wrong nonce")
            except (InvalidArgument, FailedPrecondition):
                pass

    @rule()
    def rotate_the_keyring(self) -> None:
        async def turn() -> None:
            await rotate(self.consensus, self.manager, random_bytes=stream(f"rotation {self.lives}"), now_ms=1)

        if self.survives(turn) is Crash:
            self.look()

    @rule(after=st.booleans())
    def die_at_the_next_proposal(self, after: bool) -> None:
        self.consensus.crash_in, self.consensus.crash_after = 0, after

    @rule()
    def restart(self) -> None:
        self.reborn()
        self.look()

    def survives(self, work):
        """What the work gives, or Crash when the process died of it and was started again."""

        async def run():
            try:
                return await work()
            except Crash:
                return Crash

        outcome = self.runner.run(run())
        if outcome is Crash:
            event(f"died, after the proposal: {self.consensus.crash_after}")
            self.reborn()
        return outcome

    def reborn(self) -> None:
        """Start the process again; people unseal it with the shares that the seal names."""
        self.lives += 1
        self.consensus.stopped = False
        self.runner.run(self.manager.close())
        self.consensus = self.consensus.restarted()
        self.manager = self.runner.run(manager_of(self.consensus, seed=f"life {self.lives}"))
        self.given.clear()
        self.verified.clear()
        config = decode_config(self.consensus.records[SEAL_KEY].value)
        held = self.sets[config.set_id.hex()]  # KeyError: a set is in force that nobody was given
        for text in held[: config.threshold]:
            self.runner.run(self.manager.unseal(text))
        assert not self.manager.sealed
        self.rekey = Rekey(self.consensus, self.manager, random_bytes=stream(f"rekey {self.lives}"))

    def look(self) -> None:
        """After a crash: what of it took effect is what the status says."""
        status = self.runner.run(self.rekey.status())
        assert status.set_id in self.sets
        self.current = status.set_id
        self.threshold = status.threshold if status.nonce else 0
        if not status.verification_nonce:
            self.waiting = ""
        elif not self.waiting:
            self.waiting = "made, and lost with the answer"

    def needed(self) -> int:
        return decode(self.sets[self.current][0]).threshold

    @invariant()
    def the_shares_in_force_and_no_others_open_the_seal(self) -> None:
        if not self.sets:
            return
        config = decode_config(self.consensus.records[SEAL_KEY].value)
        for set_id, texts in self.sets.items():
            key = combine([decode(text).core for text in texts[: decode(texts[0]).threshold]])
            try:
                config.unwrap(key)
                assert set_id == self.current
            except ShareRejected:
                assert set_id != self.current

    @invariant()
    def everything_stored_is_readable_and_no_share_is_stored(self) -> None:
        if not self.sets:
            return
        assert self.runner.run(Transaction(self.consensus, self.manager.barrier).get(BOOTSTRAP_PATH)) == BOOTSTRAP_VALUE
        everything = b"".join(record.value for record in self.consensus.records.values())
        for texts in self.sets.values():
            for text in texts:
                assert text.encode() not in everything
                assert decode(text).core[:-1] not in everything

    @invariant()
    def progress_is_what_the_model_says(self) -> None:
        if not self.sets:
            return
        status = self.runner.run(self.rekey.status())
        assert (status.progress, status.verification_progress) == (len(self.given), len(self.verified))
        assert bool(status.nonce) == bool(self.threshold)
        assert status.set_id == self.current


RekeyMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestRekey = RekeyMachine.TestCase
