"""Rotation, re-encryption and the dropping of terms against a dictionary, with crashes at every step.

Whatever happens, everything that was acknowledged is read back, and a term is dropped only when nothing is under it.
"""

import asyncio

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.crashing_consensus import Crash, CrashingConsensus
from support.local_consensus import Fault
from support.seal_rig import initialized, manager_of, stream, unsealed

from holdfast.cluster.raft.consensus import Applied, Conflicted
from holdfast.cluster.seal import key_policy
from holdfast.cluster.seal.keeper import KeyKeeper
from holdfast.cluster.seal.key_policy import KeyPolicy
from holdfast.cluster.seal.reencryption import load
from holdfast.cluster.seal.rotation import rotate
from holdfast.proto.errors import Conflict, HoldfastError
from holdfast.storage import envelope
from holdfast.storage.batch import Batch
from holdfast.storage.keys import CLEAR_SEGMENT_BYTES_MAX
from holdfast.storage.transaction import Transaction

BLOCK = 8
NAMES = st.sampled_from([f"{tree}/{name}" for tree in ("shared", "local") for name in "abcdefgh"])


class KeyTermsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.lives = 0
        self.values: dict[str, bytes] = {}
        self.kept_back: list[tuple[dict[str, bytes], Batch]] = []

    @initialize()
    def start(self) -> None:
        self.consensus = CrashingConsensus()
        self.manager = self.runner.run(manager_of(self.consensus))
        self.shares = self.runner.run(initialized(self.manager))
        self.runner.run(unsealed(self.manager, self.shares))
        self.begin()
        self.runner.run(self.set_policy(KeyPolicy(keep_terms=1)))

    def teardown(self) -> None:
        self.runner.run(self.manager.close())
        self.runner.close()

    def begin(self) -> None:
        self.keeper = KeyKeeper(
            self.consensus,
            self.manager,
            random_bytes=stream(f"keeper {self.lives}"),
            wall_clock=lambda: 1_800_000_000.0,
            on_fatal=lambda error: None,
            block=BLOCK,
        )

    async def set_policy(self, policy: KeyPolicy) -> None:
        transaction = Transaction(self.consensus, self.manager.barrier)
        key_policy.store(transaction, policy)
        assert isinstance(await self.consensus.propose(transaction.batch(), timeout_s=1), Applied)

    @rule(names=st.sets(NAMES, min_size=1, max_size=8), value=st.binary(max_size=20))
    def write(self, names: set[str], value: bytes) -> None:
        batch = self.prepare(names, value)
        assert isinstance(self.runner.run(self.consensus_of(batch)), Applied | type(Crash))

    async def consensus_of(self, batch: Batch):
        """Propose, whatever is armed: a write's own crash is not of interest here."""
        armed, self.consensus.crash_in = self.consensus.crash_in, None
        outcome = await self.consensus.propose(batch, timeout_s=1)
        self.consensus.crash_in = armed
        return outcome

    def prepare(self, names: set[str], value: bytes) -> Batch:
        transaction = Transaction(self.consensus, self.manager.barrier)
        for name in names:
            transaction.put(name, value)
            self.values[name] = value
        return transaction.batch()

    @rule(name=NAMES, value=st.binary(max_size=20))
    def keep_a_write_back(self, name: str, value: bytes) -> None:
        transaction = Transaction(self.consensus, self.manager.barrier)
        transaction.put(name, value)
        self.kept_back.append(({name: value}, transaction.batch()))

    @rule()
    def let_go_of_the_writes_that_were_kept_back(self) -> None:
        for values, batch in self.kept_back:
            if isinstance(outcome := self.runner.run(self.consensus_of(batch)), Applied):
                self.values |= values
            else:
                assert isinstance(outcome, Conflicted)
        self.kept_back.clear()

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        transaction = Transaction(self.consensus, self.manager.barrier)
        transaction.delete(name)
        self.runner.run(self.consensus_of(transaction.batch()))
        self.values.pop(name, None)

    @rule()
    def rotate_by_command(self) -> None:
        async def turn() -> None:
            await rotate(self.consensus, self.manager, random_bytes=stream(self.consensus.applied_index), now_ms=1)

        self.survives(turn)

    @rule(steps=st.integers(1, 12))
    def let_the_keeper_work(self, steps: int) -> None:
        for _ in range(steps):
            self.survives(self.keeper.step)

    @rule()
    def a_whole_turn_of_the_keys(self) -> None:
        self.rotate_by_command()
        self.let_the_keeper_work(8)
        self.time_passes(200_000)
        self.let_the_keeper_work(2)

    @rule(fault=st.sampled_from(list(Fault)))
    def something_befalls_the_keepers_next_proposal(self, fault: Fault) -> None:
        self.consensus.fail_next(fault)
        self.survives(self.keeper.step)
        self.consensus.faults.clear()
        self.consensus.deliver_late()

    @rule(milliseconds=st.sampled_from([1, 60_000, 200_000]))
    def time_passes(self, milliseconds: int) -> None:
        self.consensus.cluster_time_ms += milliseconds

    @rule(crash_in=st.integers(0, 3), after=st.booleans())
    def die_soon(self, crash_in: int, after: bool) -> None:
        self.consensus.crash_in, self.consensus.crash_after = crash_in, after

    @rule()
    def restart(self) -> None:
        self.reborn()

    def survives(self, work) -> None:
        async def run() -> bool:
            try:
                await work()
            except Crash:
                return False
            except (Conflict, HoldfastError):
                pass
            return True

        if not self.runner.run(run()):
            event("died")
            self.reborn()

    def reborn(self) -> None:
        self.lives += 1
        self.kept_back.clear()
        self.runner.run(self.manager.close())
        self.consensus.stopped = False
        self.consensus = self.consensus.restarted()
        self.manager = self.runner.run(manager_of(self.consensus, seed=f"life {self.lives}"))
        self.runner.run(unsealed(self.manager, self.shares))
        self.begin()

    def opened(self):
        barrier = self.manager.barrier
        for key, record in self.consensus.records.items():
            if key[:1] != b"c" or int.from_bytes(key[1:3], "big") > CLEAR_SEGMENT_BYTES_MAX:
                yield barrier, key, record

    @invariant()
    def everything_acknowledged_is_read_back(self) -> None:
        if not self.lives and not hasattr(self, "keeper"):
            return

        async def read() -> dict[str, bytes]:
            transaction = Transaction(self.consensus, self.manager.barrier)
            return {name: value for name in self.values if (value := await transaction.get(name)) is not None}

        assert self.runner.run(read()) == self.values
        self.runner.run(self.manager.refresh())
        for barrier, key, record in self.opened():
            barrier.decrypt(key, record.value)

    @invariant()
    def a_finished_pass_leaves_nothing_under_an_older_term(self) -> None:
        if not hasattr(self, "keeper"):
            return
        at = self.runner.run(load(Transaction(self.consensus, self.manager.barrier)))
        if at is not None and at.finished_ms:
            event(f"a pass finished, dropped: {self.manager.barrier.keyring.terms[0] == at.target}")
            assert all(envelope.term_of(record.value) >= at.target for _, _, record in self.opened())


KeyTermsMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestKeyTerms = KeyTermsMachine.TestCase
