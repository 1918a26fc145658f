"""What the calls on the cluster's keys return. Nothing here shows a share, an OTP or a token in its repr."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class RekeyStatus:
    """A rekey. nonce: empty when none is under way. set_id, required: of the shares in force; progress: given so far.

    verification_nonce: names the verification under way; verification_progress: new shares given towards `threshold`.
    """

    set_id: str
    required: int
    nonce: str = ""
    shares: int = 0
    threshold: int = 0
    progress: int = 0
    verification_required: bool = False
    verification_nonce: str = ""
    verification_progress: int = 0
    recipients: str = ""
    fingerprints: tuple[str, ...] = ()


@dataclass(frozen=True)
class NewShares:
    """New shares, given this once and kept nowhere. in_force: "yes", "pending" (until verified) or "unknown" (keep both
    sets and ask for the status). fingerprints: whom each share is encrypted to, in order."""

    shares: tuple[str, ...] = field(repr=False)
    set_id: str
    threshold: int
    in_force: str
    verification_nonce: str = ""
    fingerprints: tuple[str, ...] = ()


@dataclass(frozen=True)
class RootStatus:
    """The generation of a root token. nonce: empty when none is under way. otp: in the answer that began it, when it
    was made by the cluster. encoded_token: in the answer to the last share."""

    required: int
    nonce: str = ""
    progress: int = 0
    pgp_fingerprint: str = ""
    otp_length: int = 0
    complete: bool = False
    otp: str = field(default="", repr=False)
    encoded_token: str = field(default="", repr=False)


@dataclass(frozen=True)
class RotationPolicy:
    """When the keyring rotates by itself, and what becomes of data and keys under old terms."""

    interval_s: int
    max_encryptions: int
    reencrypt: bool
    rate: int
    keep_terms: int


@dataclass(frozen=True)
class Reencryption:
    """How far the data was brought under a term."""

    target_term: int
    finished: bool
    scanned: int
    rewritten: int
    start_time: datetime | None
    finish_time: datetime | None


@dataclass(frozen=True)
class KeyStatus:
    """The active key term. encryptions: reserved under it; at least as many as there were."""

    term: int
    install_time: datetime | None
    encryptions: int
    terms: int
    oldest_term: int
    policy: RotationPolicy
    reencryption: Reencryption | None
