"""The configuration of a node: the form of node.yaml, and nothing but its form.

Reading is strict, because a misspelt field that is silently ignored is a setting that silently is not in force:
unknown fields and duplicate keys are refused, and every error names the file and the path of the field. Whether the
files and addresses named here are usable is checked in `preflight.py`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import msgspec
import yaml

from holdfast.cluster.raft.timing import Limits
from holdfast.cluster.seal.providers import credentials as provider_credentials
from holdfast.cluster.seal.providers.contract import NAME_PATTERN, NAME_RULE
from holdfast.cluster.seal.providers.credentials import Credentials
from holdfast.server import snapshot_config
from holdfast.server.durations import seconds
from holdfast.server.snapshot_config import SnapshotSettings

CONFIG_BYTES_MAX = 1024 * 1024
"""The largest node.yaml, in bytes."""

NODE_ID_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A node id stands in certificates as a common name (at most 64 characters) and a DNS name."""

NODE_ID_RULE = "lower-case letters, digits and inner hyphens, at most 63 characters"

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console"]

_CHOICES = {
    "log.level": get_args(LogLevel),
    "log.format": get_args(LogFormat),
    "memory_lock": ("auto", "on", "off"),
    "seal.providers[...].type": tuple(provider_credentials.KINDS),
}

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})?")


class ConfigError(Exception):
    """The configuration cannot be used. The message names the file and the field; correct it and start again."""


class Address(NamedTuple):
    """A host and a port. The host of an IPv6 address is without its brackets."""

    host: str
    port: int

    @property
    def unspecified(self) -> bool:
        """Whether this is an address to listen on everywhere, which nobody can dial."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files of one TLS identity. Relative paths start at the folder of node.yaml."""

    cert_file: str
    key_file: str
    ca_file: str


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The client port. `advertise` is what clients are told to dial; empty means `bind`."""

    bind: str
    tls: TlsFiles
    advertise: str = ""


class InitialMember(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the nodes that found the cluster. Addresses are host:port."""

    node_id: str
    cluster_address: str
    api_address: str


class ClusterConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The peer-to-peer port. `initial_members`: the same on every founding node, and empty on one that joins later."""

    bind: str
    tls: TlsFiles
    advertise: str = ""
    initial_members: tuple[InitialMember, ...] = ()


class MetricsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTPS port of /metrics and /healthz, with the certificate of the client port."""

    bind: str


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged to stderr, and how."""

    level: LogLevel = "info"
    format: LogFormat = "json"


GRACE_S_MIN, GRACE_S_MAX = 1.0, 86400.0
"""The bounds of `seal.quorum_loss_grace`. An election takes up to a second, and that must not seal anything."""

CHECK_INTERVAL_S_MIN, CHECK_INTERVAL_S_MAX = 1.0, 3600.0
"""The bounds of `seal.provider_check_interval`."""


class SealSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a node does with its keys when it loses its quorum, and when it is back.

    quorum_loss_grace: a duration (see `durations`). on_quorum_return: who unseals the node again, and a restarted one:
    people with shares (manual), an unsealed member (peers) or an unseal provider (auto; then a member too, where
    share_with_peers says that members do so). share_with_peers: whether this node, unsealed, hands the root key to
    members that ask; None stands for yes with `peers` and for no otherwise. providers: this node's credentials for each
    unseal provider, by its name. provider_check_interval: a duration, between two checks of a provider.
    """

    quorum_loss_grace: str | int | float = "15s"
    on_quorum_return: Literal["auto", "peers", "manual"] = "manual"
    seal_on_quorum_loss: bool = True
    share_with_peers: bool | None = None
    providers: dict[str, Credentials] = {}  # msgspec copies it
    provider_check_interval: str | int | float = "60s"

    @property
    def grace_s(self) -> float:
        """`quorum_loss_grace` in seconds. Raises ValueError when it is none."""
        return seconds(self.quorum_loss_grace)

    @property
    def shares_with_peers(self) -> bool:
        """Whether the node hands the root key to members that ask."""
        return self.on_quorum_return == "peers" if self.share_with_peers is None else self.share_with_peers

    @property
    def asks_peers(self) -> bool:
        """Whether the node asks members for the root key when it is to be unsealed."""
        return self.on_quorum_return == "peers" or (self.on_quorum_return == "auto" and self.shares_with_peers)

    @property
    def check_interval_s(self) -> float:
        """`provider_check_interval` in seconds. Raises ValueError when it is none."""
        return seconds(self.provider_check_interval)


LOG_TAIL_MIN, LOG_TAIL_MAX = 100, 1_000_000
"""The bounds of `raft.log_tail`. The log's entries are held in memory too."""


class RaftSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the node keeps its log.

    log_tail: entries kept for members that were away. One that misses more is sent a snapshot of the whole state.
    """

    log_tail: int = 5000

    @property
    def limits(self) -> Limits:
        """The limits of the consensus module."""
        return Limits(log_tail=self.log_tail, trim_step=min(Limits.trim_step, self.log_tail))


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole node.yaml. Paths are absolute and `advertise` is filled in once `load` has returned it."""

    node_id: str
    data_dir: str
    api: ApiConfig
    cluster: ClusterConfig
    cluster_name: str = "holdfast"
    metrics: MetricsConfig | None = None
    seal: SealSettings = SealSettings()
    raft: RaftSettings = RaftSettings()
    memory_lock: Literal["auto", "on", "off"] = "auto"  # see server/memory.py
    snapshots: SnapshotSettings | None = None
    log: LogConfig = LogConfig()


def load(path: Path) -> NodeConfig:
    """Read and check the form of a node.yaml.

    Raises ConfigError for a file that cannot be read, is not YAML, or whose fields are not as they must be.
    """
    try:
        if path.stat().st_size > CONFIG_BYTES_MAX:
            raise ConfigError(f"{path}: larger than {CONFIG_BYTES_MAX} bytes; this is not a node's configuration")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    return parse(text, path)


def parse(text: str, path: Path) -> NodeConfig:
    """Parse the text of a node.yaml. `path` names it in errors and is where relative paths start."""
    try:
        document = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - _StrictLoader is a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {_yaml_problem(error)}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must be a mapping with node_id, data_dir, api and cluster")
    try:
        config = msgspec.convert(document, NodeConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_validation_problem(str(error))}") from error
    return _complete(config, path)


def parse_address(text: str) -> Address:
    """Parse host:port or [IPv6]:port; the port is 1 to 65535. Raises ValueError saying what is wrong."""
    host, separator, port_text = text.rpartition(":")
    if not separator:
        raise ValueError(f"'{text}' has no port; write host:port")
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or not 1 <= int(port_text) <= 65535:
        raise ValueError(f"'{port_text}' is not a port from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        try:
            return Address(str(ipaddress.IPv6Address(host[1:-1])), int(port_text))
        except ValueError as error:
            raise ValueError(f"'{host}' is not an IPv6 address") from error
    if ":" in host:
        raise ValueError(f"'{text}' is ambiguous; write an IPv6 address in brackets, [::1]:8200")
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError as error:
            raise ValueError(f"'{host}' is not an IPv4 address") from error
    elif not _HOST_NAME.fullmatch(host):
        raise ValueError(f"'{host}' is not a host name or an IP address")
    return Address(host, int(port_text))


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, refusing a key that is given twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"'{key}' is given twice", key_node.start_mark)
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _yaml_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})"
    return str(error)


_AT = re.compile(r" - at `(key in )?\$([^`]*)`$")
_FIELD = re.compile(r"^Object (?:missing required|contains unknown) field `([^`]*)`")


def _validation_problem(message: str) -> str:
    """msgspec's message with the field's path in front, as an operator would write it: `api.tls.cert_file: ...`."""
    at = _AT.search(message)
    path = at.group(2).lstrip(".") if at else ""
    problem = _AT.sub("", message)
    if named := _FIELD.match(problem):
        path = f"{path}.{named.group(1)}".lstrip(".")
        problem = "missing" if "missing" in problem else "unknown field; check its spelling and its place"
    elif choices := _CHOICES.get(path):
        problem = f"must be one of {', '.join(choices)}"
    return f"{path or 'the document'}: {problem}"


def _complete(config: NodeConfig, path: Path) -> NodeConfig:
    """Fill in what follows from other fields, and check what holds between them."""
    folder = path.resolve().parent
    api = msgspec.structs.replace(
        config.api, advertise=config.api.advertise or config.api.bind, tls=_absolute(config.api.tls, folder)
    )
    cluster = msgspec.structs.replace(
        config.cluster,
        advertise=config.cluster.advertise or config.cluster.bind,
        tls=_absolute(config.cluster.tls, folder),
    )
    providers = {
        name: provider_credentials.with_paths_from(entry, folder) for name, entry in config.seal.providers.items()
    }
    complete = msgspec.structs.replace(
        config,
        api=api,
        cluster=cluster,
        seal=msgspec.structs.replace(config.seal, providers=providers),
        snapshots=snapshot_config.placed(config.snapshots, folder),
        data_dir=str(folder / config.data_dir),
    )
    for field, problem in _problems(config, complete):
        raise ConfigError(f"{path}: {field}: {problem}")
    return complete


def _absolute(tls: TlsFiles, folder: Path) -> TlsFiles:
    """Paths that are empty stay empty, to be refused by name."""

    def place(name: str) -> str:
        return str(folder / name) if name else ""

    return TlsFiles(cert_file=place(tls.cert_file), key_file=place(tls.key_file), ca_file=place(tls.ca_file))


