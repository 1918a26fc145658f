"""Certificates as they are found on disk: good ones, and every way in which they are not."""

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdfast.server.certs import create_ca, issue_node
from holdfast.server.config import ApiConfig, ClusterConfig, NodeConfig, TlsFiles
from holdfast.server.diagnose.certificates import check_certificates
from holdfast.server.diagnose.finding import Context

NOW = datetime.now(UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_ca(tmp_path / "a", "demo")
    issue_node(tmp_path / "a", "node-1", dns_names=["*.example.org"], ip_addresses=["127.0.0.1"], days=100)
    create_ca(tmp_path / "b", "other")
    return tmp_path


def results(folder: Path, *, advertise: str = "127.0.0.1:8200", node_id: str = "node-1", days: float = 0):
    tls = TlsFiles(
        cert_file=str(folder / "a/node-1.crt"), key_file=str(folder / "a/node-1.key"), ca_file=str(folder / "a/ca.crt")
    )
    config = NodeConfig(
        node_id=node_id,
        data_dir=str(folder / "data"),
        api=ApiConfig(bind="127.0.0.1:8200", advertise=advertise, tls=tls),
        cluster=ClusterConfig(bind="127.0.0.1:8201", advertise="127.0.0.1:8201", tls=tls),
    )
    context = Context(config, now_s=lambda: (NOW + timedelta(days=days)).timestamp())
    return {finding.check: finding for finding in check_certificates(context)}


def test_good_certificates_pass(folder: Path) -> None:
    found = results(folder)
    assert {finding.result for finding in found.values()} == {"pass"}
    assert set(found) == {
        *(f"certificate.{section}.{what}" for section in ("api", "cluster") for what in ("key", "chain", "validity")),
        "certificate.api.names", "certificate.cluster.name",
    }  # fmt: skip


@pytest.mark.parametrize(("days", "result"), [(69, "pass"), (71, "warn"), (101, "fail"), (-2, "fail")])
def test_an_end_that_is_near_warns_and_one_that_has_come_fails(folder: Path, days: float, result: str) -> None:
    assert results(folder, days=days)["certificate.cluster.validity"].result == result


def test_a_missing_certificate_fails_and_nothing_else_is_said_of_it(folder: Path) -> None:
    (folder / "a/node-1.crt").unlink()
    assert {name: finding.result for name, finding in results(folder).items()} == {
        "certificate.api": "fail",
        "certificate.cluster": "fail",
    }
    (folder / "a/node-1.crt").write_text("no PEM")
    assert "not a PEM" in results(folder)["certificate.api"].detail


def test_another_certificates_key_fails(folder: Path) -> None:
    issue_node(folder / "a", "node-2")
    shutil.copy2(folder / "a/node-2.key", folder / "a/node-1.key")
    assert "not the key of" in results(folder)["certificate.api.key"].detail


@pytest.mark.parametrize(("mode", "result"), [(0o600, "pass"), (0o640, "warn"), (0o644, "fail")])
def test_a_key_that_others_can_read_is_told(folder: Path, mode: int, result: str) -> None:
    (folder / "a/node-1.key").chmod(mode)
    assert results(folder)["certificate.api.key"].result == result


def test_a_key_that_is_missing_or_none_fails(folder: Path) -> None:
    (folder / "a/node-1.key").write_text("no key")
    os.chmod(folder / "a/node-1.key", 0o600)
    assert "not an unencrypted" in results(folder)["certificate.api.key"].detail
    (folder / "a/node-1.key").unlink()
    assert "cannot be read" in results(folder)["certificate.api.key"].detail


def test_another_ca_fails(folder: Path) -> None:
    shutil.copy2(folder / "b/ca.crt", folder / "a/ca.crt")
    assert results(folder)["certificate.cluster.chain"].result == "fail"
    (folder / "a/ca.crt").unlink()
    assert "cannot be read" in results(folder)["certificate.cluster.chain"].detail


def test_another_nodes_certificate_fails_on_the_peer_port(folder: Path) -> None:
    finding = results(folder, node_id="node-2")["certificate.cluster.name"]
    assert finding.result == "fail"
    assert "node-2" in finding.remedy


@pytest.mark.parametrize(
    ("advertise", "result"),
    [
        ("127.0.0.1:1", "pass"), ("a.example.org:1", "pass"), ("node-1:1", "pass"),
        ("127.0.0.2:1", "fail"), ("a.b.example.org:1", "fail"), ("example.org:1", "fail"),
    ],
)  # fmt: skip
def test_the_advertised_host_must_be_among_the_names(folder: Path, advertise: str, result: str) -> None:
    assert results(folder, advertise=advertise)["certificate.api.names"].result == result
