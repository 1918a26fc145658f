"""node.yaml: strict reading, and errors that name the file and the field."""

import datetime
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from holdfast.cluster.raft.timing import Limits
from holdfast.cluster.seal.providers.credentials import Pkcs11Credentials
from holdfast.server.certs import create_ca, issue_node
from holdfast.server.config import Address, ConfigError, load, parse, parse_address
from holdfast.server.preflight import check

NOW = datetime.datetime.now(datetime.UTC)
FILE = Path("/etc/holdfast/node.yaml")


def document() -> dict[str, Any]:
    tls = {"cert_file": "node-1.crt", "key_file": "node-1.key", "ca_file": "ca.crt"}
    return {
        "node_id": "node-1",
        "cluster_name": "demo",
        "data_dir": "data",
        "api": {"bind": "127.0.0.1:8200", "tls": dict(tls)},
        "cluster": {
            "bind": "127.0.0.1:8201",
            "tls": dict(tls),
            "initial_members": [
                {"node_id": f"node-{n}", "cluster_address": f"127.0.0.1:83{n}1", "api_address": f"127.0.0.1:83{n}0"}
                for n in (0, 1, 2)
            ],
        },
        "metrics": {"bind": "127.0.0.1:8202"},
        "log": {"level": "info", "format": "json"},
    }


def own_member(config: dict[str, Any]) -> dict[str, Any]:
    member: dict[str, Any] = config["cluster"]["initial_members"][1]
    member.update(cluster_address="127.0.0.1:8201", api_address="127.0.0.1:8200")
    return member


def good() -> dict[str, Any]:
    config = document()
    own_member(config)
    return config


def set_at(path: str, value: object) -> dict[str, Any]:
    config: Any = good()
    here = config
    *parents, last = path.split(".")
    for name in parents:
        here = here[int(name) if name.isdigit() else name]
    if value is None:
        del here[last]
    else:
        here[last] = value
    return config  # type: ignore[no-any-return]


