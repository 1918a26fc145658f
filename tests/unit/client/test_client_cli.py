"""The `holdfast` command, run against a fake node over real TLS: what it prints, where, and how it ends."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from support.fake_server import SHARES, TOKEN, FakeCluster, FakeNode

import holdfast
from holdfast.client import LocalError
from holdfast.client.cli import app as app_module
from holdfast.client.cli import operator_diagnose
from holdfast.client.cli.app import App
from holdfast.client.cli.errors import next_step
from holdfast.client.cli.main import cli, run
from holdfast.client.cli.server import run_node
from holdfast.client.config import TOKEN_FILE_NAME
from holdfast.proto import errors
from holdfast.server import certs


@dataclass
class Outcome:
    """How one command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class Stdin(io.TextIOWrapper):
    """Standard input with text in it, that is or is not a terminal."""

    def __init__(self, text: str, *, terminal: bool) -> None:
        super().__init__(io.BytesIO(text.encode()), encoding="utf-8")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


Holdfast = Callable[..., Outcome]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    with FakeNode(tmp_path / "ca") as node:
        yield node


@pytest.fixture
def command(
    node: FakeNode, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Holdfast:
    """Runs `holdfast` in a home of its own, connected to the node."""
    home = tmp_path / "home"
    home.mkdir()
    base = {"HOLDFAST_ADDR": node.address, "HOLDFAST_CACERT": str(node.ca_file), "HOLDFAST_TOKEN": TOKEN}

    def holdfast(*arguments: str, stdin: str = "", terminal: bool = False, **environment: str) -> Outcome:
        monkeypatch.setattr(sys, "stdin", Stdin(stdin, terminal=terminal))
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
        code = run(arguments, App(environment=base | environment, home=home))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return holdfast


def test_a_secret_is_put_and_got_as_a_table(command: Holdfast) -> None:
    put = command("kv", "put", "secret/myapp/db", "username=admin", "password=s3cret")
    assert (put.code, put.err) == (0, "")
    assert put.out == (
        "Key              Value\n"
        "---              -----\n"
        "created_time     2026-11-24T04:11:17.123000Z\n"
        "deletion_time    n/a\n"
        "destroyed        false\n"
        "version          1\n"
    )
    assert command("kv", "get", "secret/myapp/db").out == (
        "================ Metadata ================\n"
        "Key             Value\n"
        "---             -----\n"
        "created_time    2026-11-24T04:11:17.123000Z\n"
        "destroyed       false\n"
        "version         1\n"
        "\n"
        "================== Data ==================\n"
        "Key         Value\n"
        "---         -----\n"
        "username    admin\n"
        "password    s3cret\n"
    )


def test_json_and_yaml_have_one_stable_shape(command: Holdfast) -> None:
    command("kv", "put", "secret/a/b", "x=\u00fc")
    expected = {
        "data": {
            "data": {"x": "\u00fc"},
            "metadata": {
                "created_time": "2026-11-24T04:11:17.123000Z",
                "custom_metadata": None,
                "deletion_time": None,
                "destroyed": False,
                "version": 1,
            },
        }
    }
    assert command("kv", "get", "-format=json", "secret/a/b").json() == expected
    assert yaml.safe_load(command("kv", "get", "secret/a/b", "--format", "yaml").out) == expected
    assert command("kv", "get", "secret/a/b", HOLDFAST_FORMAT="json").json() == expected
    assert command("kv", "get", "secret/a/b", VAULT_FORMAT="json").json() == expected
    assert command("-format=json", "kv", "list", "secret/").json() == ["a/"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["kv", "get", "-field=x", "secret/a/b"],
        ["kv", "get", "secret/a/b", "--field", "x"],
        ["kv", "get", "-mount=secret", "a/b", "-field", "x"],
        ["kv", "get", "-version=1", "-field=x", "secret/a/b"],
        ["-timeout=5s", "kv", "-tls-server-name=localhost", "get", "secret/a/b", "-field=x"],
    ],
)
def test_a_field_is_printed_bare_however_the_flags_are_written(command: Holdfast, arguments: list[str]) -> None:
    command("kv", "put", "secret/a/b", "x=bare value")
    assert command(*arguments).out == "bare value"


