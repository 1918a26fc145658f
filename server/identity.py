"""Whose data folder it is: a small file in it that says which node's, and whether it may be used at all.

A folder that is started under another node's name would vote twice, once under each. And a node that was given up when
its cluster was recovered from a lost quorum must not come back (`left_behind`), whether or not anybody is there to
tell it again.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from holdfast.proto.errors import Corruption, FailedPrecondition, StorageFailed
from holdfast.server.config import ConfigError
from holdfast.storage.decoding import MALFORMED
from holdfast.storage.folder import sync_folder

FILE = "identity.json"
FORMAT = 1


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """left_behind: empty, or the lineage (in hexadecimal) that the cluster went on with, without this node."""

    format: int = FORMAT
    node_id: str
    cluster_name: str
    left_behind: str = ""


def read(data_dir: Path) -> Identity | None:
    """What the folder says; None when it says nothing. Raises Corruption or StorageFailed."""
    try:
        text = (data_dir / FILE).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed(data_dir, error) from error
    try:
        found = msgspec.json.decode(text, type=Identity)
    except MALFORMED as error:
        raise Corruption(f"{data_dir / FILE} does not decode; rebuild this node from its peers") from error
    if found.format != FORMAT:
        raise FailedPrecondition(f"{data_dir / FILE} has format {found.format}; run the version that wrote it")
    return found


def write(data_dir: Path, identity: Identity) -> None:
    """Write it durably: a crash leaves the file as it was or as it is to be. Raises StorageFailed."""
    temporary = data_dir / f"{FILE}.partial"
    try:
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(identity) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(data_dir / FILE)
        sync_folder(data_dir)
    except OSError as error:
        raise _failed(data_dir, error) from error


def claim(data_dir: Path, *, node_id: str, cluster_name: str) -> None:
    """Make a new folder this node's, or see that it is. The caller holds the folder.

    Raises ConfigError when it is another node's, and when the node was given up in a recovery."""
    found = read(data_dir)
    if found is not None and found.node_id != node_id:
        raise ConfigError(
            f"data_dir: {data_dir} is the data folder of {found.node_id}, and this node is {node_id}: name this node's "
            "own folder, or an empty one for a node that joins"
        )
    if found is not None and found.left_behind:
        raise ConfigError(
            f"data_dir: the cluster was recovered from a lost quorum without {node_id}, whose data it no longer knows. "
            f"Move {data_dir} away (keep it: what only this node acknowledged is in it), set initial_members: [], "
            "start the node, and join it as a new one: docs/operations.md, 'A quorum that is lost for good'"
        )
    wanted = Identity(node_id=node_id, cluster_name=cluster_name)
    if found != wanted:
        write(data_dir, wanted)


def leave_behind(data_dir: Path, lineage: bytes) -> None:
    """Remember that the cluster went on without this node."""
    found = read(data_dir)
    if found is not None:
        write(data_dir, msgspec.structs.replace(found, left_behind=lineage.hex()))


def _failed(data_dir: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"the data folder {data_dir} cannot be used: {error.strerror or error}")