def test_a_good_document_is_completed_with_absolute_paths_and_advertised_addresses() -> None:
    config = parse(yaml.safe_dump(good()), FILE)
    assert config.api.advertise == "127.0.0.1:8200"
    assert config.cluster.tls.key_file == "/etc/holdfast/node-1.key"
    assert config.data_dir == "/etc/holdfast/data"
    assert [m.node_id for m in config.cluster.initial_members] == ["node-0", "node-1", "node-2"]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("nod_id", "x", "nod_id: unknown field"),
        ("node_id", None, "node_id: missing"),
        ("node_id", 7, "node_id: Expected `str`, got `int`"),
        ("node_id", "Node_1", "node_id: lower-case letters"),
        ("cluster_name", "", "cluster_name: "),
        ("data_dir", "", "data_dir: must not be empty"),
        ("api.tls.cert_file", None, "api.tls.cert_file: missing"),
        ("api.tls.cert_file", "", "api.tls.cert_file: must not be empty"),
        ("api.tls.cert_fil", "x", "api.tls.cert_fil: unknown field"),
        ("api.bind", "127.0.0.1", "api.bind: '127.0.0.1' has no port"),
        ("api.bind", "127.0.0.1:99999", "api.bind: '99999' is not a port"),
        ("api.bind", "127.0.0.300:8200", "api.bind: '127.0.0.300' is not an IPv4 address"),
        ("api.bind", "::1:8200", "api.bind: '::1:8200' is ambiguous"),
        ("api.advertise", "0.0.0.0:8200", "api.advertise: '0.0.0.0:8200' cannot be dialled"),
        ("cluster.bind", "127.0.0.1:8200", "cluster.bind: '127.0.0.1:8200' is already the address of api.bind"),
        ("metrics.bind", "bad host:1", "metrics.bind: 'bad host' is not a host name"),
        ("metrics.port", 1, "metrics.port: unknown field"),
        ("log.level", "loud", "log.level: must be one of debug, info, warning, error"),
        ("cluster.initial_members.0.api_address", None, "cluster.initial_members[0].api_address: missing"),
        ("cluster.initial_members.0.weight", 3, "cluster.initial_members[0].weight: unknown field"),
        ("cluster.initial_members.0.node_id", "node-2", "cluster.initial_members[2]: 'node-2' is given twice"),
        ("cluster.initial_members.1.node_id", "node-9", "cluster.initial_members: does not list this node, 'node-1'"),
        (
            "cluster.initial_members.1.cluster_address", "127.0.0.1:9999",
            "cluster.initial_members: gives this node as 127.0.0.1:9999, cluster.advertise as 127.0.0.1:8201",
        ),
        (
            "cluster.initial_members.1.api_address", "127.0.0.1:9999",
            "cluster.initial_members: gives this node as 127.0.0.1:9999, api.advertise as 127.0.0.1:8200",
        ),
    ],
)  # fmt: skip
def test_every_error_names_the_file_and_the_field(path: str, value: object, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(yaml.safe_dump(set_at(path, value)), FILE)
    assert str(caught.value).startswith(f"{FILE}: {expected}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "must be a mapping"),
        ("- a", "must be a mapping"),
        ("a: [", "not valid YAML"),
        ("node_id: a\nnode_id: b\n", "'node_id' is given twice (line 2, column 1)"),
        ("api:\n  bind: a\n  bind: b\n", "'bind' is given twice (line 3, column 3)"),
        ("a: !!python/object/apply:os.system [true]", "not valid YAML"),
    ],
)
def test_what_is_not_a_strict_yaml_mapping_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE)
    assert expected in str(caught.value)
    assert str(FILE) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:1", Address("127.0.0.1", 1)),
        ("[::1]:8200", Address("::1", 8200)),
        ("node-1.example.net:65535", Address("node-1.example.net", 65535)),
        ("localhost:08200", Address("localhost", 8200)),
    ],
)
def test_addresses_parse(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text", ["", ":", "a:", ":1", "a:0", "a:65536", "[::1:1", "[x]:1", "a b:1", "a:\u0661", "1.2.3:4"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_address(text)


@pytest.fixture
def node_files(tmp_path: Path) -> Path:
    create_ca(tmp_path / "certs", "test")
    for name in ("node-1", "node-2"):
        issue_node(tmp_path / "certs", name, [], ["127.0.0.1"])
    config = good()
    for section in ("api", "cluster"):
        config[section]["tls"] = {
            "cert_file": "certs/node-1.crt", "key_file": "certs/node-1.key", "ca_file": "certs/ca.crt"
        }  # fmt: skip
    (tmp_path / "node.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def preflight(folder: Path) -> None:
    file = folder / "node.yaml"
    check(load(file), file=file, now=NOW)


def test_good_files_pass(node_files: Path) -> None:
    preflight(node_files)


def test_a_missing_certificate_is_named(node_files: Path) -> None:
    (node_files / "certs" / "node-1.crt").unlink()
    with pytest.raises(ConfigError, match=r"node\.yaml: api\.tls\.cert_file: .*cannot be read: No such file"):
        preflight(node_files)


def test_a_file_that_is_no_certificate_is_named(node_files: Path) -> None:
    (node_files / "certs" / "ca.crt").write_text("nonsense")
    with pytest.raises(ConfigError, match=r"api\.tls\.ca_file: not a PEM certificate"):
        preflight(node_files)


def test_a_key_that_anyone_can_read_is_refused(node_files: Path) -> None:
    (node_files / "certs" / "node-1.key").chmod(0o644)
    with pytest.raises(ConfigError, match=r"api\.tls\.key_file: anyone on this machine can use it \(mode 0644\)"):
        preflight(node_files)


def test_another_nodes_key_is_refused(node_files: Path) -> None:
    certs = node_files / "certs"
    (certs / "node-1.key").write_bytes((certs / "node-2.key").read_bytes())
    with pytest.raises(ConfigError, match=r"api\.tls\.key_file: does not belong to the certificate"):
        preflight(node_files)


def test_another_nodes_certificate_is_refused_on_the_cluster_port(node_files: Path) -> None:
    file = node_files / "node.yaml"
    config = yaml.safe_load(file.read_text())
    config["cluster"]["tls"] = {
        "cert_file": "certs/node-2.crt", "key_file": "certs/node-2.key", "ca_file": "certs/ca.crt"
    }  # fmt: skip
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=r"cluster\.tls\.cert_file: issued to node-2, but node_id is node-1"):
        preflight(node_files)


def test_a_certificate_of_another_ca_is_refused_on_the_cluster_port(node_files: Path) -> None:
    create_ca(node_files / "other", "other")
    (node_files / "certs" / "ca.crt").write_bytes((node_files / "other" / "ca.crt").read_bytes())
    with pytest.raises(ConfigError, match=r"cluster\.tls\.cert_file: not signed by the CA in cluster\.tls\.ca_file"):
        preflight(node_files)


def test_an_expired_certificate_is_refused(node_files: Path) -> None:
    file = node_files / "node.yaml"
    with pytest.raises(ConfigError, match=r"api\.tls\.cert_file: expired on"):
        check(load(file), file=file, now=NOW + datetime.timedelta(days=4000))


def test_a_data_folder_that_is_a_file_is_refused(node_files: Path) -> None:
    (node_files / "data").write_text("")
    with pytest.raises(ConfigError, match=r"data_dir: .* is not a folder"):
        preflight(node_files)


def test_reading_the_configuration_changes_nothing(node_files: Path) -> None:
    before = sorted(os.listdir(node_files))
    preflight(node_files)
    assert sorted(os.listdir(node_files)) == before


@pytest.mark.parametrize(
    ("given", "grace_s"),
    [("15s", 15), ("2s", 2), (20, 20), (2.5, 2.5), ("1m30s", 90), ("1500ms", 1.5), ("30", 30), ("24h", 86400)],
)
def test_the_grace_is_a_duration_or_plain_seconds(given: object, grace_s: float) -> None:
    config = good()
    config["seal"] = {"quorum_loss_grace": given}
    assert parse(yaml.safe_dump(config), FILE).seal.grace_s == grace_s


def test_without_a_seal_section_a_node_seals_after_fifteen_seconds_and_waits_for_people() -> None:
    seal = parse(yaml.safe_dump(good()), FILE).seal
    assert (seal.grace_s, seal.on_quorum_return, seal.seal_on_quorum_loss) == (15, "manual", True)


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ({"quorum_loss_grace": "soon"}, "seal.quorum_loss_grace"),
        ({"quorum_loss_grace": "-5s"}, "seal.quorum_loss_grace"),
        ({"quorum_loss_grace": 0}, "seal.quorum_loss_grace"),
        ({"quorum_loss_grace": "999ms"}, "seal.quorum_loss_grace"),
        ({"quorum_loss_grace": "25h"}, "seal.quorum_loss_grace"),
        ({"quorum_loss_grace": float("nan")}, "seal.quorum_loss_grace"),
        ({"quorum_loss_grace": float("inf")}, "seal.quorum_loss_grace"),
        ({"quorum_loss_grace": True}, "seal.quorum_loss_grace"),
        ({"quorum_loss_grace": None}, "seal.quorum_loss_grace"),
        ({"on_quorum_return": "auto"}, "seal.on_quorum_return: auto needs this node's credentials"),
        ({"provider_check_interval": "0s"}, "seal.provider_check_interval: from 1s to 1h"),
        ({"provider_check_interval": "soon"}, "seal.provider_check_interval"),
        ({"providers": {"kms": {"type": "gcp"}}}, "must be one of transit, awskms, pkcs11, age"),
        ({"providers": {"kms": {"profile": "p"}}}, "type: missing"),
        ({"providers": {"kms": {"type": "awskms", "secret_key": "x"}}}, "secret_key: unknown field"),
        ({"providers": {"Kms": {"type": "awskms"}}}, "seal.providers: a provider's name is"),
        ({"providers": {"hsm": {"type": "pkcs11", "module": "m.so"}}}, "seal.providers.hsm.pin_file"),
        ({"providers": {"v": {"type": "transit", "token_file": ""}}}, "seal.providers.v.token_file: must not be empty"),
        (
            {"providers": {"v": {"type": "transit", "token_file": "t", "address": "http://v"}}},
            "seal.providers.v.address: must be https",
        ),
        ({"on_quorum_return": "never"}, "seal.on_quorum_return"),
        ({"seal_on_quorum_loss": "yes please"}, "seal.seal_on_quorum_loss"),
        ({"quorum_loss_gracee": 5}, "seal.quorum_loss_gracee: unknown field"),
        ({"share_with_peers": "some"}, "seal.share_with_peers"),
    ],
)
def test_a_seal_section_that_cannot_be_used_is_refused_by_field(section: dict[str, Any], field: str) -> None:
    config = good()
    config["seal"] = section
    with pytest.raises(ConfigError) as refused:
        parse(yaml.safe_dump(config), FILE)
    assert field in str(refused.value)