def test_a_secret_goes_through_its_whole_life(command: Holdfast, node: FakeNode) -> None:
    assert command("kv", "put", "-cas=0", "secret/a/b", "x=1", "y=1").code == 0
    refused = command("kv", "put", "-cas=0", "secret/a/b", "x=2")
    assert refused.code == 2
    assert "check-and-set" in refused.err
    assert command("kv", "patch", "secret/a/b", "x=2", "-remove-data=y", "-field=version").out == "2"
    assert command("kv", "get", "-format=json", "secret/a/b").json()["data"]["data"] == {"x": "2"}
    assert command("kv", "rollback", "-version=1", "secret/a/b", "-field=version").out == "3"
    assert command("kv", "get", "-field=y", "secret/a/b").out == "1"
    assert command("kv", "delete", "-versions=1,3", "secret/a/b").out.startswith("Deleted versions 1, 3")
    assert command("kv", "get", "secret/a/b").code == 0
    gone = command("kv", "get", "-field=x", "secret/a/b")
    assert (gone.code, gone.err) == (
        2,
        "Error: version 3 is deleted; `holdfast kv undelete -versions=3` brings it back.\n",
    )
    assert command("kv", "rollback", "-version=1", "secret/a/b").code == 2
    assert command("kv", "undelete", "-versions=3", "secret/a/b").code == 0
    assert command("kv", "destroy", "-versions=1", "-yes", "secret/a/b").code == 0
    settings = ["-max-versions=5", "-cas-required", "-delete-version-after=2h", "-custom-metadata=owner=me"]
    assert command("kv", "metadata", "put", *settings, "secret/a/b").code == 0
    assert command("kv", "metadata", "put", "-cas-required=false", "secret/a/b").code == 0
    known = command("kv", "metadata", "get", "-format=json", "secret/a/b").json()["data"]
    assert (known["max_versions"], known["cas_required"], known["delete_version_after"]) == (5, False, "2h")
    assert known["custom_metadata"] == {"owner": "me"}
    assert known["versions"]["1"]["destroyed"]
    assert "Version    Created" in command("kv", "metadata", "get", "secret/a/b").out
    assert command("kv", "metadata", "delete", "-yes", "secret/a/b").code == 0
    assert command("kv", "get", "secret/a/b").code == 2
    assert command("kv", "list", "secret").code == 2


def test_values_come_from_standard_input_or_from_an_unseen_prompt(
    command: Holdfast, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("kv", "put", "secret/a/b", "x=-", stdin="from a pipe\n")
    assert command("kv", "get", "-field=x", "secret/a/b").out == "from a pipe\n"
    command("kv", "put", "secret/a/b", "-", stdin='{"n": 12345678901234567890123}')
    assert command("kv", "get", "-field=n", "secret/a/b").out == "12345678901234567890123"
    assert command("kv", "put", "secret/a/b", "x=-", "y=-", stdin="once").code == 1
    monkeypatch.setattr(app_module.getpass, "getpass", lambda prompt: f"typed at {prompt}")
    command("kv", "put", "secret/a/b", "x=-", "y=-", terminal=True)
    assert command("kv", "get", "-field=y", "secret/a/b").out == "typed at Value of y (not shown): "


def test_a_secret_on_the_command_line_is_warned_of_once_and_only_on_a_terminal(command: Holdfast) -> None:
    arguments = ["kv", "put", "secret/a/b", "user=x", "password=hunter2", "api_key=hunter3"]
    assert command(*arguments).err == ""
    warned = command(*arguments, terminal=True).err
    assert warned.count("Warning") == 1
    assert "password, api_key" in warned
    assert "hunter" not in warned
    assert "command line" in command("status", "-token=abc", terminal=True).err


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (["kv", "destroy", "-versions=1", "secret/a/b"], "version 1 for good"),
        (["kv", "metadata", "delete", "secret/a/b"], "all its versions"),
        (["operator", "seal"], "serve nothing"),
        (["operator", "raft", "remove-peer", "node-3"], "node-3"),
    ],
)
def test_what_cannot_be_undone_is_asked_for_or_needs_yes(
    command: Holdfast, node: FakeNode, arguments: list[str], question: str
) -> None:
    command("kv", "put", "secret/a/b", "x=1")
    before = len(node.cluster.calls)
    unasked = command(*arguments)
    assert unasked.code == 1
    assert question in unasked.err
    assert "-yes" in unasked.err
    refused = command(*arguments, stdin="no\n", terminal=True)
    assert refused.code == 1
    assert question in refused.err
    assert len(node.cluster.calls) == before
    assert command(*arguments, stdin="yes\n", terminal=True).code == 0


