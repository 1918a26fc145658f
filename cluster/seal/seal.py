"""The seal of one node: whether it holds the keys, and how it comes to hold them and lets go of them.

Reads the seal's and the keyring's record from the node's own replicated state, so that a node unseals without asking
anyone. The state machine is in `state`, the collecting of shares in `unseal`, initialisation in `initialize`; here they
meet consensus and the clock. All methods are called from the event-loop thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from holdfast.cluster.raft.consensus import Consensus, Role
from holdfast.cluster.seal import initialize, settle, shares
from holdfast.cluster.seal.keys import OpenKeys
from holdfast.cluster.seal.records import KEYRING_KEY, SEAL_KEY, SealConfig, decode_config
from holdfast.cluster.seal.shares import Shares
from holdfast.cluster.seal.state import SealEvent, SealState, SealStatus, advance
from holdfast.cluster.seal.unseal import UnsealProgress
from holdfast.proto.errors import (
    AlreadyInitialized,
    Corruption,
    FailedPrecondition,
    Fatal,
    OutcomeUnknown,
    Sealed,
    Uninitialized,
)
from holdfast.storage.barrier import Barrier
from holdfast.storage.batch import Record
from holdfast.storage.keyring import Keyring
from holdfast.storage.transaction import Transaction

SEAL_TYPE = "shamir"

_LOST_SHARES = (
    "this cluster was initialised by a request that never got its answer, so nobody holds its shares: stop all nodes,"
    " empty their data folders and initialise again; nothing was stored yet"
)

_UNDELIVERED_MAX = 64

T = TypeVar("T")


class SealManager:
    """Holds a node's keys while it is unsealed.

    random_bytes: cryptographically secure. wall_clock: Unix time in seconds, for records and display only.
    cluster_name: kept with the keys when this node initialises the cluster.
    on_fatal: called when the seal's or the keyring's record turns out damaged while the node runs; the node has sealed
    itself by then and its process must end. Without it, the event loop's exception handler gets the error.
    outcome_wait_s: how long an initialisation asks for its outcome before it gives up.
    """

    def __init__(
        self,
        consensus: Consensus,
        *,
        random_bytes: Callable[[int], bytes],
        wall_clock: Callable[[], float],
        cluster_name: str = "",
        on_fatal: Callable[[Fatal], None] | None = None,
        outcome_wait_s: float = 60.0,
    ) -> None:
        self._consensus = consensus
        self._random_bytes = random_bytes
        self._wall_clock = wall_clock
        self._cluster_name = cluster_name
        self._on_fatal = on_fatal
        self._outcome_wait_s = outcome_wait_s
        self._state = SealState.UNINITIALIZED
        self._config: SealConfig | None = None
        self._progress: UnsealProgress | None = None
        self._keys: OpenKeys | None = None
        self._last_seal_reason = ""
        self._last_seal_time_s: float | None = None
        self._for_cluster = False  # whether every share given in the ceremony under way was given for the cluster
        self.was_unsealed = False
        """Whether this node has held the keys since it was started."""
        self._undelivered: deque[bytes] = deque(maxlen=_UNDELIVERED_MAX)  # set ids of shares that never got out
        self._initializing = asyncio.Lock()
        self._listeners: list[Callable[[SealStatus], None]] = []
        self._records_changed = asyncio.Event()
        self._unsubscribe: Callable[[], None] | None = None
        self._follower: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Take up the local state, sealed, and follow its changes from now on. Call once, when consensus has started.

        Raises Corruption when the seal's record is damaged."""
        assert self._follower is None, "loaded twice"
        self._consensus.set_eligible(eligible=False)
        self._unsubscribe = self._consensus.subscribe(self._applied)
        await self.refresh()
        self._follower = asyncio.create_task(self._follow(), name="seal")
        self._follower.add_done_callback(_report)

    async def close(self) -> None:
        """Seal, and stop following the state. May be called again."""
        self.seal("the node is stopping")
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait({self._follower})

    @property
    def initialized(self) -> bool:
        """Whether the local state has the cluster's keys. May lag behind the cluster as the state does."""
        return self._state is not SealState.UNINITIALIZED

    @property
    def sealed(self) -> bool:
        """Whether this node holds no keys (an uninitialised one holds none)."""
        return self._state is not SealState.UNSEALED

    @property
    def barrier(self) -> Barrier:
        """The barrier of this node's keys, for one request: ask again for the next. Raises Uninitialized or Sealed."""
        if self._keys is not None:
            return self._keys.barrier
        if self._state is SealState.UNINITIALIZED:
            raise _uninitialized()
        raise Sealed("this node holds no keys: unseal it with `holdfast operator unseal`, or ask another node")

    def status(self) -> SealStatus:
        """The current state. Needs no keys and no quorum."""
        consensus, config, progress = self._consensus.status(), self._config, self._progress
        return SealStatus(
            type=SEAL_TYPE,
            initialized=self.initialized,
            sealed=self.sealed,
            threshold=config.threshold if config else 0,
            shares=config.shares if config else 0,
            progress=progress.given if progress else 0,
            nonce=progress.nonce if progress else "",
            cluster_name=config.cluster_name if config else self._cluster_name,
            cluster_id=config.cluster_id if config else "",
            node_id=consensus.node_id,
            last_seal_reason=_LOST_SHARES if self._shares_lost else self._last_seal_reason,
            last_seal_time_s=self._last_seal_time_s,
            role=consensus.role,
            leader_id=consensus.leader_id,
            quorum_contact_age_s=consensus.quorum_contact_age_s,
        )

    def on_change(self, callback: Callable[[SealStatus], None]) -> Callable[[], None]:
        """Call `callback` after each change of state, when it is complete; returns the unsubscriber. Must not block."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    async def initialize(
        self, *, shares: int, threshold: int, bootstrap: Callable[[Transaction], Awaitable[T]]
    ) -> tuple[Shares, T]:
        """Make the cluster's keys. Returns the shares and what `bootstrap` returned; they exist nowhere else.

        shares, threshold: 0 stands for 5 and 3. bootstrap: puts the first records into the same batch; it runs before
        anything is committed. The node is sealed afterwards.

        Raises InvalidArgument; AlreadyInitialized; NotLeader, NoLeader or Overloaded when nothing was changed;
        OutcomeUnknown when it is not known whether anything was, and the shares are lost (see the message). A request
        that is cancelled while it commits loses its shares too; `status` says so if the keys were made.
        """
        shares, threshold = initialize.split_counts(shares, threshold)
        async with self._initializing:
            await self._check_can_initialize()
            made = await initialize.prepare(
                self._consensus,
                shares=shares,
                threshold=threshold,
                cluster_name=self._cluster_name,
                created_ms=int(self._wall_clock() * 1000),
                bootstrap=bootstrap,
                random_bytes=self._random_bytes,
            )
            try:
                await initialize.commit(self._consensus, made.batch, made.seal_record, wait_s=self._outcome_wait_s)
                await self.refresh()
            except (OutcomeUnknown, Fatal, asyncio.CancelledError):
                self._undelivered.append(made.shares.set_id)
                raise
            except AlreadyInitialized:
                await self.refresh()
                raise self._already_initialized() from None
            return made.shares, made.bootstrapped

    async def unseal(self, share: str) -> SealStatus:
        """Give one share. Opens the node when it reaches the threshold; a node that is open stays so.

        Raises Uninitialized; ShareRejected (see `shares.decode` and `UnsealProgress.give`); Corruption when the shares
        are right and a record does not open."""
        if self.sealed:
            await self._give(share, for_cluster=False)
        return self.status()

    async def unseal_for_cluster(self, share: str) -> bool:
        """Give one share for all nodes: as `unseal`, and a node that is open takes shares too. Returns whether the
        shares are now proved to be a threshold, and every one of them was given for the cluster. Raises as `unseal`."""
        return await self._give(share, for_cluster=True)

    async def _give(self, share: str, *, for_cluster: bool) -> bool:
        seal_record, keyring_record = await self._read_records()
        self._adopt(seal_record)
        if self._config is None or self._progress is None:
            raise _uninitialized()
        # No await from here on: nothing can seal, reset or rekey between the share and the open node.
        if self._keys is not None and not for_cluster:
            return False
        first = self._progress.given == 0
        share_key = self._progress.give(shares.decode(share))
        self._for_cluster = for_cluster and (first or self._for_cluster)
        if share_key is None:
            return False
        root_key = self._config.unwrap(share_key)
        if self._keys is None:
            self._open(root_key, keyring_record)
        return self._for_cluster

    async def unseal_with_root_key(self, root_key: bytes) -> SealStatus:
        """Open the node with the root key itself, which another member handed over. A node that is open stays so.

        Raises Uninitialized; FailedPrecondition when the key does not open the keyring; Corruption when the seal's
        record is damaged. A damaged keyring cannot be told from a wrong key here; shares tell."""
        seal_record, keyring_record = await self._read_records()
        self._adopt(seal_record)
        if self._config is None:
            raise _uninitialized()
        # No await from here on: see above.
        if self._keys is None:
            record = _present(keyring_record)
            try:
                Keyring.unwrap(record.value, root_key)
            except Corruption:
                raise FailedPrecondition(
                    "the root key that was handed over does not open this node's keyring; unseal the node with shares"
                ) from None
            self._open(root_key, record)
        return self.status()

    def with_root_key(self, use: Callable[[bytes], T]) -> T:
        """What `use` makes of the root key, to be handed to another member. Raises as `barrier`."""
        _ = self.barrier
        assert self._keys is not None
        return self._keys.lend(use)

    def reset_unseal(self) -> SealStatus:
        """Forget the shares given so far."""
        if self._progress is not None:
            self._progress.reset()
        return self.status()

    def seal(self, reason: str) -> None:
        """Drop the keys and all shares given; requests under way fail with Sealed at their next use of the barrier.

        reason: shown in the status; never a secret. A node that holds no keys keeps its earlier reason."""
        if self._progress is not None:
            self._progress.reset()
        if self._keys is None:
            return
        keys, self._keys = self._keys, None
        keys.close()
        self._last_seal_reason, self._last_seal_time_s = reason, self._wall_clock()
        self._move(SealEvent.CLOSED)

    async def refresh(self) -> None:
        """Take up the seal's and the keyring's record as they are in the local state now. Runs by itself after every
        apply that changes them; needs a call only when the whole state was replaced. Raises Corruption."""
        seal_record, keyring_record = await self._read_records()
        self._adopt(seal_record)
        if self._keys is not None:
            self._keys.adopt(_present(keyring_record))

    def __repr__(self) -> str:
        return f"<SealManager {self._state.value}>"

    @property
    def _shares_lost(self) -> bool:
        return self._config is not None and self._config.set_id in self._undelivered

    def _already_initialized(self) -> AlreadyInitialized:
        return AlreadyInitialized(_LOST_SHARES) if self._shares_lost else initialize.already_initialized()

    async def _check_can_initialize(self) -> None:
        if self.initialized:
            raise self._already_initialized()
        status = self._consensus.status()
        if status.role is not Role.LEADER:
            raise settle.not_leading(status)
        await self._consensus.read_barrier(timeout_s=settle.ATTEMPT_TIMEOUT_S)
        await self.refresh()
        if self.initialized:
            raise self._already_initialized()

    async def _read_records(self) -> tuple[Record | None, Record | None]:
        """Both records as they stood together: read until nothing changed between two readings."""
        before = await self._consensus.get(SEAL_KEY), await self._consensus.get(KEYRING_KEY)
        while True:
            now = await self._consensus.get(SEAL_KEY), await self._consensus.get(KEYRING_KEY)
            if now == before:
                return now
            before = now

    def _adopt(self, seal_record: Record | None) -> None:
        """Make the configuration that of the record. Shares given towards another set are forgotten."""
        if seal_record is None:
            if self._config is not None:
                raise Corruption("the seal's record has vanished from this node's state: restore it from its peers")
            return
        config = decode_config(seal_record.value)
        if self._config == config:
            return
        self._config = config
        self._progress = UnsealProgress(
            set_id=config.set_id,
            threshold=config.threshold,
            verify=config.verify,
            random_bytes=self._random_bytes,
        )
        if self._state is SealState.UNINITIALIZED:
            self._move(SealEvent.KEYS_MADE)

    def _open(self, root_key: bytes, keyring_record: Record | None) -> None:
        """Hold the keys. Whoever comes by the root key, by shares or otherwise, ends here."""
        assert self._keys is None, "opened twice"
        self._keys = OpenKeys.unwrap(root_key, _present(keyring_record), self._random_bytes, self.refresh)
        self.was_unsealed = True
        self.reset_unseal()
        self._move(SealEvent.OPENED)

    def _move(self, event: SealEvent) -> None:
        self._state = advance(self._state, event)
        assert (self._state is SealState.UNSEALED) == (self._keys is not None)
        self._consensus.set_eligible(eligible=self._keys is not None)
        status = self.status()
        for listener in list(self._listeners):
            listener(status)

    def _applied(self, _index: int, keys: Sequence[bytes]) -> None:
        if SEAL_KEY in keys or KEYRING_KEY in keys:
            self._records_changed.set()

    async def _follow(self) -> None:
        while True:
            await self._records_changed.wait()
            self._records_changed.clear()
            try:
                await self.refresh()
            except Fatal as error:
                self.seal("the node's state is doubtful: its process ends")
                if self._on_fatal is None:
                    raise
                self._on_fatal(error)
                return


def _report(follower: asyncio.Task[None]) -> None:
    """Nothing waits for the follower while the node runs, so its failure must not stay unseen."""
    if not follower.cancelled() and (error := follower.exception()) is not None:
        follower.get_loop().call_exception_handler(
            {"message": "the seal stopped following the replicated state", "exception": error, "task": follower}
        )


def _present(keyring_record: Record | None) -> Record:
    if keyring_record is None:
        raise Corruption("the seal is stored and the keyring is not: restore this node from its peers or a snapshot")
    return keyring_record


def _uninitialized() -> Uninitialized:
    return Uninitialized("the cluster has no keys yet: run `holdfast operator init`")
