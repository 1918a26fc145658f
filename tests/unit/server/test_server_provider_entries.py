"""Credentials for unseal providers, read again when node.yaml has changed under the running node."""

import os
from pathlib import Path
from typing import Any

import yaml
from structlog.testing import capture_logs

from holdfast.cluster.seal.providers.credentials import AgeCredentials, AwsKmsCredentials
from holdfast.server.config import load
from holdfast.server.provider_entries import ProviderEntries

TLS = {"cert_file": "a.crt", "key_file": "a.key", "ca_file": "ca.crt"}


def write(file: Path, providers: dict[str, Any], stamp: int) -> None:
    document = {
        "node_id": "node-1", "data_dir": "data", "api": {"bind": "127.0.0.1:1", "tls": dict(TLS)},
        "cluster": {"bind": "127.0.0.1:2", "tls": dict(TLS)}, "seal": {"providers": providers},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(document))
    os.utime(file, ns=(stamp, stamp))


def test_what_is_written_into_node_yaml_holds_from_then_on_and_what_is_wrong_there_never_does(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    write(file, {"kms": {"type": "awskms"}}, 10**9)
    entries = ProviderEntries(load(file).seal.providers, file)
    assert entries("kms") == AwsKmsCredentials()
    assert entries("dev") is None
    write(file, {"dev": {"type": "age", "identity_file": "id"}}, 2 * 10**9)
    assert entries("dev") == AgeCredentials(identity_file=str(tmp_path / "id"))
    assert entries("kms") is None
    write(file, {"dev": {"type": "nonsense"}}, 3 * 10**9)
    with capture_logs() as logs:
        assert entries("dev") == AgeCredentials(identity_file=str(tmp_path / "id"))
        assert entries("dev") is not None
    assert [log["event"] for log in logs] == ["seal_providers_not_reread"], "told once"
    file.unlink()
    assert entries("dev") is not None


def test_without_a_file_the_entries_stay() -> None:
    entries = ProviderEntries({"kms": AwsKmsCredentials()}, None)
    assert entries("kms") == AwsKmsCredentials()
