"""One real node process over TLS, from its first start to SIGTERM, as a client without the SDK sees it."""

import json
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from holdfast.client.local import LocalCluster, LocalNode, daemon_command, free_ports
from holdfast.proto.v1 import kv_pb2, kv_pb2_grpc, sys_pb2, sys_pb2_grpc

DEADLINE_S = 60.0
MARKERS = ("s3cr3t-marker", "name-marker")
SERVICES = ["KvService", "SysService", "RaftService", "LogicalService", "KeysService", "ReplicaService"]


@dataclass
class Served:
    node: LocalNode
    ca_file: Path
    channel: grpc.Channel
    shares: list[str]
    metadata: list[tuple[str, str]]

    @property
    def kv(self) -> kv_pb2_grpc.KvServiceStub:
        return kv_pb2_grpc.KvServiceStub(self.channel)

    @property
    def sys(self) -> sys_pb2_grpc.SysServiceStub:
        return sys_pb2_grpc.SysServiceStub(self.channel)

    def health(self, service: str = "") -> int:
        stub = health_pb2_grpc.HealthStub(self.channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S).status)

    def http(self, path: str) -> tuple[int, str]:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        try:
            url = f"https://{self.node.metrics_address}{path}"
            with urllib.request.urlopen(url, context=context, timeout=DEADLINE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def unseal(self) -> None:
        for share in self.shares[:3]:
            self.sys.Unseal(sys_pb2.UnsealRequest(share=share), timeout=DEADLINE_S)
        eventually(lambda: self.health() == health_pb2.HealthCheckResponse.SERVING)


def eventually(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)
    return value


def reason_and_field(error: grpc.RpcError) -> tuple[str, str]:
    status = rpc_status.from_call(error)
    assert status is not None, error
    reason, field = "", ""
    for packed in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if packed.Unpack(info):
            reason = info.reason
        elif packed.Unpack(bad):
            field = bad.field_violations[0].field
    return reason, field


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return reason_and_field(caught.value)


def initialize(stub: sys_pb2_grpc.SysServiceStub) -> Any:
    """Init, once the node leads itself."""

    def attempt() -> Any:
        try:
            return stub.Init(sys_pb2.InitRequest(), timeout=DEADLINE_S)
        except grpc.RpcError as error:
            if reason_and_field(error)[0] != "NO_LEADER":
                raise
            return None

    return eventually(attempt)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    folder = Path(tempfile.mkdtemp(prefix="holdfast-test-"))
    try:
        with LocalCluster.create(folder, 1) as made:
            made.start()
            made.wait_listening()
            yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def served(cluster: LocalCluster) -> Iterator[Served]:
    node = cluster.nodes[0]
    credentials = grpc.ssl_channel_credentials(cluster.ca_file.read_bytes())
    with grpc.secure_channel(node.api_address, credentials) as channel:
        it = Served(node, cluster.ca_file, channel, [], [])
        assert refused(lambda: it.kv.Get(kv_pb2.GetRequest(path="a")))[0] == "UNINITIALIZED"
        assert it.http("/healthz")[0] == 501
        assert it.health() == health_pb2.HealthCheckResponse.NOT_SERVING
        made = initialize(it.sys)
        it.shares, it.metadata = list(made.shares), [("x-holdfast-token", made.root_token)]
        assert len(it.shares) == 5
        assert it.http("/healthz")[0] == 503
        it.unseal()
        yield it


def test_a_secret_is_put_and_got_over_tls(served: Served) -> None:
    data = json.dumps({"password": MARKERS[0], "big": 2**100}).encode()
    put = served.kv.Put(kv_pb2.PutRequest(path=f"{MARKERS[1]}/db", data=data), metadata=served.metadata)
    assert put.metadata.version == 1
    got = served.kv.Get(kv_pb2.GetRequest(path=f"{MARKERS[1]}/db"), metadata=served.metadata)
    assert json.loads(got.data) == json.loads(data)


def test_wrong_input_is_refused_by_field(served: Served) -> None:
    def put(**fields: Any) -> tuple[str, str]:
        return refused(lambda: served.kv.Put(kv_pb2.PutRequest(**fields), metadata=served.metadata))

    assert put(path="", data=b"{}") == ("INVALID_ARGUMENT", "path")
    assert put(path="a", data=b"[]") == ("INVALID_ARGUMENT", "data")
    assert put(path="a", data=b'{"a":"%s"}' % (b"x" * 2**20)) == ("INVALID_ARGUMENT", "data")
    assert put(mount="/a", path="a", data=b"{}") == ("INVALID_ARGUMENT", "mount")
    assert put(mount="absent", path="a", data=b"{}")[0] == "NOT_FOUND"
    assert put(path=f"{MARKERS[1]}/db", data=b"{}", cas=0)[0] == "CONFLICT"
    assert refused(lambda: served.kv.Get(kv_pb2.GetRequest(path="a")))[0] == "UNAUTHENTICATED"
    age = [*served.metadata, ("x-holdfast-request-age-ms", "old")]
    assert refused(lambda: served.kv.Get(kv_pb2.GetRequest(path="a"), metadata=age))[1] == "x-holdfast-request-age-ms"


def test_a_message_over_the_limit_is_refused_before_it_is_read(served: Served) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.kv.Put(kv_pb2.PutRequest(path="a", data=b"x" * (33 * 2**20)), metadata=served.metadata)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_sealed_node_says_so_everywhere_and_serves_again_when_unsealed(served: Served) -> None:
    served.sys.Seal(sys_pb2.SealRequest(), metadata=served.metadata)
    assert refused(lambda: served.kv.Get(kv_pb2.GetRequest(path="a"), metadata=served.metadata))[0] == "SEALED"
    health = served.sys.Health(sys_pb2.HealthRequest())
    assert health.state == sys_pb2.HealthResponse.STATE_SEALED
    status, body = served.http("/healthz")
    assert (status, json.loads(body)["state"]) == (503, "sealed")
    eventually(lambda: served.health() == health_pb2.HealthCheckResponse.NOT_SERVING)
    assert "holdfast_sealed 1.0" in served.http("/metrics")[1]
    served.unseal()
    assert served.http("/healthz")[0] == 200
    got = served.kv.Get(kv_pb2.GetRequest(path=f"{MARKERS[1]}/db"), metadata=served.metadata)
    assert json.loads(got.data)["big"] == 2**100


def test_health_knows_every_service_and_reflection_lists_them(served: Served) -> None:
    names = {f"holdfast.v1.{name}" for name in SERVICES}
    for name in names:
        assert served.health(name) == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        served.health("holdfast.v1.Absent")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]))
    assert names <= {service.name for service in answer.list_services_response.service}


