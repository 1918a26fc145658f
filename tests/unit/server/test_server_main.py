"""The holdfastd command: help with examples, errors that can be acted on, exit codes."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast


def holdfastd(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast.server.main", *arguments], capture_output=True, text=True, check=False
    )


def test_the_version_comes_alone() -> None:
    result = holdfastd("--version")
    assert (result.returncode, result.stdout.strip()) == (0, f"holdfastd {holdfast.__version__}")


@pytest.mark.parametrize(
    "command", [(), ("certs",), ("certs", "create-ca"), ("certs", "issue"), ("dev",), ("recover",)]
)
def test_every_help_has_an_example(command: tuple[str, ...]) -> None:
    result = holdfastd(*command, "--help")
    assert result.returncode == 0
    assert "Example" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "Name the configuration"),
        (("--config", "/nonexistent/node.yaml"), "/nonexistent/node.yaml: cannot be read"),
        (("--frobnicate",), "No such option"),
        (("frobnicate",), "No such command"),
        (("--check-config", "dev"), "do not go with 'dev'"),
    ],
)
def test_what_is_wrong_is_said_on_stderr_with_exit_code_1(arguments: tuple[str, ...], expected: str) -> None:
    result = holdfastd(*arguments)
    assert result.returncode == 1
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_development_node_says_that_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = holdfastd("dev", "--port", str(port))
    assert result.returncode == 1
    assert result.stderr.startswith(f"holdfastd: port {port} is taken; ")


def test_a_certificate_needs_a_ca(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    result = holdfastd("certs", "issue", str(tmp_path), "node-1")
    assert result.returncode == 1
    assert "Create the CA first" in result.stderr


def test_certificates_are_made_and_a_good_configuration_is_said_to_be_good(tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    assert holdfastd("certs", "create-ca", str(certs)).returncode == 0
    made = holdfastd("certs", "issue", str(certs), "node-1", "--dns", "localhost", "--ip", "127.0.0.1")
    assert made.returncode == 0
    assert f"{certs}/node-1.key" in made.stdout
    assert "valid for    node-1, localhost, 127.0.0.1" in made.stdout
    tls = f"{{cert_file: {certs}/node-1.crt, key_file: {certs}/node-1.key, ca_file: {certs}/ca.crt}}"
    config = tmp_path / "node.yaml"
    config.write_text(
        f"node_id: node-1\ndata_dir: {tmp_path}/data\napi: {{bind: '127.0.0.1:8200', tls: {tls}}}\n"
        f"cluster: {{bind: '127.0.0.1:8201', tls: {tls}}}\n"
    )
    result = holdfastd("--config", str(config), "--check-config")
    assert (result.returncode, result.stdout) == (0, f"{config}: good\n")
    assert not (tmp_path / "data").exists(), "checking changes nothing"
    config.write_text(config.read_text() + "log: {level: loud}\n")
    result = holdfastd("--config", str(config), "--check-config")
    assert result.returncode == 1
    assert "log.level" in result.stderr
