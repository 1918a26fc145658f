"""The seal of a node against a model of a few lines, under every order of shares, mistakes, resets, seals, restarts."""

import asyncio
import base64
import hashlib

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.local_consensus import LocalConsensus
from support.seal_rig import BOOTSTRAP_PATH, BOOTSTRAP_VALUE, initialized, manager_of

from holdfast.cluster.seal.shares import decode
from holdfast.proto.errors import AlreadyInitialized, Sealed, ShareRejected, Uninitialized
from holdfast.storage.transaction import Transaction


class SealMachine(RuleBasedStateMachine):
    """The model: whether there are keys, whether they are held, which shares were given and whether one is forged."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.restarts = 0
        self.texts: tuple[str, ...] = ()
        self.threshold = 0
        self.open = False
        self.given: dict[int, bool] = {}  # x -> genuine

    def teardown(self) -> None:
        self.runner.run(self.manager.close())
        self.runner.close()

    @initialize()
    def start(self) -> None:
        self.consensus = LocalConsensus()
        self.manager = self.runner.run(manager_of(self.consensus))

    @rule(count=st.integers(2, 6), data=st.data())
    def initialise(self, count: int, data: st.DataObject) -> None:
        threshold = data.draw(st.integers(2, count))
        try:
            shares = self.runner.run(initialized(self.manager, shares=count, threshold=threshold))
        except AlreadyInitialized:
            assert self.texts
        else:
            assert not self.texts
            self.texts, self.threshold = shares.texts, threshold

    @precondition(lambda self: bool(self.texts))
    @rule(data=st.data())
    def give_a_genuine_share(self, data: st.DataObject) -> None:
        self.give(data.draw(st.sampled_from(self.texts)), genuine=True)

    @precondition(lambda self: bool(self.texts))
    @rule(data=st.data())
    def give_a_forged_share(self, data: st.DataObject) -> None:
        share = decode(data.draw(st.sampled_from(self.texts)))
        core = bytearray(share.core)
        core[share.x] ^= 1  # another byte in each share: equal changes could cancel, for combining is linear
        body = share.set_id + bytes((share.threshold,)) + core
        checksum = hashlib.sha256(b"holdfast/seal/share/1" + body).digest()[:4]
        self.give("hfs1." + base64.urlsafe_b64encode(body + checksum).decode(), genuine=False)

    @rule(text=st.sampled_from(["", "hello", "hfs1.AAAA", "hfs1." + "A" * 56]))
    def give_rubbish(self, text: str) -> None:
        try:
            self.runner.run(self.manager.unseal(text))
        except Uninitialized:
            assert not self.texts
        except ShareRejected:
            assert self.texts
            assert not self.open
        else:
            assert self.open

    @rule()
    def reset(self) -> None:
        self.manager.reset_unseal()
        self.given.clear()

    @rule()
    def seal(self) -> None:
        self.manager.seal("told to")
        self.open = False
        self.given.clear()

    @rule()
    def restart(self) -> None:
        self.restarts += 1
        self.runner.run(self.manager.close())
        self.consensus = self.consensus.restarted()
        self.manager = self.runner.run(manager_of(self.consensus, seed=self.restarts))
        self.open = False
        self.given.clear()

    @invariant()
    def the_node_is_as_the_model_says(self) -> None:
        status = self.manager.status()
        assert status.initialized == self.manager.initialized == bool(self.texts)
        assert status.sealed == self.manager.sealed == (not self.open)
        assert self.consensus.eligible == self.open
        assert (status.progress, bool(status.nonce)) == (len(self.given), bool(self.given))
        assert (status.shares, status.threshold) == (len(self.texts), self.threshold)

    @invariant()
    def the_data_is_readable_exactly_when_the_node_is_open(self) -> None:
        try:
            barrier = self.manager.barrier
        except Uninitialized:
            assert not self.texts
        except Sealed:
            assert self.texts
            assert not self.open
        else:
            assert self.open
            stored = self.runner.run(Transaction(self.consensus, barrier).get(BOOTSTRAP_PATH))
            assert stored == BOOTSTRAP_VALUE

    def give(self, text: str, *, genuine: bool) -> None:
        x = decode(text).x
        try:
            self.runner.run(self.manager.unseal(text))
        except ShareRejected as error:
            kind = error.details["kind"]
            assert not self.open
            if kind == "repeated":
                assert x in self.given
            else:
                assert kind == "wrong_set"
                assert not all({**self.given, x: genuine}.values())
                assert len(self.given) == self.threshold - 1
                self.given.clear()
            return
        if self.open:
            return
        assert x not in self.given
        self.given[x] = genuine
        if len(self.given) == self.threshold:
            assert all(self.given.values()), "a forged share helped to open the node"
            self.open = True
            self.given.clear()


TestSealMachine = SealMachine.TestCase
TestSealMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
