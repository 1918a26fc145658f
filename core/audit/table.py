"""The audit devices that are enabled, as stored: one record, `local/audit/devices`. They belong to one cluster."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from holdfast.core.audit.hashing import AUDIT_PREFIX
from holdfast.proto.errors import Corruption
from holdfast.storage.decoding import MALFORMED

TABLE_NAME = "devices"

TABLE_PATH = f"{AUDIT_PREFIX}/{TABLE_NAME}"

DEVICES_MAX = 16
"""How many devices may be enabled."""

_FORMAT = 1


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One device. uuid: made anew whenever one is enabled. created: RFC 3339, UTC."""

    type: str
    uuid: str
    created: str
    options: dict[str, str] = {}
    description: str = ""


class _Table(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    devices: dict[str, Device]


def encode(devices: Mapping[str, Device]) -> bytes:
    """The record of the devices by their path; a path ends in "/"."""
    return msgspec.msgpack.encode(_Table(format=_FORMAT, devices=dict(devices)))


def decode(record: bytes | None) -> dict[str, Device]:
    """The devices in a record; none when there is no record. Raises Corruption."""
    if record is None:
        return {}
    try:
        table = msgspec.msgpack.decode(record, type=_Table)
    except MALFORMED:
        raise Corruption("the table of audit devices does not parse: restore this node from its peers") from None
    if table.format != _FORMAT:
        raise Corruption(f"the audit table has format {table.format}, this build reads {_FORMAT}: upgrade the node")
    return table.devices
