"""The calls of SealProviderService."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

from holdfast.client.calls.call import Call, counted, moment, text
from holdfast.client.retry import Effect
from holdfast.client.seal_provider_results import (
    MemberSealProviders,
    SealProvider,
    SealProviderHealth,
    SealProviderList,
    SealProviderTest,
)
from holdfast.proto.v1 import seal_provider_pb2 as pb

_SERVICE = "/holdfast.v1.SealProviderService/"


def add(name: str, kind: str, priority: int, parameters: Mapping[str, str]) -> Call[SealProvider]:
    """Adds a provider; what was stored."""
    request = pb.AddSealProviderRequest(
        name=text(name, name="name"),
        type=text(kind, name="type"),
        priority=counted(priority, name="priority", bits=32) or 0,
        parameters={text(key, name="parameters"): text(value, name=key) for key, value in parameters.items()},
    )
    return Call(_SERVICE + "AddSealProvider", request, pb.AddSealProviderResponse, _added, Effect.ONCE)


def remove(name: str) -> Call[None]:
    """Removes a provider."""
    request = pb.RemoveSealProviderRequest(name=text(name, name="name"))
    return Call(_SERVICE + "RemoveSealProvider", request, pb.RemoveSealProviderResponse, _nothing, Effect.ONCE)


def list_() -> Call[SealProviderList]:
    """Every provider, and how each member finds it."""
    return Call(
        _SERVICE + "ListSealProviders", pb.ListSealProvidersRequest(), pb.ListSealProvidersResponse, _all, Effect.READ
    )


def test(name: str) -> Call[SealProviderTest]:
    """Has the first node check a provider now."""
    request = pb.TestSealProviderRequest(name=text(name, name="name"))
    return Call(_SERVICE + "TestSealProvider", request, pb.TestSealProviderResponse, _tested, Effect.READ, pinned=True)


def healths(messages: Iterable[pb.SealProviderHealth]) -> tuple[SealProviderHealth, ...]:
    """How a node finds the providers."""
    return tuple(
        SealProviderHealth(
            name=message.name,
            type=message.type,
            priority=message.priority,
            health=message.health,
            last_check=moment(message, "last_check"),
            last_success=moment(message, "last_success"),
            duration=timedelta(milliseconds=message.duration_ms),
            development=message.development,
            message=message.message,
        )
        for message in messages
    )


def _provider(message: pb.SealProvider) -> SealProvider:
    return SealProvider(
        name=message.name,
        type=message.type,
        priority=message.priority,
        parameters=dict(message.parameters),
        enrolled_time=moment(message, "enrolled_time"),
        enrolled_by=message.enrolled_by,
        development=message.development,
    )


def _added(response: pb.AddSealProviderResponse) -> SealProvider:
    return _provider(response.provider)


def _nothing(response: pb.RemoveSealProviderResponse) -> None:
    del response


def _all(response: pb.ListSealProvidersResponse) -> SealProviderList:
    return SealProviderList(
        tuple(_provider(message) for message in response.providers),
        tuple(MemberSealProviders(m.node_id, healths(m.providers), m.error) for m in response.members),
    )


def _tested(response: pb.TestSealProviderResponse) -> SealProviderTest:
    (provider,) = healths([response.provider])
    return SealProviderTest(response.node_id, provider)
