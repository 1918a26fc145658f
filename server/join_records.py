"""What is stored for joins by token, below `cluster/join/`: encrypted like everything else, and never replicated to
another cluster, for it is this cluster's identity.

    ca                 the cluster CA's certificate and private key, if it was imported
    tokens/<id>        a join token; <id> is the hash of its secret
    nodes/<node id>    a node that was let in: as a founder, by hand or by a token
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import msgspec

from holdfast.proto.errors import Corruption
from holdfast.storage.decoding import MALFORMED

PREFIX = "cluster/join"
CA = "ca"
TOKENS = "tokens"
NODES = "nodes"
_FORMAT = 1


class StoredCa(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM, both."""

    certificate: bytes
    private_key: bytes
    format: int = _FORMAT

    def __repr__(self) -> str:
        return "<StoredCa>"


class StoredToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """node_id: the only id that may use it; empty for any new one. hosts: the only hosts that the certificate may name;
    empty for those of the node's addresses. voter: promoted when it has caught up. share_keys: see StoredNode. used_by:
    the node that used it."""

    created: datetime
    expires: datetime
    node_id: str = ""
    hosts: tuple[str, ...] = ()
    voter: bool = True
    share_keys: bool = False
    used_by: str = ""
    format: int = _FORMAT


class StoredNode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """share_keys: whether members may hand the root key to this node."""

    joined: datetime
    share_keys: bool
    format: int = _FORMAT


R = TypeVar("R", StoredCa, StoredToken, StoredNode)


def encode(record: StoredCa | StoredToken | StoredNode) -> bytes:
    """A record as it is stored."""
    return msgspec.msgpack.encode(record)


def decode(stored: bytes, form: type[R]) -> R:
    """A stored record. Raises Corruption."""
    try:
        record = msgspec.msgpack.decode(stored, type=form)
    except MALFORMED:
        raise Corruption("a record about joining nodes does not parse: restore this node from its peers") from None
    if record.format != _FORMAT:
        raise Corruption(f"a record about joining nodes has format {record.format}, this build reads {_FORMAT}")
    return record
