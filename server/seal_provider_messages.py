"""Unseal providers on the wire."""

from __future__ import annotations

import math

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.cluster.seal.providers.catalogue import TYPES
from holdfast.cluster.seal.providers.health import ProviderStatus
from holdfast.cluster.seal.providers.records import ProviderRecord
from holdfast.proto.v1 import seal_provider_pb2 as pb


def provider_message(record: ProviderRecord) -> pb.SealProvider:
    """What is stored of a provider, without the wrap."""
    return pb.SealProvider(
        name=record.name,
        type=record.type,
        priority=record.priority,
        parameters=record.parameters,
        enrolled_time=_timestamp(record.enrolled_ms / 1000),
        enrolled_by=record.enrolled_by,
        development=_for_development(record.type),
    )


def health_message(status: ProviderStatus, *, message: bool) -> pb.SealProviderHealth:
    """How one node finds a provider. message: whether to say why; it names files and addresses, which are not for
    strangers."""
    return pb.SealProviderHealth(
        name=status.name,
        type=status.type,
        priority=status.priority,
        health=status.health.value,
        last_check=_timestamp(status.checked_s),
        last_success=_timestamp(status.succeeded_s),
        duration_ms=round(status.duration_s * 1000),
        development=_for_development(status.type),
        message=status.message if message else "",
    )


def _for_development(kind: str) -> bool:
    return kind in TYPES and TYPES[kind].development


def _timestamp(unix_s: float | None) -> Timestamp | None:
    if unix_s is None:
        return None
    fraction, seconds = math.modf(unix_s)
    return Timestamp(seconds=int(seconds), nanos=int(fraction * 1e9))
