"""The collecting of shares towards a threshold, as a pure machine: shares in, the share key or an error out.

It knows one set (its id and threshold) and how to verify the key that the set makes. Shares live here between the first
one and the threshold, and nowhere else; they are forgotten when the key is made, when the set turns out to be wrong,
and at `reset`. Ceremonies other than unsealing that need a quorum of shares can be collected by the same machine.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.cluster.seal import shamir
from holdfast.cluster.seal.shares import Share, rejected

_NONCE_BYTES = 16


class UnsealProgress:
    """One ceremony after another over one set of shares.

    verify: raises ShareRejected when a key is not the one that was split.
    random_bytes: gives the nonces that name the ceremonies; they are no secrets.
    """

    def __init__(
        self, *, set_id: bytes, threshold: int, verify: Callable[[bytes], None], random_bytes: Callable[[int], bytes]
    ) -> None:
        assert 1 <= threshold <= shamir.SHARES_MAX
        self.set_id = set_id
        self.threshold = threshold
        self._verify = verify
        self._random_bytes = random_bytes
        self._nonce = ""
        self._given: dict[int, bytes] = {}

    @property
    def nonce(self) -> str:
        """Names the ceremony under way, 32 hex digits; empty when none is."""
        return self._nonce

    @property
    def given(self) -> int:
        """How many distinct shares were given in this ceremony: 0 to threshold - 1."""
        return len(self._given)

    def give(self, share: Share) -> bytes | None:
        """Take one share. Returns the share key (32 bytes) when this share reached the threshold, else None.

        Raises ShareRejected: with details["kind"] "other_set" or "repeated", the progress stays as it was; with
        "wrong_set" (the set does not make the key) all shares are forgotten."""
        if share.set_id != self.set_id:
            raise rejected(
                "other_set",
                f"the share belongs to the set {share.set_id.hex()} and this cluster is sealed with the set"
                f" {self.set_id.hex()}: it is of another cluster or from before a rekey; use the shares of this set",
            )
        if share.threshold != self.threshold:
            raise rejected(
                "other_set",
                f"the share names the set {share.set_id.hex()} and a threshold of {share.threshold} where this set has"
                f" {self.threshold}: it is not of this cluster's set",
            )
        if share.x in self._given:
            raise rejected(
                "repeated", f"share number {share.x} was given already: give another holder's share, or reset"
            )
        if not self._nonce:
            self._nonce = self._random_bytes(_NONCE_BYTES).hex()
        self._given[share.x] = share.core
        assert len(self._given) <= self.threshold
        if len(self._given) < self.threshold:
            return None
        try:
            share_key = shamir.combine(list(self._given.values()))
            self._verify(share_key)
        finally:
            self.reset()
        return share_key

    def reset(self) -> None:
        """Forget the shares given so far and end the ceremony."""
        self._given.clear()
        self._nonce = ""

    def __repr__(self) -> str:
        return f"<UnsealProgress {self.given} of {self.threshold}>"