def _problems(given: NodeConfig, config: NodeConfig) -> list[tuple[str, str]]:
    """(field, problem) of everything that is wrong between or within fields, in the order of the file."""
    found: list[tuple[str, str]] = []
    if not NODE_ID_PATTERN.fullmatch(config.node_id):
        found.append(("node_id", NODE_ID_RULE))
    if not 1 <= len(config.cluster_name) <= 64 or not config.cluster_name.isprintable():
        found.append(("cluster_name", "1 to 64 printable characters"))
    if not given.data_dir:
        found.append(("data_dir", "must not be empty"))
    for section, tls in (("api", config.api.tls), ("cluster", config.cluster.tls)):
        found += [(f"{section}.tls.{name}", "must not be empty") for name, value in _items(tls) if not value]
    found += _seal_problems(config.seal)
    found += snapshot_config.problems(config.snapshots)
    if not LOG_TAIL_MIN <= config.raft.log_tail <= LOG_TAIL_MAX:
        found.append(("raft.log_tail", f"from {LOG_TAIL_MIN} to {LOG_TAIL_MAX} entries"))
    found += _address_problems(config)
    return found + _member_problems(config)


def _seal_problems(seal: SealSettings) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    try:
        if not GRACE_S_MIN <= seal.grace_s <= GRACE_S_MAX:
            found.append(("seal.quorum_loss_grace", "from 1s to 24h; to switch it off, seal_on_quorum_loss: false"))
    except ValueError as error:
        found.append(("seal.quorum_loss_grace", str(error)))
    try:
        if not CHECK_INTERVAL_S_MIN <= seal.check_interval_s <= CHECK_INTERVAL_S_MAX:
            found.append(("seal.provider_check_interval", "from 1s to 1h"))
    except ValueError as error:
        found.append(("seal.provider_check_interval", str(error)))
    if seal.on_quorum_return == "auto" and not seal.providers:
        problem = "auto needs this node's credentials for an unseal provider: name it in seal.providers"
        found.append(("seal.on_quorum_return", problem))
    for name, entry in seal.providers.items():
        if not NAME_PATTERN.fullmatch(name):
            found.append(("seal.providers", f"a provider's name is {NAME_RULE}"))
        found += [(f"seal.providers.{name}.{field}", text) for field, text in provider_credentials.problems(entry)]
    return found


def _address_problems(config: NodeConfig) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    binds = [("api.bind", config.api.bind), ("cluster.bind", config.cluster.bind)]
    if config.metrics is not None:
        binds.append(("metrics.bind", config.metrics.bind))
    dialled = [("api.advertise", config.api.advertise), ("cluster.advertise", config.cluster.advertise)]
    for index, member in enumerate(config.cluster.initial_members):
        where = f"cluster.initial_members[{index}]"
        dialled += [
            (f"{where}.cluster_address", member.cluster_address),
            (f"{where}.api_address", member.api_address),
        ]
    seen: dict[str, str] = {}
    for field, text in binds + dialled:
        try:
            address = parse_address(text)
        except ValueError as error:
            found.append((field, str(error)))
            continue
        if (field, text) in dialled and address.unspecified:
            found.append((field, f"'{text}' cannot be dialled; name the address that others reach this node at"))
        elif (field, text) in binds:
            if text in seen:
                found.append((field, f"'{text}' is already the address of {seen[text]}"))
            seen[text] = field
    return found


def _member_problems(config: NodeConfig) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    members = config.cluster.initial_members
    if not members:
        return found
    seen: set[str] = set()
    for index, member in enumerate(members):
        where = f"cluster.initial_members[{index}]"
        if not NODE_ID_PATTERN.fullmatch(member.node_id):
            found.append((f"{where}.node_id", NODE_ID_RULE))
        for value in (member.node_id, member.cluster_address, member.api_address):
            if value in seen:
                found.append((where, f"'{value}' is given twice"))
            seen.add(value)
    own = next((m for m in members if m.node_id == config.node_id), None)
    if own is None:
        found.append(
            (
                "cluster.initial_members",
                f"does not list this node, '{config.node_id}'; leave it empty on a node that joins",
            )
        )
    elif own.cluster_address != config.cluster.advertise:
        shown = f"gives this node as {own.cluster_address}, cluster.advertise as {config.cluster.advertise}"
        found.append(("cluster.initial_members", shown))
    elif own.api_address != config.api.advertise:
        shown = f"gives this node as {own.api_address}, api.advertise as {config.api.advertise}"
        found.append(("cluster.initial_members", shown))
    return found


def _items(tls: TlsFiles) -> list[tuple[str, str]]:
    return [("cert_file", tls.cert_file), ("key_file", tls.key_file), ("ca_file", tls.ca_file)]
