"""The calls of KeysService: rekey, root tokens, rotation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from holdfast.client.calls.call import Call, counted, moment, text
from holdfast.client.failures import LocalError
from holdfast.client.key_results import (
    KeyStatus,
    NewShares,
    Reencryption,
    RekeyStatus,
    RootStatus,
    RotationPolicy,
)
from holdfast.client.retry import Effect
from holdfast.proto.v1 import keys_pb2 as pb

_SERVICE = "/holdfast.v1.KeysService/"

_IN_FORCE = {
    pb.NewShares.IN_FORCE_YES: "yes",
    pb.NewShares.IN_FORCE_PENDING: "pending",
}


def rekey_init(
    shares: int, threshold: int, *, verify: bool, pgp_keys: Sequence[str], age_recipients: Sequence[str]
) -> Call[RekeyStatus]:
    """Begins a rekey."""
    request = pb.RekeyInitRequest(
        secret_shares=counted(shares, name="shares", bits=32) or 0,
        secret_threshold=counted(threshold, name="threshold", bits=32) or 0,
        skip_verification=not verify,
        pgp_keys=[text(key, name="pgp_keys") for key in pgp_keys],
        age_recipients=[text(key, name="age_recipients") for key in age_recipients],
    )
    return Call(_SERVICE + "RekeyInit", request, pb.RekeyInitResponse, _rekey, Effect.ONCE)


def rekey_status() -> Call[RekeyStatus]:
    """What is under way."""
    return Call(_SERVICE + "RekeyStatus", pb.RekeyStatusRequest(), pb.RekeyStatusResponse, _rekey, Effect.READ)


def rekey_update(share: str, nonce: str) -> Call[RekeyStatus | NewShares]:
    """Gives a share in force. Never repeated when it may have happened: new shares exist once."""
    request = pb.RekeyUpdateRequest(nonce=text(nonce, name="nonce"), share=_share(share))
    return Call(_SERVICE + "RekeyUpdate", request, pb.RekeyUpdateResponse, _step, Effect.ONCE)


def rekey_verify(share: str, nonce: str) -> Call[tuple[RekeyStatus, bool]]:
    """Gives a new share; whether all new shares are in force."""
    request = pb.RekeyVerifyRequest(nonce=text(nonce, name="nonce"), share=_share(share))
    return Call(_SERVICE + "RekeyVerify", request, pb.RekeyVerifyResponse, _verified, Effect.ONCE)


def rekey_cancel(*, verification: bool) -> Call[RekeyStatus]:
    """Ends a rekey, or begins its verification anew."""
    request = pb.RekeyCancelRequest(verification=verification)
    return Call(_SERVICE + "RekeyCancel", request, pb.RekeyCancelResponse, _rekey, Effect.ONCE)


def rekey_recover(nonce: str, provider: str) -> Call[NewShares]:
    """Makes the new shares with the root key that a provider opens."""
    request = pb.RekeyRecoverRequest(nonce=text(nonce, name="nonce"), provider=text(provider, name="provider"))
    return Call(_SERVICE + "RekeyRecover", request, pb.RekeyRecoverResponse, _recovered, Effect.ONCE)


def root_init(otp: str, pgp_key: str) -> Call[RootStatus]:
    """Begins the generation of a root token."""
    request = pb.GenerateRootInitRequest(otp=text(otp, name="otp"), pgp_key=text(pgp_key, name="pgp_key"))
    return Call(_SERVICE + "GenerateRootInit", request, pb.GenerateRootInitResponse, _root, Effect.ONCE)


def root_status() -> Call[RootStatus]:
    """What is under way."""
    return Call(
        _SERVICE + "GenerateRootStatus",
        pb.GenerateRootStatusRequest(),
        pb.GenerateRootStatusResponse,
        _root,
        Effect.READ,
    )


def root_update(share: str, nonce: str) -> Call[RootStatus]:
    """Gives a share."""
    request = pb.GenerateRootUpdateRequest(nonce=text(nonce, name="nonce"), share=_share(share))
    return Call(_SERVICE + "GenerateRootUpdate", request, pb.GenerateRootUpdateResponse, _root, Effect.ONCE)


def root_cancel() -> Call[RootStatus]:
    """Ends a generation."""
    return Call(
        _SERVICE + "GenerateRootCancel",
        pb.GenerateRootCancelRequest(),
        pb.GenerateRootCancelResponse,
        _root,
        Effect.ONCE,
    )


def rotate() -> Call[KeyStatus]:
    """Makes a new key term."""
    return Call(_SERVICE + "Rotate", pb.RotateRequest(), pb.RotateResponse, _keys, Effect.ONCE)


def key_status() -> Call[KeyStatus]:
    """The active key term, its use, and how far data was brought under it."""
    return Call(_SERVICE + "KeyStatus", pb.KeyStatusRequest(), pb.KeyStatusResponse, _keys, Effect.READ)


def configure_rotation(
    *,
    interval: timedelta | None,
    max_encryptions: int | None,
    reencrypt: bool | None,
    rate: int | None,
    keep_terms: int | None,
) -> Call[KeyStatus]:
    """Changes the policy; what is None stays."""
    request = pb.ConfigureRotationRequest(
        interval_seconds=None if interval is None else int(interval.total_seconds()),
        max_encryptions=counted(max_encryptions, name="max_encryptions"),
        reencrypt=reencrypt,
        rate=counted(rate, name="rate", bits=32),
        keep_terms=counted(keep_terms, name="keep_terms", bits=32),
    )
    return Call(_SERVICE + "ConfigureRotation", request, pb.ConfigureRotationResponse, _keys, Effect.ONCE)


def _share(share: str) -> str:
    share = text(share, name="share").strip()
    if not share:
        raise LocalError("a key share is needed.", field="share")
    return share


def _rekey(response: Any) -> RekeyStatus:
    return _state(response.state)


def _state(state: pb.RekeyState) -> RekeyStatus:
    return RekeyStatus(
        set_id=state.set_id,
        required=state.required,
        nonce=state.nonce,
        shares=state.secret_shares,
        threshold=state.secret_threshold,
        progress=state.progress,
        verification_required=state.verification_required,
        verification_nonce=state.verification_nonce,
        verification_progress=state.verification_progress,
        recipients=state.recipients,
        fingerprints=tuple(state.fingerprints),
    )


def _step(response: pb.RekeyUpdateResponse) -> RekeyStatus | NewShares:
    return _made(response.new_shares) if response.HasField("new_shares") else _state(response.state)


def _verified(response: pb.RekeyVerifyResponse) -> tuple[RekeyStatus, bool]:
    return _state(response.state), response.complete


def _recovered(response: pb.RekeyRecoverResponse) -> NewShares:
    return _made(response.new_shares)


def _made(made: pb.NewShares) -> NewShares:
    return NewShares(
        shares=tuple(made.shares),
        set_id=made.set_id,
        threshold=made.secret_threshold,
        in_force=_IN_FORCE.get(made.in_force, "unknown"),
        verification_nonce=made.verification_nonce,
        fingerprints=tuple(made.fingerprints),
    )


def _root(response: Any) -> RootStatus:
    state: pb.GenerateRootState = response.state
    return RootStatus(
        required=state.required,
        nonce=state.nonce,
        progress=state.progress,
        pgp_fingerprint=state.pgp_fingerprint,
        otp_length=state.otp_length,
        complete=getattr(response, "complete", False),
        otp=getattr(response, "otp", ""),
        encoded_token=getattr(response, "encoded_token", ""),
    )


def _keys(response: Any) -> KeyStatus:
    state: pb.KeyState = response.state
    policy, at = state.policy, state.reencryption
    return KeyStatus(
        term=state.term,
        install_time=moment(state, "install_time"),
        encryptions=state.encryptions,
        terms=state.terms,
        oldest_term=state.oldest_term,
        policy=RotationPolicy(
            interval_s=policy.interval_seconds,
            max_encryptions=policy.max_encryptions,
            reencrypt=policy.reencrypt,
            rate=policy.rate,
            keep_terms=policy.keep_terms,
        ),
        reencryption=Reencryption(
            target_term=at.target_term,
            finished=at.finished,
            scanned=at.scanned,
            rewritten=at.rewritten,
            start_time=moment(at, "start_time"),
            finish_time=moment(at, "finish_time"),
        )
        if state.HasField("reencryption")
        else None,
    )
