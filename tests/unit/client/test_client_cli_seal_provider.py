"""How unseal providers are shown and given on the command line."""

from datetime import UTC, datetime, timedelta

import pytest

from holdfast.client import LocalError
from holdfast.client.cli import operator_seal_provider as cli
from holdfast.client.seal_provider_results import (
    MemberSealProviders,
    SealProvider,
    SealProviderHealth,
    SealProviderList,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def health(name: str, word: str, **changes: object) -> SealProviderHealth:
    given = {"type": "awskms", "priority": 1, "last_check": NOW, "last_success": None, "duration": timedelta(0)}
    return SealProviderHealth(name=name, health=word, **{**given, **changes})  # type: ignore[arg-type]


def test_every_provider_is_shown_as_every_node_finds_it() -> None:
    kms = SealProvider("kms", "awskms", 1, {"key_id": "k"}, NOW, "node-1")
    members = (
        MemberSealProviders("node-1", (health("kms", "healthy", last_success=NOW),)),
        MemberSealProviders("node-2", (health("kms", "refused", message="see its IAM policy"),)),
        MemberSealProviders("node-3", (), error="not delivered"),
        MemberSealProviders("node-4", ()),
    )
    text = cli._list_text(SealProviderList((kms,), members))
    rows = {line.split()[3]: line for line in text.splitlines()[2:]}
    assert "healthy" in rows["node-1"]
    assert "2026-01-02T03:04:05Z" in rows["node-1"]
    assert rows["node-2"].endswith("see its IAM policy")
    assert rows["node-3"].endswith("not delivered")
    assert rows["node-4"].endswith("not yet seen by it")
    assert "development" not in text
    facts = cli._list_facts(SealProviderList((kms,), members))["data"]
    assert facts["providers"][0]["parameters"] == {"key_id": "k"}
    assert facts["members"][2] == {"node_id": "node-3", "error": "not delivered", "providers": []}
    assert "shares unseal" in cli._list_text(SealProviderList((), members))


def test_a_provider_for_development_says_so_everywhere() -> None:
    age = SealProvider("dev", "age", 1, {}, NOW, "node-1", development=True)
    assert "for development only" in cli._list_text(SealProviderList((age,), ()))
    assert cli.health_text(health("dev", "healthy", development=True)).endswith("for development only")
    assert cli.health_text(health("kms", "healthy")) == "kms (awskms): healthy"


@pytest.mark.parametrize("arguments", [("key",), ("=x",), ("a=1", "a=2")])
def test_parameters_are_written_as_pairs(arguments: tuple[str, ...]) -> None:
    with pytest.raises(LocalError):
        cli._parameters(arguments)
    assert cli._parameters(("a=b=c", "d=")) == {"a": "b=c", "d": ""}