def test_status_ends_with_0_unsealed_2_sealed_and_1_on_an_error(command: Holdfast, node: FakeNode) -> None:
    unsealed = command("status")
    assert unsealed.code == 0
    assert "Sealed          false" in unsealed.out
    node.sealed = True
    sealed = command("status", "-format=json")
    assert sealed.code == 2
    assert sealed.json()["sealed"] is True
    assert (sealed.json()["t"], sealed.json()["n"], sealed.json()["progress"]) == (3, 5, 0)
    assert "Unseal Progress" in command("status").out
    assert command("status", "-address=127.0.0.1:1").code == 1


def test_errors_end_with_1_when_they_are_local_and_2_when_they_are_remote(command: Holdfast, tmp_path: Path) -> None:
    for local in (
        ["kv"],
        ["kv", "get"],
        ["kv", "get", "secret"],
        ["kv", "gett", "secret/a"],
        ["kv", "get", "-bogus", "secret/a"],
        ["kv", "put", "secret/a"],
        ["kv", "put", "secret/a", "b"],
        ["kv", "patch", "secret/a"],
        ["kv", "patch", "secret/a", "x=1", "-remove-data=x"],
        ["kv", "put", "-cas=x", "secret/a", "b=1"],
        ["kv", "undelete", "secret/a"],
        ["kv", "delete", "-versions=0", "secret/a"],
        ["kv", "metadata", "put", "-custom-metadata=x", "secret/a"],
        ["kv", "metadata", "put", "-delete-version-after=soon", "secret/a"],
        ["write", "x"],
        ["operator", "init", "-n=3", "-t=4"],
        ["operator", "unseal", "-reset", "share"],
        ["operator", "unseal"],
        ["login"],
        ["server"],
        ["status", "-format=xml"],
        ["kv", "get", "-timeout=never", "secret/a"],
        ["kv", "get", "-address=http://a", "secret/a"],
        ["kv", "get", f"-ca-cert={tmp_path}/absent", "secret/a"],
    ):
        outcome = command(*local)
        assert outcome.code == 1, local
        assert outcome.err.startswith("Error: ") or local == ["kv"], local
    assert command("kv", "get", "secret/none").code == 2
    assert command("kv", "get", "secret/a", HOLDFAST_TOKEN="hvs.wrong").code == 2
    assert command("kv", "get", "secret/a", "-address=127.0.0.1:1", HOLDFAST_MAX_RETRIES="0").code == 2


def test_an_error_says_what_happened_and_what_to_do_and_is_json_for_programs(command: Holdfast, node: FakeNode) -> None:
    node.sealed = True
    told = command("kv", "get", "secret/a/b")
    assert told.out == ""
    assert told.err == (
        "Error: this node is sealed. Unseal it with `holdfast operator unseal`, or use another node.\n"
        f"Asked: {node.address}.\n"
    )  # fmt: skip
    told = command("kv", "get", "secret/a/b", "-format=json")
    assert told.out == ""
    error = json.loads(told.err)["error"]
    assert (error["reason"], error["retryable"], error["retry_after_ms"]) == ("SEALED", True, 1000)
    usage = command("kv", "get", "-format=json")
    assert json.loads(usage.err)["error"]["reason"] == "USAGE"
    node.sealed = False
    wrong = command("kv", "get", "secret/a/b", HOLDFAST_TOKEN="hvs.wrong")
    assert "Next: run `holdfast login`" in wrong.err
    assert "Asked:" not in wrong.err, "every node says the same"
    nobody = command("kv", "get", "secret/a/b", "-address=127.0.0.1:1,127.0.0.1:2", HOLDFAST_MAX_RETRIES="0")
    assert nobody.code == 2
    assert "Asked: 127.0.0.1:1, 127.0.0.1:2." in nobody.err


def test_what_the_message_says_to_do_is_not_said_twice() -> None:
    for error in (
        errors.Uninitialized("add this node with `holdfast operator raft join`"),
        errors.OutcomeUnknown("It may have happened. Look at the current state before repeating it."),
    ):
        assert next_step(error) == ""
    assert "sealed or not" in next_step(errors.NoLeader("no leader is known"))


def test_the_way_vault_joins_a_node_is_answered_with_ours(command: Holdfast) -> None:
    told = command("operator", "raft", "join", "https://vault-2:8200")
    assert told.code == 1
    assert "Name the new node: its id, its cluster address and its API address." in told.err


