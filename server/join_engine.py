"""`sys/cluster-ca`, `sys/join-token`, `sys/join-node` and `sys/join`: the cluster CA in the barrier, one-time join
tokens, and what they let in. DESIGN.md, "Joining by token", says why it is so.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.cluster.raft.consensus import Member
from holdfast.core.plugin import HandlerContext, Operation, OperationSpec, PathSpec, Response, StorageView, fields
from holdfast.core.plugin.times import rfc3339
from holdfast.core.router import SystemMount
from holdfast.proto.errors import FailedPrecondition, InvalidArgument, NotFound, Overloaded, PermissionDenied
from holdfast.server import join_token
from holdfast.server.certs import NODE_DAYS, Authority
from holdfast.server.config import NODE_ID_PATTERN, NODE_ID_RULE, Address, parse_address
from holdfast.server.join_records import CA, NODES, PREFIX, TOKENS, StoredCa, StoredNode, StoredToken, decode, encode

TTL_S_DEFAULT, TTL_S_MAX = 3600, 7 * 86_400
"""How long a join token lives, in seconds."""

TOKENS_MAX = 256
"""How many join tokens may be stored, used and expired ones included for a day."""

KEPT = timedelta(days=1)
"""How long a token is remembered after its end, so that who comes late is told why."""

CSR_BYTES_MAX = 4096
HOSTS_MAX = 16


@dataclass(frozen=True)
class Place:
    """What the engine must know of the node that it runs on.

    cluster_ca: the CAs that nodes know each other by (PEM). api_ca: the CA that signed the API port's certificate
    itself, from its own bundle; None when there is none. members: the cluster's members as this node knows them.
    """

    cluster_name: str
    cluster_ca: bytes
    api_ca: x509.Certificate | None
    members: Callable[[], Sequence[Member]]


def join_mounts(place: Place) -> Sequence[SystemMount]:
    """What the core mounts beside `sys/`."""
    ca, tokens, nodes, join = _Ca(place), _Tokens(place), _Nodes(place), _Join(place)
    return [
        SystemMount("sys/cluster-ca/", ca, PREFIX),
        SystemMount("sys/join-token/", tokens, PREFIX),
        SystemMount("sys/join-node/", nodes, PREFIX),
        SystemMount("sys/join/", join, PREFIX),
    ]


class _Ca:
    """`sys/cluster-ca`."""

    type = "cluster-ca"

    def __init__(self, place: Place) -> None:
        self._place = place

    def paths(self) -> Sequence[PathSpec]:
        members = {"certificate": "The CA's certificate (PEM).", "private_key": "Its unencrypted private key (PEM)."}
        return (
            PathSpec(
                "",
                {
                    Operation.READ: OperationSpec(self._read, "Which CA the cluster can sign with."),
                    Operation.UPDATE: OperationSpec(self._import, "Import the cluster's CA.", members),
                    Operation.DELETE: OperationSpec(self._delete, "Forget the CA's private key."),
                },
                "The CA that signs the certificates of nodes that join by a token.",
                sudo=True,
            ),
        )

    async def _read(self, ctx: HandlerContext, view: StorageView) -> Response:  # noqa: ARG002
        certificate = (await _authority(view)).certificate
        return Response(
            data={
                "subject": certificate.subject.rfc4514_string(),
                "fingerprint": join_token.fingerprint(certificate).hex(),
                "not_after": rfc3339(certificate.not_valid_after_utc),
            }
        )

    async def _import(self, ctx: HandlerContext, view: StorageView) -> Response:
        given = StoredCa(
            certificate=fields.text(ctx.data, "certificate", bytes_max=65_536).encode(),
            private_key=fields.text(ctx.data, "private_key", bytes_max=65_536).encode(),
        )
        authority = Authority.load(given.certificate, given.private_key, "as it was given")
        if not authority.is_ca:
            raise InvalidArgument("the certificate is not a CA's", field="certificate")
        known = x509.load_pem_x509_certificates(self._place.cluster_ca)
        if join_token.fingerprint(authority.certificate) not in [join_token.fingerprint(one) for one in known]:
            raise FailedPrecondition(
                "this CA is not among those that the nodes trust (cluster.tls.ca_file): a node with a certificate from "
                "it could not join"
            )
        view.put(CA, encode(given))
        return Response(data={"fingerprint": join_token.fingerprint(authority.certificate).hex()})

    async def _delete(self, ctx: HandlerContext, view: StorageView) -> Response:  # noqa: ARG002
        view.delete(CA)
        return Response()


class _Tokens:
    """`sys/join-token`."""

    type = "join-token"

    def __init__(self, place: Place) -> None:
        self._place = place

    def paths(self) -> Sequence[PathSpec]:
        members = {
            "ttl": "How long it can be used.",
            "node_id": "The only node id that may use it.",
            "hosts": "The only host names and addresses that the certificate may name.",
            "voter": "Whether the node votes once it has caught up.",
            "share_keys": "Whether other members may hand the root key to the node.",
        }
        create = OperationSpec(self._create, "Make a join token.", members)
        return (
            PathSpec(
                "",
                {Operation.UPDATE: create, Operation.LIST: OperationSpec(self._list, "List the ids of join tokens.")},
                "One-time tokens that let new nodes in.",
                sudo=True,
            ),
            PathSpec(
                "{id}",
                {
                    Operation.READ: OperationSpec(self._read, "What a join token may do, and who used it."),
                    Operation.DELETE: OperationSpec(self._revoke, "Revoke a join token."),
                },
                "One join token.",
                sudo=True,
            ),
        )

    async def _create(self, ctx: HandlerContext, view: StorageView) -> Response:
        authority = self._place.api_ca
        if authority is None:
            raise FailedPrecondition(
                "the certificate of the API port (api.tls) was not signed directly by a CA in api.tls.ca_file, so a "
                "new machine could not tell this cluster by a fingerprint: name the CA there, or add the node by hand"
            )
        await _authority(view)  # raises when nothing could be signed
        await self._make_room(ctx, view)
        ttl_s = fields.duration_s(ctx.data, "ttl") or TTL_S_DEFAULT
        if ttl_s > TTL_S_MAX:
            raise InvalidArgument(f"a join token lives for at most {TTL_S_MAX // 86_400} days", field="ttl")
        voter, share_keys = fields.boolean(ctx.data, "voter"), fields.boolean(ctx.data, "share_keys")
        record = StoredToken(
            created=ctx.now,
            expires=ctx.now + timedelta(seconds=ttl_s),
            node_id=_node_id(fields.text(ctx.data, "node_id"), empty_ok=True),
            hosts=_hosts(ctx.data.get("hosts")),
            voter=voter is not False,
            share_keys=share_keys is True,
        )
        addresses = tuple(m.api_address for m in self._place.members())[: join_token.ADDRESSES_MAX]
        secret = ctx.random_bytes(join_token.SECRET_BYTES)
        name = join_token.secret_id(secret)
        view.put(f"{TOKENS}/{name}", encode(record))
        token = join_token.JoinToken(join_token.fingerprint(authority), addresses, secret)
        return Response(
            data={"join_token": join_token.encode(token), "addresses": list(addresses), **_shown(name, record)}
        )

    async def _make_room(self, ctx: HandlerContext, view: StorageView) -> None:
        """Forget tokens that ended long ago. Raises Overloaded when there are too many others."""
        kept = 0
        for name in await view.list(TOKENS, limit=2 * TOKENS_MAX):
            stored = await view.get(f"{TOKENS}/{name}")
            if stored is not None and decode(stored, StoredToken).expires + KEPT < ctx.now:
                view.delete(f"{TOKENS}/{name}")
            else:
                kept += 1
        if kept >= TOKENS_MAX:
            raise Overloaded(f"{kept} join tokens are stored, the most allowed: revoke some of them")

    async def _list(self, ctx: HandlerContext, view: StorageView) -> Response:  # noqa: ARG002
        return Response(data={"keys": sorted(await view.list(TOKENS, limit=2 * TOKENS_MAX))})

    async def _read(self, ctx: HandlerContext, view: StorageView) -> Response:
        name = ctx.fields["id"]
        return Response(data=_shown(name, await _token(view, name)))

    async def _revoke(self, ctx: HandlerContext, view: StorageView) -> Response:
        await _token(view, ctx.fields["id"])
        view.delete(f"{TOKENS}/{ctx.fields['id']}")
        return Response()


class _Nodes:
    """`sys/join-node`."""

    type = "join-node"

    def __init__(self, place: Place) -> None:
        self._place = place

    def paths(self) -> Sequence[PathSpec]:
        trust = OperationSpec(self._update, "Trust a node.", {"share_keys": "Whether it may be handed the root key."})
        return (
            PathSpec("", {Operation.LIST: OperationSpec(self._list, "List the nodes that were let in.")}, sudo=True),
            PathSpec(
                "{node_id}",
                {
                    Operation.READ: OperationSpec(self._read, "How a node came in."),
                    Operation.UPDATE: trust,
                    Operation.DELETE: OperationSpec(self._forget, "Let the id be used by a token again."),
                },
                "A node that was let in: by a token, by hand, or as a founder.",
                sudo=True,
            ),
        )

    async def _list(self, ctx: HandlerContext, view: StorageView) -> Response:  # noqa: ARG002
        return Response(data={"keys": sorted(await view.list(NODES))})

    async def _node(self, ctx: HandlerContext, view: StorageView) -> StoredNode:
        stored = await view.get(f"{NODES}/{ctx.fields['node_id']}")
        if stored is None:
            raise NotFound("nothing is known of a node of this id")
        return decode(stored, StoredNode)

    async def _read(self, ctx: HandlerContext, view: StorageView) -> Response:
        node = await self._node(ctx, view)
        return Response(data={"joined_time": rfc3339(node.joined), "share_keys": node.share_keys})

    async def _update(self, ctx: HandlerContext, view: StorageView) -> Response:
        """A member that nothing is known of came in before the state did: from a snapshot of another cluster, say."""
        node_id = ctx.fields["node_id"]
        stored = await view.get(f"{NODES}/{node_id}")
        if stored is None and all(member.node_id != node_id for member in self._place.members()):
            raise NotFound("no member has this id, and nothing is known of it")
        joined = ctx.now if stored is None else decode(stored, StoredNode).joined
        share_keys = fields.boolean(ctx.data, "share_keys") is True
        view.put(f"{NODES}/{node_id}", encode(StoredNode(joined=joined, share_keys=share_keys)))
        return Response()

    async def _forget(self, ctx: HandlerContext, view: StorageView) -> Response:
        await self._node(ctx, view)
        view.delete(f"{NODES}/{ctx.fields['node_id']}")
        return Response()


class _Join:
    """`sys/join`: a token is redeemed. Reached through `Core.serve_open`, for who asks has no other token."""

    type = "join"

    def __init__(self, place: Place) -> None:
        self._place = place

    def paths(self) -> Sequence[PathSpec]:
        members = {
            "secret": "The token's secret.",
            "node_id": "The new node's id.",
            "certificate_request": "PKCS #10, DER, base64.",
            "cluster_address": "Where other nodes dial it.",
            "api_address": "Where clients dial it.",
        }
        return (
            PathSpec("", {Operation.UPDATE: OperationSpec(self._redeem, "Redeem a join token.", members)}, sudo=True),
        )

    async def _redeem(self, ctx: HandlerContext, view: StorageView) -> Response:
        name = join_token.secret_id(_secret(ctx.data))
        node_id = _node_id(fields.text(ctx.data, "node_id"))
        public_key = _public_key(ctx.data)
        addresses = [_address(ctx.data, field) for field in ("cluster_address", "api_address")]
        hosts = sorted({address.host for address in addresses})
        record = await self._usable(ctx, view, name, node_id, hosts)
        await self._check_free(ctx, view, node_id, hosts)
        dns, ip = [host for host in hosts if not _is_ip(host)], [host for host in hosts if _is_ip(host)]
        certificate = (await _authority(view)).sign_node(
            public_key, node_id, dns_names=dns, ip_addresses=ip, days=NODE_DAYS, now=ctx.now
        )
        used = StoredToken(
            created=record.created, expires=record.expires, node_id=record.node_id, hosts=record.hosts,
            voter=record.voter, share_keys=record.share_keys, used_by=node_id,
        )  # fmt: skip
        view.put(f"{TOKENS}/{name}", encode(used))
        view.put(f"{NODES}/{node_id}", encode(StoredNode(joined=ctx.now, share_keys=record.share_keys)))
        return Response(
            data={
                "certificate": certificate.public_bytes(Encoding.PEM).decode(),
                "ca_certificate": self._place.cluster_ca.decode(),
                "cluster_name": self._place.cluster_name,
                "voter": record.voter,
            }
        )

    async def _usable(
        self, ctx: HandlerContext, view: StorageView, name: str, node_id: str, hosts: Sequence[str]
    ) -> StoredToken:
        stored = await view.get(f"{TOKENS}/{name}")
        if stored is None:
            raise PermissionDenied("this cluster knows no such join token: it was revoked, or is of another cluster")
        record = decode(stored, StoredToken)
        if record.used_by:
            raise FailedPrecondition(
                f"the join token was used already, by node {record.used_by}. If that was not you, somebody else has "
                "it: remove that node from the cluster. Else make a new token"
            )
        if record.expires <= ctx.now:
            raise FailedPrecondition(f"the join token expired at {rfc3339(record.expires)}: make a new one")
        if record.node_id not in ("", node_id):
            raise PermissionDenied(f"the join token is for node {record.node_id} alone", details={})
        strange = [host for host in hosts if record.hosts and host not in record.hosts]
        if strange:
            raise PermissionDenied(f"the join token allows no certificate for {strange[0]}, an address of the new node")
        return record

    async def _check_free(self, ctx: HandlerContext, view: StorageView, node_id: str, hosts: Sequence[str]) -> None:
        """A certificate that names a member, or a member's host, would let its holder pose as that member."""
        members = self._place.members()
        if any(member.node_id == node_id for member in members):
            raise FailedPrecondition(f"{node_id} is a member: choose an id that was never used")
        if await view.get(f"{NODES}/{node_id}") is not None:
            raise FailedPrecondition(
                f"{node_id} was a member before: choose an id that was never used, or have the old node removed and "
                "forgotten (holdfast operator raft join-token forget)"
            )
        taken = {address for m in members for address in (m.cluster_address, m.api_address)}
        for field in ("cluster_address", "api_address"):
            if fields.text(ctx.data, field) in taken:
                raise FailedPrecondition(f"{field} is a member's already", details={"field": field})
        held = {_as_compared(parse_address(address).host) for address in taken}
        if _as_compared(node_id) in held:  # the certificate names the id as a host, too
            raise FailedPrecondition(f"{node_id} is the host of a member: choose another id")
        held |= {_as_compared(member.node_id) for member in members}
        for host in hosts:
            if _as_compared(host) in held and not _is_loopback(host):
                raise FailedPrecondition(f"{host} is the host or the id of a member: name the new node's own")


