"""Policies and tokens as an operator uses them, on three nodes: what was revoked is accepted nowhere."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.running import Running, running_cluster

from holdfast.client import errors
from holdfast.client.cli.app import App
from holdfast.client.cli.main import run


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with running_cluster() as cluster:
        yield cluster


class Holdfast:
    """The command, with a token."""

    def __init__(self, running: Running, capsys: pytest.CaptureFixture[str], token: str = "") -> None:
        self._running = running
        self._capsys = capsys
        self._token = token or running.token

    def __call__(self, *arguments: str, code: int = 0) -> str:
        environment = {
            "HOLDFAST_ADDR": ",".join(node.api_address for node in self._running.cluster.nodes),
            "HOLDFAST_CACERT": str(self._running.cluster.ca_file),
            "HOLDFAST_TOKEN": self._token,
        }
        self._capsys.readouterr()
        assert run(arguments, App(environment)) == code, self._capsys.readouterr()
        captured = self._capsys.readouterr()
        return (captured.out or captured.err).strip()

    def json(self, *arguments: str) -> Any:
        return json.loads(self("-format=json", *arguments))


def test_an_operator_gives_an_application_what_it_needs_and_no_more(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Holdfast(running, capsys)
    policy = tmp_path / "web.hcl"
    policy.write_text('path "secret/data/web/*" {\n  capabilities = ["read"]\n}\n')
    root("policy", "write", "web", str(policy))
    root("kv", "put", "secret/web/db", "password=s3cr3t")
    token = root("token", "create", "-field=token", "-policy=web", "-ttl=1h")
    app = Holdfast(running, capsys, token)
    assert app("kv", "get", "-field=password", "secret/web/db") == "s3cr3t"
    assert "permission denied" in app("kv", "put", "secret/web/db", "password=x", code=2)
    assert app("token", "capabilities", "secret/data/web/db") == "read"
    accessor = app("token", "lookup", "-field=accessor")

    told = root.json("policy", "why-denied", f"-accessor={accessor}", "-operation=update", "secret/data/web/db")
    assert (told["reason"], told["missing_capability"]) == ("missing_capability", "update")
    assert told["deciding_rule"]["from"] == [{"policy": "web", "line": 1}]
    shown = root("policy", "why-denied", f"-accessor={accessor}", "-operation=update", "secret/data/web/db")
    assert "DENIED" in shown
    assert "web:1" in shown

    policy.write_text('path "secret/data/web/*" {\n  capabilities = ["raed"]\n}\n')
    assert "line 2, column 19" in root("policy", "write", "web", str(policy), code=2)
    root("token", "revoke", "-yes", f"-accessor={accessor}")
    app("kv", "get", "secret/web/db", code=2)


def test_a_revoked_tree_is_accepted_by_no_node_once_the_revocation_is_acknowledged(running: Running) -> None:
    with running.client() as client:
        made = client.logical.write("auth/token/create", {"policies": ["root"]}).auth
        assert made is not None
        children = []
        with running.cluster.client(token=made["client_token"]) as parent:
            for _ in range(10):
                child = parent.logical.write("auth/token/create", {}).auth
                assert child is not None
                children.append(child["client_token"])
        client.logical.write("auth/token/revoke-accessor", {"accessor": made["accessor"]})
    for token in (made["client_token"], *children):
        for node in running.cluster.nodes:
            with (
                running.cluster.client(node.api_address, token=token) as revoked,
                pytest.raises(errors.Unauthenticated),
            ):
                revoked.kv.get("web/db")


def test_a_token_with_uses_is_used_exactly_as_often_over_all_nodes(running: Running) -> None:
    with running.client() as client:
        client.kv.put("counted", {"a": 1})
        made = client.logical.write("auth/token/create", {"policies": ["root"], "num_uses": 7}).auth
    assert made is not None

    def read(number: int) -> bool:
        address = running.cluster.nodes[number % 3].api_address
        with running.cluster.client(address, token=made["client_token"]) as reader:
            try:
                return reader.kv.get("counted").data == {"a": 1}
            except errors.Unauthenticated:
                return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(read, range(24))) == 7


def test_an_engine_is_enabled_moved_and_disabled_and_leaves_nothing(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Holdfast(running, capsys)
    root("secrets", "enable", "-path=team/web", "kv-v2")
    root("kv", "put", "-mount=team/web", "a/1", "value=x")
    with running.client() as client:
        for number in range(2, 300):
            client.logical.write(f"team/web/data/a/{number}", {"data": {"n": number}})
    root("secrets", "move", "team/web", "team/shop")
    assert root("kv", "get", "-mount=team/shop", "-field=value", "a/1") == "x"
    root("secrets", "disable", "-yes", "team/shop")
    root("kv", "get", "-mount=team/shop", "a/1", code=2)
    assert "team/shop/" not in root.json("secrets", "list")
