"""holdfast.v1.KeysService: rekey, rotation and root tokens, over the operations that the leader carries out.

Messages of this service carry shares, OTPs and encoded tokens: they are never logged, printed or put into an error.
"""
# ruff: noqa: N802 - method names are the protocol's

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.cluster.seal.generate_root import RootStatus
from holdfast.cluster.seal.initialize import split_counts
from holdfast.cluster.seal.rekey import NewShares, RekeyStatus
from holdfast.core.tokens import TOKEN_CHARS
from holdfast.proto.errors import InvalidArgument
from holdfast.proto.v1 import keys_pb2 as pb
from holdfast.proto.v1.keys_pb2_grpc import KeysServiceServicer
from holdfast.server.frontend import FrontEnd, rpc
from holdfast.server.key_operations import (
    CancelOrder,
    KeyOperations,
    KeyState,
    PlainOrder,
    PolicyOrder,
    RecoverOrder,
    RekeyInitOrder,
    RootInitOrder,
    ShareOrder,
    checked_share,
)
from holdfast.server.leader_operation import Credentials
from holdfast.server.limits import SHARE_CHARS_MAX
from holdfast.server.metadata import Call

NONCE_CHARS_MAX = 64

_IN_FORCE = {
    "yes": pb.NewShares.IN_FORCE_YES,
    "pending": pb.NewShares.IN_FORCE_PENDING,
    "unknown": pb.NewShares.IN_FORCE_UNKNOWN,
}


class KeysService(KeysServiceServicer):
    """See the protocol. Everything happens in `operations`."""

    def __init__(self, front_end: FrontEnd, operations: KeyOperations) -> None:
        self.front_end = front_end
        self._operations = operations

    @rpc
    async def RekeyInit(self, message: pb.RekeyInitRequest, call: Call) -> pb.RekeyInitResponse:
        if message.pgp_keys and message.age_recipients:
            raise InvalidArgument("give OpenPGP keys or age recipients, not both", field="age_recipients")
        keys = tuple(message.pgp_keys) or tuple(message.age_recipients)
        shares, threshold = split_counts(message.secret_shares or len(keys), message.secret_threshold)
        order = RekeyInitOrder(
            Credentials.of(call),
            shares=shares,
            threshold=threshold,
            verify=not message.skip_verification,
            kind="pgp" if message.pgp_keys else "age" if message.age_recipients else "",
            keys=keys,
        )
        status = await self._operations.rekey_init(order, timeout_s=call.timeout_s)
        return pb.RekeyInitResponse(state=_rekey_state(status))

    @rpc
    async def RekeyStatus(self, message: pb.RekeyStatusRequest, call: Call) -> pb.RekeyStatusResponse:
        del message
        status = await self._operations.rekey_status(PlainOrder(Credentials.of(call)), timeout_s=call.timeout_s)
        return pb.RekeyStatusResponse(state=_rekey_state(status))

    @rpc
    async def RekeyUpdate(self, message: pb.RekeyUpdateRequest, call: Call) -> pb.RekeyUpdateResponse:
        step = await self._operations.rekey_update(_share_order(message, call), timeout_s=call.timeout_s)
        if step.made is not None:
            return pb.RekeyUpdateResponse(new_shares=_new_shares(step.made))
        assert step.status is not None, "a step has a status or new shares"
        return pb.RekeyUpdateResponse(state=_rekey_state(step.status))

    @rpc
    async def RekeyVerify(self, message: pb.RekeyVerifyRequest, call: Call) -> pb.RekeyVerifyResponse:
        status = await self._operations.rekey_verify(_share_order(message, call), timeout_s=call.timeout_s)
        return pb.RekeyVerifyResponse(state=_rekey_state(status), complete=status.complete)

    @rpc
    async def RekeyCancel(self, message: pb.RekeyCancelRequest, call: Call) -> pb.RekeyCancelResponse:
        order = CancelOrder(Credentials.of(call), verification=message.verification)
        status = await self._operations.rekey_cancel(order, timeout_s=call.timeout_s)
        return pb.RekeyCancelResponse(state=_rekey_state(status))

    @rpc
    async def RekeyRecover(self, message: pb.RekeyRecoverRequest, call: Call) -> pb.RekeyRecoverResponse:
        order = RecoverOrder(Credentials.of(call), nonce=_nonce(message.nonce), provider=message.provider[:256])
        made = await self._operations.rekey_recover(order, timeout_s=call.timeout_s)
        return pb.RekeyRecoverResponse(new_shares=_new_shares(made))

    @rpc
    async def GenerateRootInit(self, message: pb.GenerateRootInitRequest, call: Call) -> pb.GenerateRootInitResponse:
        order = RootInitOrder(Credentials.of(call), otp=message.otp, pgp_key=message.pgp_key)
        status = await self._operations.root_init(order, timeout_s=call.timeout_s)
        return pb.GenerateRootInitResponse(state=_root_state(status), otp=status.otp)

    @rpc
    async def GenerateRootStatus(
        self, message: pb.GenerateRootStatusRequest, call: Call
    ) -> pb.GenerateRootStatusResponse:
        del message
        status = await self._operations.root_status(PlainOrder(Credentials.of(call)), timeout_s=call.timeout_s)
        return pb.GenerateRootStatusResponse(state=_root_state(status))

    @rpc
    async def GenerateRootUpdate(
        self, message: pb.GenerateRootUpdateRequest, call: Call
    ) -> pb.GenerateRootUpdateResponse:
        status = await self._operations.root_update(_share_order(message, call), timeout_s=call.timeout_s)
        return pb.GenerateRootUpdateResponse(
            state=_root_state(status), complete=status.complete, encoded_token=status.encoded
        )

    @rpc
    async def GenerateRootCancel(
        self, message: pb.GenerateRootCancelRequest, call: Call
    ) -> pb.GenerateRootCancelResponse:
        del message
        status = await self._operations.root_cancel(PlainOrder(Credentials.of(call)), timeout_s=call.timeout_s)
        return pb.GenerateRootCancelResponse(state=_root_state(status))

    @rpc
    async def Rotate(self, message: pb.RotateRequest, call: Call) -> pb.RotateResponse:
        del message
        state = await self._operations.rotate(PlainOrder(Credentials.of(call)), timeout_s=call.timeout_s)
        return pb.RotateResponse(state=_key_state(state))

    @rpc
    async def KeyStatus(self, message: pb.KeyStatusRequest, call: Call) -> pb.KeyStatusResponse:
        del message
        state = await self._operations.key_status(PlainOrder(Credentials.of(call)), timeout_s=call.timeout_s)
        return pb.KeyStatusResponse(state=_key_state(state))

    @rpc
    async def ConfigureRotation(self, message: pb.ConfigureRotationRequest, call: Call) -> pb.ConfigureRotationResponse:
        order = PolicyOrder(Credentials.of(call), _changes(message))
        state = await self._operations.configure(order, timeout_s=call.timeout_s)
        return pb.ConfigureRotationResponse(state=_key_state(state))