async def _authority(view: StorageView) -> Authority:
    stored = await view.get(CA)
    if stored is None:
        raise FailedPrecondition(
            "the cluster cannot sign certificates: its CA's key was not imported (holdfast operator pki import-ca)"
        )
    ca = decode(stored, StoredCa)
    return Authority.load(ca.certificate, ca.private_key, "as it is stored")


async def _token(view: StorageView, name: str) -> StoredToken:
    stored = await view.get(f"{TOKENS}/{name}")
    if stored is None:
        raise NotFound("there is no join token of this id")
    return decode(stored, StoredToken)


def _shown(name: str, record: StoredToken) -> dict[str, Any]:
    return {
        "id": name,
        "created_time": rfc3339(record.created),
        "expire_time": rfc3339(record.expires),
        "node_id": record.node_id or None,
        "hosts": list(record.hosts),
        "voter": record.voter,
        "share_keys": record.share_keys,
        "used_by": record.used_by or None,
    }


def _node_id(text: str, *, empty_ok: bool = False) -> str:
    if not text and empty_ok:
        return ""
    if not NODE_ID_PATTERN.fullmatch(text) or text == "ca":
        raise InvalidArgument(f'node_id is no node id: {NODE_ID_RULE}, and not "ca"', field="node_id")
    return text


