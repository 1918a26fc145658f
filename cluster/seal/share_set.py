"""A new set of shares over a root key: the share key, its split, and the seal's record that goes with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast.cluster.seal import shamir
from holdfast.cluster.seal.records import SealConfig, make_config
from holdfast.cluster.seal.shares import SECRET_BYTES, SET_ID_BYTES, Share, Shares


def make_share_set(
    *,
    root_key: bytes,
    shares: int,
    threshold: int,
    cluster_id: str,
    cluster_name: str,
    created_ms: int,
    random_bytes: Callable[[int], bytes],
) -> tuple[SealConfig, Shares]:
    """The seal that `threshold` of `shares` new shares open, and the shares. Changes nothing; the share key is gone."""
    share_key, set_id = random_bytes(SECRET_BYTES), random_bytes(SET_ID_BYTES)
    config = make_config(
        root_key=root_key,
        share_key=share_key,
        cluster_id=cluster_id,
        cluster_name=cluster_name,
        created_ms=created_ms,
        set_id=set_id,
        shares=shares,
        threshold=threshold,
        random_bytes=random_bytes,
    )
    cores = shamir.split(share_key, shares, threshold, random_bytes)
    _check_recovers(cores, threshold, share_key)
    texts = tuple(Share(set_id=set_id, threshold=threshold, core=core).encode() for core in cores)
    return config, Shares(set_id=set_id, threshold=threshold, texts=texts)


def _check_recovers(cores: Sequence[bytes], threshold: int, share_key: bytes) -> None:
    """The shares are the only way to the root key: see them work before anything depends on them."""
    assert shamir.combine(cores[:threshold]) == share_key, "the first shares do not recover the key"
    assert shamir.combine(cores[-threshold:]) == share_key, "the last shares do not recover the key"
