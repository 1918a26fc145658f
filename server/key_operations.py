"""Operations on keys as the leader carries them out: who may, in which order, and what is audited of them.

Orders and results hold shares and tokens on their way between nodes (mutual TLS); nothing here logs or prints one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
import structlog

from holdfast.cluster.peer.calls import PeerCalls
from holdfast.cluster.raft.consensus import Applied, Consensus, ConsensusStatus, Role
from holdfast.cluster.seal import key_policy, reencryption, rotation, settle, usage
from holdfast.cluster.seal.generate_root import GenerateRoot, MakeToken, RootStatus
from holdfast.cluster.seal.key_policy import KeyPolicy
from holdfast.cluster.seal.recipients import checked
from holdfast.cluster.seal.reencryption import Pass
from holdfast.cluster.seal.rekey import NewShares, Rekey, RekeyStatus
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.state import SealStatus
from holdfast.core.request import Operation, Request
from holdfast.core.tokens import TOKEN_CHARS
from holdfast.proto.errors import Conflict, Fatal, InvalidArgument, OutcomeUnknown, Overloaded, Unimplemented
from holdfast.server.authorization import Authorize, authorized
from holdfast.server.leader_operation import Credentials, LeaderOperation
from holdfast.storage.transaction import Transaction

REKEY_PATH = "sys/rekey/init"
REKEY_SHARE_PATH = "sys/rekey/update"
REKEY_RECOVER_PATH = "sys/rekey/recover"
ROOT_PATH = "sys/generate-root/attempt"
ROOT_SHARE_PATH = "sys/generate-root/update"
ROTATE_PATH = "sys/rotate"
ROTATE_CONFIG_PATH = "sys/rotate/config"
KEY_STATUS_PATH = "sys/key-status"

STRANGERS_PER_MINUTE, STRANGERS_PER_ADDRESS = 120, 60
"""How many calls without a token a leader takes, and how many of them from one address, so that one machine cannot keep
the holders of shares away: people give shares more slowly than that."""

ANSWER_SHARE = 0.6
"""Which part of a call's time may go into finding out whether new shares are in force. The rest is for the answer: an
answer that says "not known" and brings the shares is worth more than one that comes too late."""

_log = structlog.stdlib.get_logger(__name__)

Recover = Callable[[str], Awaitable[bytes]]
"""The root key, opened by the unseal provider of this name."""

Order = TypeVar("Order", bound=msgspec.Struct)
Result = TypeVar("Result", bound=msgspec.Struct)


class PlainOrder(msgspec.Struct, frozen=True):
    credentials: Credentials


class RekeyInitOrder(msgspec.Struct, frozen=True):
    credentials: Credentials
    shares: int
    threshold: int
    verify: bool
    kind: str
    keys: tuple[str, ...]


class ShareOrder(msgspec.Struct, frozen=True):
    credentials: Credentials
    nonce: str
    share: str

    def __repr__(self) -> str:
        return f"ShareOrder(nonce={self.nonce!r})"


class CancelOrder(msgspec.Struct, frozen=True):
    credentials: Credentials
    verification: bool


class RecoverOrder(msgspec.Struct, frozen=True):
    credentials: Credentials
    nonce: str
    provider: str


class RootInitOrder(msgspec.Struct, frozen=True):
    credentials: Credentials
    otp: str
    pgp_key: str

    def __repr__(self) -> str:
        return "RootInitOrder()"


class PolicyOrder(msgspec.Struct, frozen=True):
    """changes: the fields of a KeyPolicy that are to be different."""

    credentials: Credentials
    changes: dict[str, Any]


class RekeyStep(msgspec.Struct, frozen=True):
    """Either the status, or the new shares."""

    status: RekeyStatus | None = None
    made: NewShares | None = None


class KeyState(msgspec.Struct, frozen=True):
    """The keyring as people are shown it. encryptions: as many as were reserved."""

    term: rotation.KeyTerm
    encryptions: int
    policy: KeyPolicy
    reencryption: Pass | None


class KeyOperations:
    """Each attribute is a call that is carried out on the leader. witness: as `authorize`, for what needs no token.
    make_token: stores a root token. recover: None where there are no unseal providers. event: takes
    the name and the members of an audit event. clock: monotonic seconds;
    wall_clock: Unix time in seconds."""

    def __init__(
        self,
        *,
        consensus: Consensus,
        calls: PeerCalls,
        seal: SealManager,
        authorize: Authorize,
        witness: Authorize,
        make_token: MakeToken,
        recover: Recover | None = None,
        event: Callable[..., None],
        random_bytes: Callable[[int], bytes],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        self._consensus = consensus
        self._seal = seal
        self._authorize = authorize
        self._witness = witness
        self._recover = recover
        self._event = event
        self._random_bytes = random_bytes
        self._clock = clock
        self._wall_clock = wall_clock
        self._strangers: deque[tuple[float, str]] = deque()
        self._rekey = Rekey(consensus, seal, random_bytes=random_bytes)
        self._root = GenerateRoot(
            consensus, seal, make_token=make_token, token_chars=TOKEN_CHARS, random_bytes=random_bytes
        )
        seal.on_change(self._seal_changed)
        consensus.on_role_change(self._role_changed)

        def on_leader(
            name: str, order: type[Order], result: type[Result], work: Callable[[Order, str], Awaitable[Result]]
        ) -> LeaderOperation[Order, Result]:
            return LeaderOperation(
                f"keys.{name}", order, result, work, consensus=consensus, calls=calls, on_fatal=on_fatal
            )

        self.rekey_init = on_leader("rekey-init", RekeyInitOrder, RekeyStatus, self._rekey_init)
        self.rekey_status = on_leader("rekey-status", PlainOrder, RekeyStatus, self._rekey_status)
        self.rekey_update = on_leader("rekey-update", ShareOrder, RekeyStep, self._rekey_update)
        self.rekey_verify = on_leader("rekey-verify", ShareOrder, RekeyStatus, self._rekey_verify)
        self.rekey_cancel = on_leader("rekey-cancel", CancelOrder, RekeyStatus, self._rekey_cancel)
        self.rekey_recover = on_leader("rekey-recover", RecoverOrder, NewShares, self._rekey_recover)
        self.root_init = on_leader("root-init", RootInitOrder, RootStatus, self._root_init)
        self.root_status = on_leader("root-status", PlainOrder, RootStatus, self._root_status)
        self.root_update = on_leader("root-update", ShareOrder, RootStatus, self._root_update)
        self.root_cancel = on_leader("root-cancel", PlainOrder, RootStatus, self._root_cancel)
        self.rotate = on_leader("rotate", PlainOrder, KeyState, self._rotate)
        self.key_status = on_leader("key-status", PlainOrder, KeyState, self._key_status)
        self.configure = on_leader("configure-rotation", PolicyOrder, KeyState, self._configure)

    # --- rekey

    async def _rekey_init(self, order: RekeyInitOrder, forwarded_by: str) -> RekeyStatus:
        facts = {"shares": order.shares, "threshold": order.threshold, "verify": order.verify}
        async with self._with_sudo(order.credentials, REKEY_PATH, forwarded_by, facts):
            recipients = checked(order.kind, order.keys, order.shares) if order.kind else None
            return await self._rekey.init(
                shares=order.shares, threshold=order.threshold, verify=order.verify, recipients=recipients
            )

    async def _rekey_status(self, order: PlainOrder, forwarded_by: str) -> RekeyStatus:
        del forwarded_by
        self._let_in(order.credentials)
        return await self._rekey.status()

    async def _rekey_update(self, order: ShareOrder, forwarded_by: str) -> RekeyStep:
        answer_by, step = _answer_by(order.credentials), None
        try:
            async with self._without_token(order.credentials, REKEY_SHARE_PATH, forwarded_by, {"nonce": order.nonce}):
                step = await self._rekey.give(order.nonce, order.share, answer_by=answer_by)
                if isinstance(step, NewShares):
                    self._event("rekey_shares_made", set_id=step.set_id, in_force=step.in_force)
        except OutcomeUnknown:
            if not _must_get_out(step):
                raise
        assert step is not None, "what was not done was raised"
        return RekeyStep(made=step) if isinstance(step, NewShares) else RekeyStep(status=step)

    async def _rekey_verify(self, order: ShareOrder, forwarded_by: str) -> RekeyStatus:
        facts = {"nonce": order.nonce, "verification": True}
        async with self._without_token(order.credentials, REKEY_SHARE_PATH, forwarded_by, facts):
            status = await self._rekey.verify(order.nonce, order.share)
            if status.complete:
                self._event("rekey_complete", set_id=status.set_id)
            return status

    async def _rekey_cancel(self, order: CancelOrder, forwarded_by: str) -> RekeyStatus:
        facts = {"cancel": True, "verification": order.verification}
        async with self._with_sudo(order.credentials, REKEY_PATH, forwarded_by, facts):
            return await (self._rekey.restart_verification() if order.verification else self._rekey.cancel())

    async def _rekey_recover(self, order: RecoverOrder, forwarded_by: str) -> NewShares:
        facts = {"nonce": order.nonce, "provider": order.provider}
        answer_by, made = _answer_by(order.credentials), None
        try:
            async with self._with_sudo(order.credentials, REKEY_RECOVER_PATH, forwarded_by, facts):
                if self._recover is None:
                    raise Unimplemented("this node has no unseal provider that could open the root key")
                root_key = await self._recover(order.provider)
                made = await self._rekey.recover(order.nonce, root_key, answer_by=answer_by)
                self._event("rekey_shares_made", set_id=made.set_id, in_force=made.in_force, provider=order.provider)
        except OutcomeUnknown:
            if not _must_get_out(made):
                raise
        assert made is not None, "what was not done was raised"
        return made

    # --- a root token

    async def _root_init(self, order: RootInitOrder, forwarded_by: str) -> RootStatus:
        async with self._without_token(order.credentials, ROOT_PATH, forwarded_by, {}):
            recipients = checked("pgp", [order.pgp_key], 1) if order.pgp_key else None
            return await self._root.init(otp=order.otp, recipients=recipients)

    async def _root_status(self, order: PlainOrder, forwarded_by: str) -> RootStatus:
        del forwarded_by
        self._let_in(order.credentials)
        return await self._root.status()

    async def _root_update(self, order: ShareOrder, forwarded_by: str) -> RootStatus:
        async with self._without_token(order.credentials, ROOT_SHARE_PATH, forwarded_by, {"nonce": order.nonce}):
            status = await self._root.give(order.nonce, order.share)
            if status.complete:
                self._event("root_token_generated")
            return status

    async def _root_cancel(self, order: PlainOrder, forwarded_by: str) -> RootStatus:
        async with self._without_token(order.credentials, ROOT_PATH, forwarded_by, {"cancel": True}):
            return await self._root.cancel()

    # --- the keyring

    async def _rotate(self, order: PlainOrder, forwarded_by: str) -> KeyState:
        async with self._with_sudo(order.credentials, ROTATE_PATH, forwarded_by, {}):
            made = await rotation.rotate(
                self._consensus,
                self._seal,
                random_bytes=self._random_bytes,
                now_ms=int(self._wall_clock() * 1000),
            )
            self._event("keyring_rotated", term=made.term, why="command")
            return await self._key_state()

    async def _key_status(self, order: PlainOrder, forwarded_by: str) -> KeyState:
        request = order.credentials.request(Operation.READ, KEY_STATUS_PATH, forwarded_by=forwarded_by)
        async with authorized(self._authorize, request):
            return await self._key_state()

    async def _configure(self, order: PolicyOrder, forwarded_by: str) -> KeyState:
        async with self._with_sudo(order.credentials, ROTATE_CONFIG_PATH, forwarded_by, order.changes):
            transaction = Transaction(self._consensus, self._seal.barrier)
            policy = await key_policy.load(transaction)
            key_policy.store(transaction, msgspec.structs.replace(policy, **order.changes))
            outcome = await self._consensus.propose(transaction.batch(), timeout_s=settle.ATTEMPT_TIMEOUT_S)
            if not isinstance(outcome, Applied):
                raise Conflict("the policy was changed by someone else at the same time: look at it and try again")
            return await self._key_state()

    async def _key_state(self) -> KeyState:
        transaction = Transaction(self._consensus, self._seal.barrier)
        term = rotation.key_term(self._seal)
        return KeyState(
            term=term,
            encryptions=await usage.reserved(transaction, term.term),
            policy=await key_policy.load(transaction),
            reencryption=await reencryption.load(transaction),
        )

    # --- who may

    @asynccontextmanager
    async def _with_sudo(
        self, credentials: Credentials, path: str, forwarded_by: str, facts: dict[str, Any]
    ) -> AsyncIterator[None]:
        request = credentials.request(Operation.UPDATE, path, data=facts, forwarded_by=forwarded_by)
        async with authorized(self._authorize, request):
            yield

    @asynccontextmanager
    async def _without_token(
        self, credentials: Credentials, path: str, forwarded_by: str, facts: dict[str, Any]
    ) -> AsyncIterator[None]:
        """What a threshold of shares protects. Audited; the token, if there is one, is neither needed nor recorded."""
        self._let_in(credentials)
        anonymous = msgspec.structs.replace(credentials, token="")
        request: Request = anonymous.request(Operation.UPDATE, path, data=facts, forwarded_by=forwarded_by)
        async with authorized(self._witness, request):
            yield

    def _let_in(self, credentials: Credentials) -> None:
        """Raise Overloaded when strangers ask more often than people would."""
        now, host = self._clock(), credentials.remote_address.rpartition(":")[0]
        while self._strangers and now - self._strangers[0][0] > 60:
            self._strangers.popleft()
        own = sum(name == host for _, name in self._strangers)
        if own >= STRANGERS_PER_ADDRESS or len(self._strangers) >= STRANGERS_PER_MINUTE:
            raise Overloaded(
                f"the leader takes {STRANGERS_PER_ADDRESS} calls of key ceremonies a minute from one address, and"
                f" {STRANGERS_PER_MINUTE} together",
                retry_after_ms=5000,
            )
        self._strangers.append((now, host))

    def _seal_changed(self, status: SealStatus) -> None:
        if status.sealed:
            self._forget()

    def _role_changed(self, status: ConsensusStatus) -> None:
        if status.role is not Role.LEADER:
            self._forget()

    def _forget(self) -> None:
        """Shares belong to one leader while it is open; the ceremonies themselves go on elsewhere."""
        self._rekey.forget()
        self._root.forget()

    def __repr__(self) -> str:
        return "<KeyOperations>"


def _must_get_out(made: NewShares | RekeyStatus | None) -> bool:
    """Whether these are shares that may be in force. They are handed out although no audit device recorded how that
    ended (the request was recorded before): kept back, they would be nobody's, and with them the cluster."""
    if not isinstance(made, NewShares) or made.in_force == "pending":
        return False
    _log.error("new_shares_handed_out_without_an_audited_outcome", set_id=made.set_id)
    return True


def _answer_by(credentials: Credentials) -> float:
    return asyncio.get_running_loop().time() + credentials.timeout_s * ANSWER_SHARE


def checked_share(share: str, chars_max: int) -> str:
    """A share as it came over the wire. Raises InvalidArgument for what cannot be one."""
    if not 0 < len(share) <= chars_max or not share.isascii():
        raise InvalidArgument("share must be one of the lines that init or rekey printed", field="share")
    return share