@pytest.mark.parametrize(
    ("section", "shares"),
    [
        ({}, False),
        ({"on_quorum_return": "manual", "share_with_peers": True}, True),
        ({"on_quorum_return": "peers"}, True),
        ({"on_quorum_return": "peers", "share_with_peers": False}, False),
    ],
)
def test_a_node_shares_the_root_key_with_peers_if_it_wants_it_from_them_or_says_so(
    section: dict[str, Any], shares: object
) -> None:
    config = good()
    config["seal"] = section
    assert parse(yaml.safe_dump(config), FILE).seal.shares_with_peers is shares


def test_the_tail_of_the_log_is_configured_and_5000_without_it() -> None:
    assert parse(yaml.safe_dump(good()), FILE).raft.limits == Limits()
    config = good()
    config["raft"] = {"log_tail": 300}
    limits = parse(yaml.safe_dump(config), FILE).raft.limits
    assert (limits.log_tail, limits.trim_step) == (300, 300)


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ({"log_tail": 99}, "raft.log_tail"),
        ({"log_tail": 1_000_001}, "raft.log_tail"),
        ({"log_tail": -1}, "raft.log_tail"),
        ({"log_tail": "5000"}, "raft.log_tail"),
        ({"log_tail": 500.5}, "raft.log_tail"),
        ({"log_tail": True}, "raft.log_tail"),
        ({"log_tails": 500}, "raft.log_tails: unknown field"),
    ],
)
def test_a_raft_section_that_cannot_be_used_is_refused_by_field(section: dict[str, Any], field: str) -> None:
    config = good()
    config["raft"] = section
    with pytest.raises(ConfigError) as refused:
        parse(yaml.safe_dump(config), FILE)
    assert field in str(refused.value)


def test_auto_with_a_provider_is_taken_and_its_files_start_at_the_folder_of_the_file() -> None:
    config = good()
    config["seal"] = {
        "on_quorum_return": "auto",
        "provider_check_interval": "5s",
        "providers": {
            "hsm": {"type": "pkcs11", "module": "/usr/lib/hsm.so", "pin_file": "pin"},
            "kms": {"type": "awskms"},
        },
    }
    seal = parse(yaml.safe_dump(config), FILE).seal
    assert seal.providers["hsm"] == Pkcs11Credentials(module="/usr/lib/hsm.so", pin_file=str(FILE.parent / "pin"))
    assert seal.check_interval_s == 5
    assert not seal.asks_peers
    shares = msgspec.structs.replace(seal, share_with_peers=True)
    assert shares.asks_peers