def test_grpc_writes_nothing_of_its_own(node: FakeNode, tmp_path: Path) -> None:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("GRPC_", "HOLDFAST_", "VAULT_"))
    }
    strange = certs.create_ca(tmp_path / "strange-ca", "strange").cert_file
    ran = subprocess.run(
        [sys.executable, "-m", "holdfast.client.cli.main", "status", f"-address={node.address}", f"-ca-cert={strange}"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: "), ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_cluster_is_initialised_unsealed_and_sealed(tmp_path: Path, command: Holdfast) -> None:
    with FakeNode(tmp_path / "new-ca", FakeCluster(initialized=False)) as node:
        there = [f"-address={node.address}", f"-ca-cert={node.ca_file}"]
        made = command("operator", "init", "-key-shares", "5", "-t=3", "-format=json", *there)
        assert made.json()["unseal_keys"] == list(SHARES)
        assert made.json()["root_token"] == TOKEN
        assert command("operator", "init", *there).code == 2
        given = command("operator", "unseal", "-", *there, stdin=SHARES[0] + "\n")
        assert given.code == 0
        assert "1/3" in given.out
        wrong = command("operator", "unseal", "mistyped-share", *there)
        assert wrong.code == 2
        assert "mistyped-share" not in wrong.err
        assert command("operator", "unseal", "-reset", *there).code == 0
        for share in SHARES[:3]:
            status = command("operator", "unseal", share, "-format=json", *there).json()
        assert status["sealed"] is False
        assert command("operator", "seal", "-yes", *there).out == "The node is sealed.\n"
        assert node.sealed


def test_one_ceremony_unseals_the_cluster_and_tells_of_each_node(tmp_path: Path, command: Holdfast) -> None:
    with FakeNode(tmp_path / "new-ca", FakeCluster(initialized=False)) as node:
        there = [f"-address={node.address}", f"-ca-cert={node.ca_file}"]
        command("operator", "init", *there)
        more = command("operator", "unseal", "-cluster", SHARES[0], *there)
        assert more.code == 0
        assert "1/3" in more.out
        assert "More keys are needed to unseal the cluster." in more.out
        command("operator", "unseal", "-cluster", SHARES[1], *there)
        done = command("operator", "unseal", "-cluster", SHARES[2], *there)
        assert done.code == 2, "a node stayed sealed"
        assert [line.split()[0] for line in done.out.splitlines()[-3:]] == ["node-2", "node-3", "node-4"]
        assert "was unsealed already" in done.out
        assert "node node-4 cannot be reached" in done.out
        for share in SHARES[:3]:
            facts = command("operator", "unseal", "-cluster", "-format=json", share, *there).json()
        assert facts["cluster_done"] is True
        assert facts["members"][2] == {
            "node_id": "node-4", "unsealed": False, "already": False, "reason": "node node-4 cannot be reached",
        }  # fmt: skip
        both = command("operator", "unseal", "-cluster", "-reset", *there)
        assert both.code == 1


def test_init_prints_the_keys_the_token_and_what_they_are_for(tmp_path: Path, command: Holdfast) -> None:
    with FakeNode(tmp_path / "new-ca", FakeCluster(initialized=False)) as node:
        out = command("operator", "init", f"-address={node.address}", f"-ca-cert={node.ca_file}").out
    assert out.splitlines()[0] == f"Unseal Key 1: {SHARES[0]}"
    assert f"Initial Root Token: {TOKEN}" in out
    assert "Any 3 of the keys" in out


def test_members_are_listed_added_and_removed(command: Holdfast) -> None:
    lines = command("operator", "raft", "list-peers").out.splitlines()
    assert lines[0].split("    ")[0].strip() == "Node"
    assert [line.split()[3] for line in lines[2:]] == ["leader", "follower", "unreachable"]
    servers = command("operator", "raft", "list-peers", "-format=json").json()["data"]["config"]["servers"]
    assert [server["node_id"] for server in servers] == ["node-1", "node-2", "node-3"]
    assert command("operator", "raft", "join", "node-4", "10.0.0.4:8201", "10.0.0.4:8200").code == 0
    assert command("operator", "raft", "remove-peer", "node-4", "-yes").out == "node-4 is no member any more.\n"
    assert command("operator", "step-down").out == "node-2 leads now.\n"


def test_autopilot_is_shown_and_configured(command: Holdfast) -> None:
    out = command("operator", "raft", "autopilot", "state").out
    assert "Failure Tolerance" in out
    shown = command("operator", "raft", "autopilot", "state", "-format=json").json()["data"]
    assert shown["servers"]["node-1"]["stable_seconds"] == 90
    assert shown["failure_tolerance"] == 1
    told = command(
        "operator", "raft", "autopilot", "set-config", "-cleanup-dead-servers=true", "-min-quorum=3",
        "-dead-server-last-contact-threshold=2h", "-format=json",
    ).json()["data"]  # fmt: skip
    assert (told["cleanup_dead_servers"], told["min_quorum"]) == (True, 3)
    assert told["dead_server_last_contact_threshold"] == "2h"
    assert command("operator", "raft", "autopilot", "get-config", "-format=json").json()["data"] == told
    assert command("operator", "raft", "autopilot", "set-config", "-last-contact-threshold=soon").code == 1


def test_a_nodes_digest_is_shown(command: Holdfast) -> None:
    lines = dict(line.split("    ", 1) for line in command("operator", "raft", "replica").out.splitlines()[2:])
    assert lines["State Digest"].strip() == (b"s" * 16).hex()
    assert command("operator", "raft", "replica", "-format=json").json()["data"]["compared_index"] == 38


def test_any_engine_is_reached_by_path(command: Holdfast) -> None:
    written = command("write", "x/y", "a=1", "-format=json").json()
    assert written["data"] == {"operation": "OPERATION_WRITE", "path": "x/y", "given": {"a": "1"}}
    assert written["warnings"] == ["mind the step"]
    assert command("read", "auth/token/lookup-self", "-field=display_name").out == "root"
    assert command("list", "x").out == "Keys\n----\na/\nb\n"
    assert command("delete", "x", "-field=operation").out == "OPERATION_DELETE"
    assert command("write", "-f", "empty").out == "Written.\n"
    assert command("read", "empty").code == 2


def test_login_checks_a_token_and_keeps_it_for_the_owner_only(
    command: Holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = tmp_path / "home" / TOKEN_FILE_NAME
    assert command("login", "-", stdin="hvs.wrong\n").code == 2
    assert not stored.exists()
    done = command("login", "-method=token", "-", stdin=TOKEN + "\n", HOLDFAST_TOKEN="")
    assert done.code == 0
    assert TOKEN not in done.out + done.err
    assert stored.read_text() == TOKEN + "\n"
    assert stored.stat().st_mode & 0o777 == 0o600
    assert command("kv", "put", "secret/a/b", "x=1", HOLDFAST_TOKEN="").code == 0
    stored.chmod(0o644)
    refused = command("kv", "get", "secret/a/b", HOLDFAST_TOKEN="")
    assert (refused.code, "chmod 600" in refused.err) == (1, True)
    monkeypatch.setattr(app_module.getpass, "getpass", lambda prompt: TOKEN)
    assert command("login", terminal=True).code == 0
    assert "Warning" in command("login", TOKEN, terminal=True).err


def test_the_node_is_run_in_place_of_this_process_or_its_absence_is_told() -> None:
    class Replaced(Exception):
        pass

    def execute(path: str, arguments: list[str]) -> Any:
        raise Replaced([Path(path).name, *arguments[1:]])

    with pytest.raises(Replaced) as replaced:
        run_node(["dev", "--port", "8200"], installed=lambda _library: True, execute=execute)
    assert replaced.value.args[0] == ["holdfastd", "dev", "--port", "8200"]
    with pytest.raises(LocalError, match=r"holdfast\[server\]"):
        run_node(["dev"], installed=lambda library: library != "rocksdict", execute=execute)


def test_diagnose_is_handed_over_with_its_file_and_format(command: Holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr(operator_diagnose, "run_node", lambda arguments, **_: given.append(arguments))
    assert command("operator", "diagnose", "-config=node.yaml", "-format=json").code == 0
    assert given == [["diagnose", "--config", "node.yaml", "--format", "json"]]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(command: Holdfast, shell: str) -> None:
    assert "_HOLDFAST_COMPLETE" in command("completion", shell).out


def test_the_version_is_printed_by_command_and_by_flag(command: Holdfast) -> None:
    for arguments in (["version"], ["-version"], ["--version"]):
        assert command(*arguments).out == f"Holdfast v{holdfast.__version__}\n"


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, below in group.commands.items():
        if isinstance(below, click.Group):
            yield from commands(below, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(commands(cli)), ids=" ".join)
def test_every_help_shows_an_example(command: Holdfast, path: tuple[str, ...]) -> None:
    for flag in ("-h", "-help", "--help"):
        shown = command(*path, flag)
        assert shown.code == 0
        assert "Example" in shown.out
        assert f"holdfast {' '.join(path)}".strip() in shown.out.split("Example")[1]