def _hosts(given: object) -> tuple[str, ...]:
    """Host names and IP addresses, in a list or separated by commas."""
    if given in (None, "", []):
        return ()
    items = given.split(",") if isinstance(given, str) else given
    if not isinstance(items, list) or len(items) > HOSTS_MAX:
        raise InvalidArgument(f"hosts are at most {HOSTS_MAX} host names or IP addresses", field="hosts")
    hosts = []
    for item in items:
        text = item.strip() if isinstance(item, str) else ""
        try:
            hosts.append(parse_address(f"[{text}]:1" if ":" in text else f"{text}:1").host)
        except ValueError:
            raise InvalidArgument("a host is neither a host name nor an IP address", field="hosts") from None
    return tuple(hosts)


def _secret(data: Mapping[str, Any]) -> bytes:
    try:
        secret = bytes.fromhex(fields.text(data, "secret"))
    except ValueError:
        secret = b""
    if len(secret) != join_token.SECRET_BYTES:
        raise InvalidArgument("the secret of a join token is 64 hexadecimal digits", field="secret")
    return secret


def _public_key(data: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
    text = fields.text(data, "certificate_request", bytes_max=2 * CSR_BYTES_MAX)
    try:
        request = x509.load_der_x509_csr(base64.b64decode(text, validate=True))
        genuine, key = request.is_signature_valid, request.public_key()
    except (ValueError, TypeError, binascii.Error):
        raise InvalidArgument("the certificate request does not parse", field="certificate_request") from None
    if not genuine or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidArgument("the certificate request is not signed with a P-256 key", field="certificate_request")
    return key


def _address(data: Mapping[str, Any], field: str) -> Address:
    try:
        address = parse_address(fields.text(data, field))
    except ValueError as error:
        raise InvalidArgument(f"{field}: {error}", field=field) from None
    if address.unspecified:
        raise InvalidArgument(f"{field} cannot be dialled by others", field=field)
    return address


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _as_compared(host: str) -> str:
    """A host as TLS compares it: names without regard to case, and to a dot at their end; IPv4 mapped into IPv6 as it
    is."""
    if _is_ip(host):
        address = ipaddress.ip_address(host)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return str(mapped or address)
    return host.rstrip(".").lower()


def _is_loopback(host: str) -> bool:
    return _as_compared(host) == "localhost" or (_is_ip(host) and ipaddress.ip_address(host).is_loopback)
