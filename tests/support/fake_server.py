"""A node for client tests: the real services over real TLS on loopback, a dictionary behind them, and faults on order.

It keeps the promises of proto/v1 that clients lean on: versions, check-and-set, once-only writes by request id, errors
with google.rpc details. `faults` are consumed one per call; `calls` records what arrived.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from holdfast.proto import errors
from holdfast.proto.errors import HoldfastError
from holdfast.proto.v1 import autopilot_pb2, kv_pb2, logical_pb2, raft_pb2, replica_pb2, sys_pb2
from holdfast.server import certs

TOKEN = "hvs.fake-root-token"
SHARES = tuple(f"share-{number}-abcdef" for number in range(1, 6))


@dataclass(frozen=True)
class Received:
    """One call as it arrived."""

    node: str
    method: str
    metadata: dict[str, str]


@dataclass
class Secret:
    """A secret's versions (None: destroyed), deletions and metadata."""

    versions: list[bytes | None] = field(default_factory=list)
    created: list[datetime] = field(default_factory=list)
    deleted: dict[int, datetime] = field(default_factory=dict)
    max_versions: int = 0
    cas_required: bool = False
    delete_after_s: int = 0
    custom: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeCluster:
    """What the nodes of one cluster share. `answers` remembers writes by request id."""

    initialized: bool = True
    token: str = TOKEN
    secrets: dict[tuple[str, str], Secret] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    peers: list[str] = field(default_factory=lambda: ["node-1", "node-2", "node-3"])
    calls: list[Received] = field(default_factory=list)
    autopilot: autopilot_pb2.AutopilotConfiguration = field(default_factory=autopilot_pb2.AutopilotConfiguration)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def methods(self) -> list[str]:
        """The names of the calls that arrived, in order."""
        return [call.method for call in self.calls]


Fault = HoldfastError | grpc.StatusCode | Callable[[], None]
"""An error with details, a bare status, or something to do before the call is served (such as to block)."""


class AfterServing(HoldfastError):
    """As a fault: serve the call, then answer that the outcome is unknown."""


