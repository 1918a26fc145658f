"""No secret, token, share or name of a secret is in a repr or an error."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from support.fake_server import FakeNode

from holdfast.client import AsyncClient, Client, ClientConfig, errors
from holdfast.client.calls import kv, logical, sys
from holdfast.client.cli.app import App
from holdfast.client.results import InitResult, KvSecret, LogicalResponse
from holdfast.client.session import ClientState

MARKERS = ("hvs.planted-token", "planted-value", "planted/name", "planted-share")


def silent(text: str) -> bool:
    return not any(marker in text for marker in MARKERS)


def test_nothing_that_holds_a_secret_shows_it() -> None:
    config = ClientConfig(token="hvs.planted-token")
    state = ClientState(config)
    put = kv.put("secret", "planted/name", {"x": "planted-value"}, None)
    session = state.begin(put, 0.0)
    shown = [
        config,
        state,
        Client(config),
        Client(config).kv,
        put,
        session,
        session.attempt(0.0),
        sys.unseal("planted-share", reset=False),
        sys.unseal_cluster("planted-share"),
        logical.write("planted/name", {"x": "planted-value"}),
        KvSecret(1, None, data={"x": "planted-value"}, custom_metadata={"x": "planted-value"}),
        InitResult(("planted-share",), "hvs.planted-token"),
        LogicalResponse({"x": "planted-value"}),
        App(settings={"token": "hvs.planted-token"}, environment={"HOLDFAST_TOKEN": "hvs.planted-token"}),
    ]
    assert dict(session.attempt(0.0).metadata)["x-holdfast-token"] == "hvs.planted-token"
    assert all(silent(repr(thing)) for thing in shown)


@pytest.mark.parametrize("token", ["hvs.planted-token\x00", "hvs.planted-token two", "hvs.planted-token\u00fc"])
def test_a_token_that_cannot_be_one_is_refused_without_showing_it(token: str) -> None:
    client = Client(ClientConfig())
    for attempt in (lambda: ClientConfig(token=token), lambda: setattr(client, "token", token)):
        with pytest.raises(errors.InvalidArgument) as raised:
            attempt()
        assert silent(str(raised.value))


def test_an_error_holds_nothing_of_the_request(tmp_path: Path) -> None:
    with FakeNode(tmp_path / "ca") as node:
        config = ClientConfig(addresses=node.address, token="hvs.planted-token", ca_file=node.ca_file)
        told: list[BaseException] = []

        async def with_asyncio() -> None:
            async with AsyncClient(config) as client:
                with pytest.raises(errors.Unauthenticated) as raised:
                    await client.kv.put("planted/name", {"x": "planted-value"})
                told.append(raised.value)

        asyncio.run(with_asyncio())
        with Client(config) as client, pytest.raises(errors.Unauthenticated) as refused:
            client.kv.put("planted/name", {"x": "planted-value"})
        with (
            Client(replace(config, addresses="127.0.0.1:1", max_retries=0)) as client,
            pytest.raises(errors.Unavailable) as unreachable,
        ):
            client.sys.unseal("planted-share")
    for error in (*told, refused.value, unreachable.value):
        assert isinstance(error, errors.HoldfastError)
        assert error.__cause__ is None
        assert silent(repr(error) + str(error.details) + str(error))
        assert error.__context__ is None, "the gRPC error does not travel along"
