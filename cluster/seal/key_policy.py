"""When the keyring rotates by itself, and what becomes of data under old terms. One record behind the barrier."""

from __future__ import annotations

import msgspec

from holdfast.cluster.seal.usage import BLOCK
from holdfast.proto.errors import Corruption, InvalidArgument
from holdfast.storage import envelope
from holdfast.storage.decoding import MALFORMED
from holdfast.storage.transaction import Transaction

PATH = "cluster/keys/policy"

INTERVAL_S_MIN = 3600
ENCRYPTIONS_MIN = 4 * BLOCK
RATE_MAX = 1_000_000
KEEP_TERMS_MAX = 900

_FORMAT = 1


class KeyPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """interval_s: a term older than this is replaced; 0: never for its age. max_encryptions: it is replaced before it
    has encrypted so many values, cluster-wide. reencrypt: whether data under old terms is encrypted anew after each
    rotation. rate: how many records a second at most. keep_terms: how many of the newest terms are kept when nothing is
    encrypted under them any more."""

    interval_s: int = 0
    max_encryptions: int = envelope.ENCRYPTIONS_PER_TERM_MAX
    reencrypt: bool = True
    rate: int = 500
    keep_terms: int = 10


async def load(transaction: Transaction) -> KeyPolicy:
    """The policy in force. Raises Corruption."""
    stored = await transaction.get(PATH)
    if stored is None:
        return KeyPolicy()
    if stored[:1] != bytes((_FORMAT,)):
        raise Corruption("the key policy has an unknown format: run the version that wrote it")
    try:
        return msgspec.msgpack.decode(stored[1:], type=KeyPolicy)
    except MALFORMED:
        raise Corruption("the key policy does not parse: restore this cluster from a snapshot") from None


def store(transaction: Transaction, policy: KeyPolicy) -> None:
    """Have the transaction store a policy. Raises InvalidArgument when a number is out of range."""
    if policy.interval_s and not INTERVAL_S_MIN <= policy.interval_s < 2**40:
        raise InvalidArgument("the interval is at least one hour, or 0 for no rotation by age", field="interval")
    _check(policy.max_encryptions, ENCRYPTIONS_MIN, envelope.ENCRYPTIONS_PER_TERM_MAX, "max_encryptions")
    _check(policy.rate, 1, RATE_MAX, "rate")
    _check(policy.keep_terms, 1, KEEP_TERMS_MAX, "keep_terms")
    transaction.put(PATH, bytes((_FORMAT,)) + msgspec.msgpack.encode(policy))


def _check(number: int, least: int, most: int, field: str) -> None:
    if not least <= number <= most:
        raise InvalidArgument(f"{field} is {least} to {most}, not {number}", field=field)