def test_metrics_count_without_naming_anything_secret(served: Served) -> None:
    status, body = served.http("/metrics")
    assert status == 200
    assert 'holdfast_requests_total{method="KvService/Put",outcome="OK"}' in body
    assert 'holdfast_role{role="leader"} 1.0' in body
    assert 'holdfast_proposals_total{outcome="APPLIED"}' in body
    assert not any(marker in body for marker in MARKERS)


def test_the_ports_speak_no_plaintext_and_the_wrong_ca_is_refused(served: Served, tmp_path: Path) -> None:
    with grpc.insecure_channel(served.node.api_address) as channel, pytest.raises(grpc.RpcError) as caught:
        sys_pb2_grpc.SysServiceStub(channel).Health(sys_pb2.HealthRequest(), timeout=DEADLINE_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    tmp_path.chmod(0o700)
    subprocess.run([*daemon_command(), "certs", "create-ca", str(tmp_path)], check=True, capture_output=True)
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    with pytest.raises(urllib.error.URLError, match="certificate verify failed"):
        urllib.request.urlopen(f"https://{served.node.metrics_address}/metrics", context=context)


def start_once(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*daemon_command(), "--config", str(config)], capture_output=True, text=True, check=False, timeout=DEADLINE_S
    )


def test_a_second_process_on_the_same_data_is_refused(served: Served) -> None:
    result = start_once(served.node.config_file)
    assert result.returncode == 1
    assert "data_dir" in result.stderr
    assert "in use by another holdfastd" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("section", ["api", "metrics"])
def test_a_port_that_is_taken_is_named(served: Served, tmp_path: Path, section: str) -> None:
    config = yaml.safe_load(served.node.config_file.read_text())
    ports = free_ports(3)
    config["data_dir"] = str(tmp_path / "data")
    config["cluster"]["initial_members"] = []
    for name, port in zip(("api", "cluster", "metrics"), ports, strict=True):
        taken = config[name]["bind"] if name == section else f"127.0.0.1:{port}"
        config[name]["bind"] = taken
        if name != "metrics":
            config[name]["advertise"] = taken
    file = tmp_path / "node.yaml"
    file.write_text(yaml.safe_dump(config))
    result = start_once(file)
    assert result.returncode == 1
    assert f"{section}.bind" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_sigterm_ends_the_node_with_exit_code_0_and_damage_with_70(served: Served) -> None:
    assert served.node.stop() == 0
    log = served.node.log_file.read_text()
    assert [json.loads(line)["event"] for line in log.splitlines()][-1] == "stopped"
    for secret in (*MARKERS, *served.shares, served.metadata[0][1]):
        assert secret not in log
    for table in (*served.node.data_dir.glob("journal/**/*.log"), *served.node.data_dir.glob("journal/**/*.sst")):
        content = bytearray(table.read_bytes())
        if len(content) > 64:
            content[len(content) // 2] ^= 0xFF
            table.write_bytes(content)
    served.node.start()
    assert served.node.wait(DEADLINE_S) == 70
    last = json.loads(served.node.log_file.read_text().splitlines()[-1])
    assert (last["level"], last["reason"]) == ("critical", "CORRUPTION")


def test_an_interrupt_is_a_graceful_end_too(tmp_path: Path) -> None:
    with LocalCluster.create(tmp_path / "cluster", 1) as cluster:
        cluster.start()
        cluster.wait_listening()
        node = cluster.nodes[0]
        node.signal(signal.SIGINT)
        assert node.wait(DEADLINE_S) == 0
