"""A new root token, by the holders of the shares: the way back when no token is left.

    init -> an OTP, to whoever began -> current shares up to their threshold -> the token, XORed with the OTP

Who sees the answer without the OTP, or the OTP without the answer, has nothing. The OTP is kept in the ceremony's
record, behind the barrier, so that the ceremony outlives its leader.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable

import msgspec

from holdfast.cluster.raft.consensus import Consensus
from holdfast.cluster.seal.ceremony import (
    NONCE_BYTES,
    CeremonyStore,
    CeremonyView,
    ShareCollector,
    check_nonce,
    none_under_way,
    under_way,
)
from holdfast.cluster.seal.recipients import Recipients
from holdfast.cluster.seal.seal import SealManager
from holdfast.proto.errors import Conflict, InvalidArgument
from holdfast.storage.transaction import Transaction

PATH = "cluster/ceremony/generate-root"

OTP_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

_WHAT = "root token generation"
_BEGIN = "holdfast operator generate-root -init"
_ATTEMPTS_MAX = 5

MakeToken = Callable[[Transaction], Awaitable[str]]
"""Puts a new root token's entry into a transaction and returns the token."""


class RootRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is replicated of it. otp: empty when the token is for an OpenPGP key."""

    nonce: str
    otp: str
    recipients: Recipients | None = None

    def __repr__(self) -> str:
        return "<RootRecord>"


class RootStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A generation as people are shown it. nonce: empty when none is under way. encoded: the token, XORed with the OTP
    and in base64 (unpadded), or encrypted to the OpenPGP key; only in the answer to the last share. otp: only in the
    answer to `init`, when it was made here."""

    required: int
    nonce: str = ""
    progress: int = 0
    fingerprint: str = ""
    complete: bool = False
    otp: str = ""
    encoded: str = ""

    def __repr__(self) -> str:
        return f"<RootStatus progress={self.progress} complete={self.complete}>"


class GenerateRoot:
    """The ceremony, on the leader. One at a time in a cluster. token_chars: how long a token is."""

    def __init__(
        self,
        consensus: Consensus,
        seal: SealManager,
        *,
        make_token: MakeToken,
        token_chars: int,
        random_bytes: Callable[[int], bytes],
        wait_s: float = 60.0,
    ) -> None:
        self._make_token = make_token
        self._token_chars = token_chars
        self._random_bytes = random_bytes
        self._shares = ShareCollector(random_bytes)
        self._one_by_one = asyncio.Lock()
        self._store = CeremonyStore(
            PATH, RootRecord, consensus=consensus, seal=seal, random_bytes=random_bytes, wait_s=wait_s
        )

    def forget(self) -> None:
        """Drop the shares given so far. The ceremony itself goes on."""
        self._shares.forget()

    async def status(self) -> RootStatus:
        """What is under way. Raises as `CeremonyStore.open`."""
        return self._status(await self._store.open())

    async def init(self, *, otp: str, recipients: Recipients | None) -> RootStatus:
        """Begin. otp: empty to have one made. recipients: one OpenPGP key, instead of an OTP. Raises InvalidArgument;
        FailedPrecondition when one is under way."""
        if otp and recipients is not None:
            raise InvalidArgument("give an OTP or an OpenPGP key, not both", field="otp")
        if otp and (len(otp) != self._token_chars or not (otp.isascii() and otp.isprintable())):
            raise InvalidArgument(
                f"an OTP has {self._token_chars} printable ASCII characters; `holdfast operator generate-root"
                " -generate-otp` makes one",
                field="otp",
            )
        made = "" if otp or recipients is not None else make_otp(self._random_bytes, self._token_chars)
        async with self._one_by_one:
            view = await self._store.open()
            if view.record is not None:
                raise under_way(_WHAT, view.record.nonce)
            view.record = RootRecord(
                nonce=self._random_bytes(NONCE_BYTES).hex(), otp=otp or made, recipients=recipients
            )
            self._store.put(view, view.record)
            await self._commit(view)
            return msgspec.structs.replace(self._status(view), otp=made)

    async def give(self, nonce: str, text: str) -> RootStatus:
        """Give a share. The one that reaches the threshold gets the encoded token. Raises InvalidArgument (nonce),
        ShareRejected, FailedPrecondition; OutcomeUnknown when a token may have been made that nobody holds."""
        async with self._one_by_one:
            view = await self._store.open()
            record = _under_way(view)
            check_nonce(nonce, record.nonce)
            share_key = self._shares.give(record.nonce, view.config, text)
            if share_key is None:
                return self._status(view)
            del share_key  # that it is the right one is all that is asked
            return await self._generate(view, record)

    async def cancel(self) -> RootStatus:
        """End the ceremony. Raises FailedPrecondition when none is under way."""
        async with self._one_by_one:
            view = await self._store.open()
            _under_way(view)
            self._store.delete(view)
            await self._commit(view)
            self.forget()
            view.record = None
            return self._status(view)

    async def _generate(self, view: CeremonyView[RootRecord], record: RootRecord) -> RootStatus:
        seen = view.seal_revision
        for _ in range(_ATTEMPTS_MAX):
            token = await self._make_token(view.transaction)
            encoded = xor_encode(token, record.otp) if record.otp else _encrypted(record, token)
            self._store.delete(view)
            if await self._store.commit(view):
                view.record = None
                return msgspec.structs.replace(self._status(view), complete=True, encoded=encoded)
            view = await self._store.open()
            if view.record != record or view.seal_revision != seen:
                break
        raise Conflict("the generation was changed by someone else at the same time: no token was made")

    async def _commit(self, view: CeremonyView[RootRecord]) -> None:
        if not await self._store.commit(view):
            raise Conflict("the generation was changed by someone else at the same time: ask for the status")

    def _status(self, view: CeremonyView[RootRecord]) -> RootStatus:
        record = view.record
        if record is None:
            return RootStatus(required=view.config.threshold)
        recipients = record.recipients
        return RootStatus(
            required=view.config.threshold,
            nonce=record.nonce,
            progress=self._shares.given(record.nonce),
            fingerprint="" if recipients is None else recipients.fingerprints()[0],
        )

    def __repr__(self) -> str:
        return "<GenerateRoot>"


def make_otp(random_bytes: Callable[[int], bytes], chars: int) -> str:
    """A one-time password of letters and digits, every one equally likely."""
    found: list[str] = []
    limit = 256 - 256 % len(OTP_ALPHABET)
    while len(found) < chars:
        found += [OTP_ALPHABET[byte % len(OTP_ALPHABET)] for byte in random_bytes(chars) if byte < limit]
    return "".join(found[:chars])


def xor_encode(token: str, otp: str) -> str:
    """The token XORed with the OTP, in base64 without padding."""
    assert len(token) == len(otp), "the OTP was checked when the ceremony began"
    mixed = bytes(a ^ b for a, b in zip(token.encode("ascii"), otp.encode("ascii"), strict=True))
    return base64.b64encode(mixed).decode("ascii").rstrip("=")


def _encrypted(record: RootRecord, token: str) -> str:
    assert record.recipients is not None, "a ceremony has an OTP or a recipient"
    return record.recipients.encrypt([token])[0]


def _under_way(view: CeremonyView[RootRecord]) -> RootRecord:
    if view.record is None:
        raise none_under_way(_WHAT, _BEGIN)
    return view.record
