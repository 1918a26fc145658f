"""Vault's JSON forms of KV version 2 and the messages of holdfast.v1, each from the other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.proto.errors import HoldfastError
from holdfast.proto.v1 import kv_pb2 as pb
from holdfast.server.jsondata import encode_object

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")
_GO_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|us|µs|ns|s)")
_UNIT_NS = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1000,
    "µs": 1000,
    "ns": 1,
}


def version_metadata(fields: Mapping[str, Any]) -> pb.VersionMetadata:
    """A version's metadata."""
    return pb.VersionMetadata(
        version=fields["version"],
        created_time=timestamp(fields["created_time"]),
        deletion_time=timestamp(fields.get("deletion_time", "")),
        destroyed=fields.get("destroyed", False),
    )


def secret(fields: Mapping[str, Any]) -> pb.GetResponse:
    """A version with its data, which is empty when the version is deleted or destroyed."""
    data = fields.get("data")
    return pb.GetResponse(
        data=b"" if data is None else encode_object(data),
        metadata=version_metadata(fields["metadata"]),
        custom_metadata=fields["metadata"].get("custom_metadata") or {},
    )


def metadata(fields: Mapping[str, Any]) -> pb.ReadMetadataResponse:
    """The metadata of a secret and of all its versions."""
    numbered = sorted((int(number), version) for number, version in fields["versions"].items())
    return pb.ReadMetadataResponse(
        current_version=fields["current_version"],
        oldest_version=fields["oldest_version"],
        created_time=timestamp(fields["created_time"]),
        updated_time=timestamp(fields["updated_time"]),
        max_versions=fields["max_versions"],
        cas_required=fields["cas_required"],
        delete_version_after=duration(fields["delete_version_after"]),
        custom_metadata=fields.get("custom_metadata") or {},
        versions=[version_metadata({**version, "version": number}) for number, version in numbered],
    )


def metadata_fields(message: pb.WriteMetadataRequest) -> dict[str, Any]:
    """The members of a metadata write: only what the message sets."""
    fields: dict[str, Any] = {}
    if message.HasField("max_versions"):
        fields["max_versions"] = message.max_versions
    if message.HasField("cas_required"):
        fields["cas_required"] = message.cas_required
    if message.HasField("delete_version_after"):
        fields["delete_version_after"] = f"{message.delete_version_after.seconds}s"
    if message.set_custom_metadata:
        fields["custom_metadata"] = dict(message.custom_metadata)
    return fields


def timestamp(text: str) -> Timestamp | None:
    """A time in RFC 3339 with up to nanoseconds; None for the empty string."""
    if not text:
        return None
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise HoldfastError("an engine answered with a time that is not RFC 3339 in UTC")
    seconds = int(datetime.fromisoformat(f"{match[1]}+00:00").timestamp())
    return Timestamp(seconds=seconds, nanos=int((match[2] or "").ljust(9, "0") or 0))


def duration(text: str) -> Duration:
    """A duration as Go writes it: 0s, 3h25m19s, 1.5s."""
    parts = _GO_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise HoldfastError("an engine answered with a duration of unknown form")
    total_ns = sum(round(float(number) * _UNIT_NS[unit]) for number, unit in parts)
    return Duration(seconds=total_ns // 1_000_000_000, nanos=total_ns % 1_000_000_000)