def _share_order(
    message: pb.RekeyUpdateRequest | pb.RekeyVerifyRequest | pb.GenerateRootUpdateRequest, call: Call
) -> ShareOrder:
    return ShareOrder(Credentials.of(call), _nonce(message.nonce), checked_share(message.share, SHARE_CHARS_MAX))


def _nonce(text: str) -> str:
    if not 0 < len(text) <= NONCE_CHARS_MAX or not text.isalnum():
        raise InvalidArgument("nonce must be the one that the status shows", field="nonce")
    return text


def _changes(message: pb.ConfigureRotationRequest) -> dict[str, Any]:
    given = {
        "interval_s": message.interval_seconds if message.HasField("interval_seconds") else None,
        "max_encryptions": message.max_encryptions if message.HasField("max_encryptions") else None,
        "reencrypt": message.reencrypt if message.HasField("reencrypt") else None,
        "rate": message.rate if message.HasField("rate") else None,
        "keep_terms": message.keep_terms if message.HasField("keep_terms") else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _rekey_state(status: RekeyStatus) -> pb.RekeyState:
    return pb.RekeyState(
        set_id=status.set_id,
        required=status.required,
        nonce=status.nonce,
        secret_shares=status.shares,
        secret_threshold=status.threshold,
        progress=status.progress,
        verification_required=status.verify,
        verification_nonce=status.verification_nonce,
        verification_progress=status.verification_progress,
        recipients=status.recipients,
        fingerprints=status.fingerprints,
    )


def _new_shares(made: NewShares) -> pb.NewShares:
    return pb.NewShares(
        shares=made.texts,
        set_id=made.set_id,
        secret_threshold=made.threshold,
        in_force=_IN_FORCE[made.in_force],
        verification_nonce=made.verification_nonce,
        fingerprints=made.fingerprints,
    )


def _root_state(status: RootStatus) -> pb.GenerateRootState:
    return pb.GenerateRootState(
        required=status.required,
        nonce=status.nonce,
        progress=status.progress,
        pgp_fingerprint=status.fingerprint,
        otp_length=TOKEN_CHARS,
    )


def _key_state(state: KeyState) -> pb.KeyState:
    at, policy = state.reencryption, state.policy
    return pb.KeyState(
        term=state.term.term,
        install_time=_moment(state.term.installed_ms),
        encryptions=state.encryptions,
        terms=state.term.terms,
        oldest_term=state.term.oldest,
        policy=pb.RotationPolicy(
            interval_seconds=policy.interval_s,
            max_encryptions=policy.max_encryptions,
            reencrypt=policy.reencrypt,
            rate=policy.rate,
            keep_terms=policy.keep_terms,
        ),
        reencryption=None
        if at is None
        else pb.Reencryption(
            target_term=at.target,
            finished=bool(at.finished_ms),
            scanned=at.scanned,
            rewritten=at.rewritten,
            start_time=_moment(at.started_ms),
            finish_time=_moment(at.finished_ms),
        ),
    )


def _moment(unix_ms: int) -> Timestamp | None:
    if not unix_ms:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(datetime.fromtimestamp(unix_ms / 1000, UTC))
    return stamp