class FakeNode:
    """One node. Start it in a `with` block; `address` is where it listens."""

    def __init__(self, directory: Path, cluster: FakeCluster | None = None, *, name: str = "node-1") -> None:
        self.name = name
        self.cluster = cluster or FakeCluster()
        self.faults: deque[Fault] = deque()
        self.sealed = False
        self.progress: list[str] = []
        self.ca_file = directory / "ca.crt"
        if not self.ca_file.exists():
            certs.create_ca(directory, "test")
        files = certs.issue_node(directory, name, ["localhost"], ["127.0.0.1"])
        self._credentials = grpc.ssl_server_credentials([(files.key_file.read_bytes(), files.cert_file.read_bytes())])
        self._server: grpc.Server | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> FakeNode:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; at the same port as before when there was one."""
        server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers([_Handler(self)])
        self.port = server.add_secure_port(f"127.0.0.1:{self.port}", self._credentials)
        server.start()
        self._server = server

    def stop(self) -> None:
        """Stop listening and break off what is under way, as a killed process does."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def serve(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        """Answer one call."""
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        with self.cluster.lock:
            self.cluster.calls.append(Received(self.name, method, metadata))
            fault = self.faults.popleft() if self.faults else None
        if callable(fault):
            fault()
        elif isinstance(fault, grpc.StatusCode):
            context.abort(fault, "a bare status")
        elif isinstance(fault, HoldfastError) and not isinstance(fault, AfterServing):
            abort(context, fault)
        request_id = metadata.get("x-holdfast-request-id", "")
        with self.cluster.lock:
            try:
                if request_id and request_id in self.cluster.answers:
                    answer = self.cluster.answers[request_id]
                else:
                    answer = getattr(self, f"_{method}")(request, metadata)
                    if request_id:
                        self.cluster.answers[request_id] = answer
            except HoldfastError as error:
                abort(context, error)
        if isinstance(fault, AfterServing):
            abort(context, errors.OutcomeUnknown("the outcome is not known.", retry_after_ms=1))
        return answer

    def _gate(self, metadata: dict[str, str]) -> None:
        if not self.cluster.initialized:
            raise errors.Uninitialized("the cluster has no keys yet. Run `holdfast operator init`.")
        if self.sealed:
            raise errors.Sealed("this node is sealed. Unseal it with `holdfast operator unseal`, or use another node.")
        if metadata.get("x-holdfast-token") != self.cluster.token:
            raise errors.Unauthenticated("the token is missing or not valid. Log in again.")

    def _secret(self, request: Any) -> Secret:
        secret = self.cluster.secrets.get((request.mount or "secret", request.path))
        if secret is None:
            raise errors.NotFound("nothing is stored at this path.")
        return secret

    def _meta(self, secret: Secret, version: int) -> kv_pb2.VersionMetadata:
        meta = kv_pb2.VersionMetadata(version=version, destroyed=secret.versions[version - 1] is None)
        meta.created_time.FromDatetime(secret.created[version - 1])
        if version in secret.deleted:
            meta.deletion_time.FromDatetime(secret.deleted[version])
        return meta

    def _write(self, request: Any, secret: Secret, data: bytes) -> kv_pb2.VersionMetadata:
        if request.HasField("cas") and request.cas != len(secret.versions):
            raise errors.Conflict("the check-and-set version is not the current one.", details={"current": "?"})
        self.cluster.secrets[request.mount or "secret", request.path] = secret
        secret.versions.append(data)
        secret.created.append(datetime(2026, 11, 24, 4, 11, 17, 123000, tzinfo=UTC))
        return self._meta(secret, len(secret.versions))

    def _Put(self, request: kv_pb2.PutRequest, metadata: dict[str, str]) -> kv_pb2.PutResponse:
        self._gate(metadata)
        secret = self.cluster.secrets.get((request.mount or "secret", request.path), Secret())
        return kv_pb2.PutResponse(metadata=self._write(request, secret, request.data))

    def _Patch(self, request: kv_pb2.PatchRequest, metadata: dict[str, str]) -> kv_pb2.PatchResponse:
        self._gate(metadata)
        secret = self._secret(request)
        current = json.loads(secret.versions[-1] or b"{}")
        for key, value in json.loads(request.data).items():
            current.pop(key, None)
            if value is not None:
                current[key] = value
        return kv_pb2.PatchResponse(metadata=self._write(request, secret, json.dumps(current).encode()))

    def _Get(self, request: kv_pb2.GetRequest, metadata: dict[str, str]) -> kv_pb2.GetResponse:
        self._gate(metadata)
        secret = self._secret(request)
        version = request.version or len(secret.versions)
        if version > len(secret.versions):
            raise errors.NotFound("this version does not exist.")
        data = b"" if version in secret.deleted else secret.versions[version - 1] or b""
        return kv_pb2.GetResponse(data=data, metadata=self._meta(secret, version), custom_metadata=secret.custom)

    def _BatchGet(self, request: kv_pb2.BatchGetRequest, metadata: dict[str, str]) -> kv_pb2.BatchGetResponse:
        self._gate(metadata)
        response = kv_pb2.BatchGetResponse()
        for item in request.requests:
            try:
                response.results.add().secret.CopyFrom(self._Get(item, metadata))
            except HoldfastError as error:
                response.results[-1].error.reason = error.reason
                response.results[-1].error.message = error.message
        return response

    def _List(self, request: kv_pb2.ListRequest, metadata: dict[str, str]) -> kv_pb2.ListResponse:
        self._gate(metadata)
        prefix = f"{request.path}/" if request.path else ""
        below = [
            path.removeprefix(prefix)
            for mount, path in self.cluster.secrets
            if mount == (request.mount or "secret") and path.startswith(prefix)
        ]
        names = list(dict.fromkeys(rest.partition("/")[0] + ("/" if "/" in rest else "") for rest in below))
        start, size = int(request.page_token or 0), request.page_size or 1000
        following = str(start + size) if start + size < len(names) else ""
        return kv_pb2.ListResponse(keys=names[start : start + size], next_page_token=following)

    def _Delete(self, request: kv_pb2.DeleteRequest, metadata: dict[str, str]) -> kv_pb2.DeleteResponse:
        self._gate(metadata)
        secret = self._secret(request)
        for version in request.versions or [len(secret.versions)]:
            secret.deleted[version] = datetime(2026, 11, 24, 4, 12, tzinfo=UTC)
        return kv_pb2.DeleteResponse()

    def _Undelete(self, request: kv_pb2.UndeleteRequest, metadata: dict[str, str]) -> kv_pb2.UndeleteResponse:
        self._gate(metadata)
        for version in request.versions:
            self._secret(request).deleted.pop(version, None)
        return kv_pb2.UndeleteResponse()

    def _Destroy(self, request: kv_pb2.DestroyRequest, metadata: dict[str, str]) -> kv_pb2.DestroyResponse:
        self._gate(metadata)
        for version in request.versions:
            self._secret(request).versions[version - 1] = None
        return kv_pb2.DestroyResponse()

    def _ReadMetadata(
        self, request: kv_pb2.ReadMetadataRequest, metadata: dict[str, str]
    ) -> kv_pb2.ReadMetadataResponse:
        self._gate(metadata)
        secret = self._secret(request)
        response = kv_pb2.ReadMetadataResponse(
            current_version=len(secret.versions),
            oldest_version=1,
            max_versions=secret.max_versions,
            cas_required=secret.cas_required,
            custom_metadata=secret.custom,
            versions=[self._meta(secret, version) for version in range(1, len(secret.versions) + 1)],
        )
        response.delete_version_after.seconds = secret.delete_after_s
        if secret.created:
            response.created_time.FromDatetime(secret.created[0])
            response.updated_time.FromDatetime(secret.created[-1])
        return response

    def _WriteMetadata(
        self, request: kv_pb2.WriteMetadataRequest, metadata: dict[str, str]
    ) -> kv_pb2.WriteMetadataResponse:
        self._gate(metadata)
        secret = self.cluster.secrets.setdefault((request.mount or "secret", request.path), Secret())
        if request.HasField("max_versions"):
            secret.max_versions = request.max_versions
        if request.HasField("cas_required"):
            secret.cas_required = request.cas_required
        if request.HasField("delete_version_after"):
            secret.delete_after_s = request.delete_version_after.seconds
        if request.set_custom_metadata:
            secret.custom = dict(request.custom_metadata)
        return kv_pb2.WriteMetadataResponse()

    def _DeleteMetadata(
        self, request: kv_pb2.DeleteMetadataRequest, metadata: dict[str, str]
    ) -> kv_pb2.DeleteMetadataResponse:
        self._gate(metadata)
        self._secret(request)
        del self.cluster.secrets[request.mount or "secret", request.path]
        return kv_pb2.DeleteMetadataResponse()

    def _Execute(self, request: logical_pb2.ExecuteRequest, metadata: dict[str, str]) -> logical_pb2.ExecuteResponse:
        self._gate(metadata)
        operation = logical_pb2.Operation.Name(request.operation)
        if request.path == "auth/token/lookup-self":
            answer: dict[str, Any] = {"accessor": "acc", "display_name": "root", "policies": ["root"], "ttl": 0}
        elif request.path == "empty":
            return logical_pb2.ExecuteResponse()
        elif operation == "OPERATION_LIST":
            answer = {"keys": ["b", "a/"]}
        else:
            answer = {"operation": operation, "path": request.path, "given": json.loads(request.data or b"{}")}
        body = json.dumps(answer).encode()
        return logical_pb2.ExecuteResponse(data=body, warnings=["mind the step"], request_id="r1")

    def _Init(self, _request: sys_pb2.InitRequest, _metadata: dict[str, str]) -> sys_pb2.InitResponse:
        if self.cluster.initialized:
            raise errors.AlreadyInitialized("the cluster has its keys already. Unseal it with its shares.")
        self.cluster.initialized = True
        self.sealed = True
        return sys_pb2.InitResponse(shares=SHARES, root_token=self.cluster.token)

    def _SealStatus(self, _request: sys_pb2.SealStatusRequest, _metadata: dict[str, str]) -> sys_pb2.SealStatusResponse:
        status = sys_pb2.SealStatusResponse(
            type="shamir",
            initialized=self.cluster.initialized,
            sealed=self.sealed,
            threshold=3,
            shares=5,
            progress=len(self.progress),
            nonce="n-1" if self.progress else "",
            version="0.1.0",
            cluster_name="demo",
            cluster_id="c-1",
            node_id=self.name,
            role="leader" if self.name == "node-1" else "follower",
            leader_id="node-1",
        )
        if self.sealed:
            status.last_seal_reason = "asked to by an operator"
            status.last_seal_time.CopyFrom(Timestamp(seconds=1_795_493_477))
        return status

    def _Unseal(self, request: sys_pb2.UnsealRequest, metadata: dict[str, str]) -> sys_pb2.UnsealResponse:
        if request.reset:
            self.progress.clear()
        elif request.share not in SHARES or request.share in self.progress:
            raise errors.ShareRejected("this share is mistyped, repeated or from another set.")
        else:
            self.progress.append(request.share)
            if len(self.progress) == 3:
                self.progress.clear()
                self.sealed = False
        response = sys_pb2.UnsealResponse(status=self._SealStatus(sys_pb2.SealStatusRequest(), metadata))
        if request.cluster and not self.sealed:
            response.cluster_done = True
            response.members.add(node_id="node-2", unsealed=True)
            response.members.add(node_id="node-3", unsealed=True, already=True)
            response.members.add(node_id="node-4", reason="node node-4 cannot be reached")
        return response

    def _Seal(self, _request: sys_pb2.SealRequest, metadata: dict[str, str]) -> sys_pb2.SealResponse:
        self._gate(metadata)
        self.sealed = True
        return sys_pb2.SealResponse()

    def _Health(self, _request: sys_pb2.HealthRequest, _metadata: dict[str, str]) -> sys_pb2.HealthResponse:
        state = sys_pb2.HealthResponse.STATE_SEALED if self.sealed else sys_pb2.HealthResponse.STATE_ACTIVE
        return sys_pb2.HealthResponse(state=state, node_id=self.name, version="0.1.0")

    def _Leader(self, _request: sys_pb2.LeaderRequest, _metadata: dict[str, str]) -> sys_pb2.LeaderResponse:
        return sys_pb2.LeaderResponse(is_self=True, leader_id=self.name, leader_address=self.address, term=7)

    def _StepDown(self, _request: sys_pb2.StepDownRequest, metadata: dict[str, str]) -> sys_pb2.StepDownResponse:
        self._gate(metadata)
        return sys_pb2.StepDownResponse(new_leader_id="node-2")

    def _Join(self, request: raft_pb2.JoinRequest, metadata: dict[str, str]) -> raft_pb2.JoinResponse:
        self._gate(metadata)
        self.cluster.peers.append(request.peer.node_id)
        return raft_pb2.JoinResponse(index=41)

    def _ListPeers(self, _request: raft_pb2.ListPeersRequest, metadata: dict[str, str]) -> raft_pb2.ListPeersResponse:
        self._gate(metadata)
        peers = [
            raft_pb2.Peer(
                node_id=name,
                cluster_address=f"10.0.0.{number}:8201",
                api_address=f"10.0.0.{number}:8200",
                leader=number == 1,
                voter=True,
                match_index=40,
                connected=number != 3,
                last_contact_ms=0 if number == 1 else 1500,
                eligible=True,
            )
            for number, name in enumerate(self.cluster.peers, 1)
        ]
        return raft_pb2.ListPeersResponse(peers=peers, index=3, term=7, commit_index=40, applied_index=40)

    def _RemovePeer(self, request: raft_pb2.RemovePeerRequest, metadata: dict[str, str]) -> raft_pb2.RemovePeerResponse:
        self._gate(metadata)
        if request.node_id not in self.cluster.peers:
            raise errors.NotFound("there is no such node in the cluster.")
        self.cluster.peers.remove(request.node_id)
        return raft_pb2.RemovePeerResponse(index=42)

    # Autopilot

    def _GetAutopilotState(
        self, _request: autopilot_pb2.GetAutopilotStateRequest, metadata: dict[str, str]
    ) -> autopilot_pb2.GetAutopilotStateResponse:
        self._gate(metadata)
        server = autopilot_pb2.AutopilotServer(
            node_id="node-1", address="10.0.0.1:8201", leader=True, voter=True, healthy=True, last_index=40, last_term=7
        )
        server.stable.FromSeconds(90)
        return autopilot_pb2.GetAutopilotStateResponse(
            healthy=True, failure_tolerance=1, leader="node-1", voters=["node-1"], servers=[server]
        )

    def _GetAutopilotConfiguration(
        self, _request: autopilot_pb2.GetAutopilotConfigurationRequest, metadata: dict[str, str]
    ) -> autopilot_pb2.GetAutopilotConfigurationResponse:
        self._gate(metadata)
        return autopilot_pb2.GetAutopilotConfigurationResponse(configuration=self.cluster.autopilot)

    def _SetAutopilotConfiguration(
        self, request: autopilot_pb2.SetAutopilotConfigurationRequest, metadata: dict[str, str]
    ) -> autopilot_pb2.SetAutopilotConfigurationResponse:
        self._gate(metadata)
        self.cluster.autopilot.MergeFrom(request.configuration)
        return autopilot_pb2.SetAutopilotConfigurationResponse(configuration=self.cluster.autopilot)

    # Replica

    def _ReplicaState(
        self, _request: replica_pb2.ReplicaStateRequest, _metadata: dict[str, str]
    ) -> replica_pb2.ReplicaStateResponse:
        return replica_pb2.ReplicaStateResponse(
            node_id="node-1", applied_index=40, state_digest=b"s" * 16, log_digest=b"l" * 16, compared_index=38,
            differing=["node-3"],
        )  # fmt: skip


class _Handler(grpc.GenericRpcHandler):
    """Routes every method of the services to `FakeNode.serve`."""

    def __init__(self, node: FakeNode) -> None:
        self._node = node
        self._methods: dict[str, tuple[str, Any, Any]] = {}
        for module in (autopilot_pb2, kv_pb2, logical_pb2, raft_pb2, replica_pb2, sys_pb2):
            for service in module.DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    request = getattr(module, method.input_type.name)
                    response = getattr(module, method.output_type.name)
                    self._methods[f"/{service.full_name}/{method.name}"] = (method.name, request, response)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        if details.method not in self._methods:
            return None
        name, request, response = self._methods[details.method]
        return grpc.unary_unary_rpc_method_handler(
            lambda message, context: self._node.serve(name, message, context),
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )


def rich_status(error: HoldfastError) -> status_pb2.Status:
    """An error as a node puts it on the wire."""
    code = getattr(grpc.StatusCode, error.grpc_code).value[0]
    parts: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=errors.DOMAIN, metadata=error.details)]
    if error.retry_after_ms is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(error.retry_after_ms)
        parts.append(retry)
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        parts.append(error_details_pb2.BadRequest(field_violations=[violation]))
    status = status_pb2.Status(code=code, message=error.message)
    for part in parts:
        packed = any_pb2.Any()
        packed.Pack(part)
        status.details.append(packed)
    return status


def abort(context: grpc.ServicerContext, error: HoldfastError) -> NoReturn:
    """End a call with an error and its google.rpc details."""
    metadata = (("grpc-status-details-bin", rich_status(error).SerializeToString()),)
    context.set_trailing_metadata(metadata)
    context.abort(getattr(grpc.StatusCode, error.grpc_code), error.message)


@contextlib.contextmanager
def three_nodes(directory: Path) -> Iterator[list[FakeNode]]:
    """Three nodes of one cluster."""
    cluster = FakeCluster()
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(FakeNode(directory, cluster, name=f"node-{number}")) for number in (1, 2, 3)]
