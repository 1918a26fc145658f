"""Names, ports, and the way to each peer."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from holdfast.cluster.peer.frames import CALL_FRAME_BYTES_MAX, FrameDecoder
from holdfast.cluster.peer.session import Opening
from holdfast.cluster.peer.tls import Kind, PeerTls, load_contexts
from holdfast.proto.errors import FailedPrecondition
from holdfast.server.config import parse_address
from holdfast.server.diagnose.finding import Context, Finding, Peer, failed, passed, warned


def check_names(context: Context) -> Iterator[Finding]:
    """Every address that anybody dials resolves, and no two members to the same."""
    config = context.config
    dialled = {
        "api.advertise": config.api.advertise,
        "cluster.advertise": config.cluster.advertise,
        **{f"{peer.node_id}, api": peer.api_address for peer in context.peers},
        **{f"{peer.node_id}, cluster": peer.cluster_address for peer in context.peers},
    }
    owners: dict[tuple[str, int], str] = {}
    for what, text in dialled.items():
        found = resolve(text)
        check = f"dns.{text}"
        if isinstance(found, str):
            yield failed(check, f"{text} ({what}) does not resolve: {found}", "correct the name, DNS or /etc/hosts")
            continue
        twin = next((owners[place] for place in found if place in owners), None)
        owners.update(dict.fromkeys(found, what))
        if twin is not None:
            yield failed(check, f"{text} ({what}) and {twin} are the same address", "give each port its own address")
        else:
            yield passed(check, f"{what} is {', '.join(sorted({host for host, _ in found}))}")


def resolve(address: str) -> set[tuple[str, int]] | str:
    """The (IP address, port) pairs of host:port, or why there are none."""
    host, port = parse_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return error.strerror or type(error).__name__
    return {(str(place[0]), int(place[1])) for _, _, _, _, place in found}


def check_ports(context: Context) -> Iterator[Finding]:
    """Each port is free for the node, or held by it."""
    config = context.config
    binds = {"api.bind": config.api.bind, "cluster.bind": config.cluster.bind}
    if config.metrics is not None:
        binds["metrics.bind"] = config.metrics.bind
    for field, text in binds.items():
        yield check_port(field, text, running=context.running)


def check_port(field: str, bind: str, *, running: bool) -> Finding:
    """running: whether a node holds the data folder, so that its ports must be taken."""
    check, (host, port) = f"port.{field}", parse_address(bind)
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(place)
    except OSError as error:
        if running:
            return passed(check, f"{bind} is taken, and the node runs")
        remedy = f"stop what listens there (ss -ltnp), or change {field}"
        return failed(check, f"{bind} cannot be bound: {error.strerror or error}", remedy)
    if running:
        remedy = "look at the node's log; its configuration may have changed since it was started"
        return warned(check, f"{bind} is free, although the node runs", remedy)
    return passed(check, f"{bind} is free")


def check_peers(context: Context) -> Iterator[Finding]:
    """Each peer's ports answer, prove to be of the cluster, and take this node's certificate."""
    config, tls = context.config, context.config.cluster.tls
    try:
        contexts = load_contexts(PeerTls(Path(tls.cert_file), Path(tls.key_file), Path(tls.ca_file)), config.node_id)
    except FailedPrecondition as error:
        yield failed("peer.tls", error.message, "see the findings on certificates")
        return
    if not context.peers:
        remedy = "none to give: a node that joined later does not have them in its configuration"
        yield warned("peer.members", "the configuration names no other members, so none was looked at", remedy)
    for peer in context.peers:
        yield check_peer(peer, contexts.clients[Kind.CALL], context.timeout_s, join=not context.running)
        yield check_client_port(peer, Path(config.api.tls.ca_file), context.timeout_s)


def check_peer(peer: Peer, context: ssl.SSLContext, timeout_s: float, *, join: bool) -> Finding:
    """TLS with the peer port, and the name in the peer's certificate. join: also open a session, which tells whether
    the peer takes this node; never while the node runs, because the newest session takes the place of the older."""
    check, address = f"peer.{peer.node_id}.cluster", peer.cluster_address
    context.set_alpn_protocols([Kind.CALL.value] if join else [])
    try:
        with (
            socket.create_connection(parse_address(address), timeout_s) as sock,
            context.wrap_socket(sock, server_hostname=parse_address(address).host) as secure,
        ):
            names = [value for part in _subject(secure) for key, value in part if key == "commonName"]
            if names != [peer.node_id]:
                remedy = "correct the address, or the peer's certificate"
                return failed(check, f"at {address} is {', '.join(names)}, not {peer.node_id}", remedy)
            if not join:
                return passed(check, f"{address} is {peer.node_id}")
            return judge_opening(check, address, _opening(secure))
    except (OSError, ValueError) as error:
        return failed(check, f"{address}: {_reason(error)}", _remedy(error))


def judge_opening(check: str, address: str, opening: Opening | None) -> Finding:
    """What the peer says to this node's session; None when it ended the connection without a word, as it does in TLS
    1.3 with a certificate that it does not accept."""
    if opening is None:
        detail = f"{address} does not accept this node's certificate"
        return failed(check, detail, "issue it with the CA that the peer trusts, and compare the clocks")
    if opening is Opening.NOT_A_MEMBER:
        detail = f"{address} does not know this node as a member"
        return warned(check, detail, "on a new node: holdfast operator raft join; else compare the members' lists")
    return passed(check, f"{address} takes this node's certificate")


def _opening(secure: ssl.SSLSocket) -> Opening | None:
    decoder = FrameDecoder(limit=CALL_FRAME_BYTES_MAX)
    try:
        while part := secure.recv(4096):
            for payload in decoder.feed(part):
                return Opening(payload[:1])
    except TimeoutError:
        raise
    except OSError:
        pass  # the connection was cut
    return None


def check_client_port(peer: Peer, ca_file: Path, timeout_s: float) -> Finding:
    """TLS with the client port, as a client does it: by name."""
    check, (host, port) = f"peer.{peer.node_id}.api", parse_address(peer.api_address)
    try:
        context = ssl.create_default_context(cafile=ca_file)
        context.set_alpn_protocols(["h2"])
        with socket.create_connection((host, port), timeout_s) as sock, context.wrap_socket(sock, server_hostname=host):
            return passed(check, f"{peer.api_address} has a certificate for {host}")
    except (OSError, ValueError) as error:
        return failed(check, f"{peer.api_address}: {_reason(error)}", _remedy(error))


def _subject(secure: ssl.SSLSocket) -> tuple[tuple[tuple[str, str], ...], ...]:
    certificate = secure.getpeercert() or {}
    return certificate.get("subject", ())  # type: ignore[return-value]


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {error.reason}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _remedy(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return "issue its certificate with the cluster's CA, for the address that is dialled; compare the clocks"
    if isinstance(error, ConnectionRefusedError):
        return "start that node, or correct its address"
    return "look at routes and firewalls between the two hosts, and at the address"
