"""The HTTPS port of metrics and health: its two answers, its refusals, and that it never speaks plaintext."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.local_consensus import LocalConsensus

from holdfast.cluster.raft.consensus import Role
from holdfast.server.certs import create_ca, issue_node
from holdfast.server.config import Address, TlsFiles
from holdfast.server.health import HealthReport, state_of
from holdfast.server.metrics import Metrics, NodeState
from holdfast.server.metrics_http import MetricsServer


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    folder: Path = tmp_path_factory.mktemp("certs")
    folder.chmod(0o700)
    create_ca(folder, "test")
    files = issue_node(folder, "node-1", [], ["127.0.0.1"])
    return TlsFiles(cert_file=str(files.cert_file), key_file=str(files.key_file), ca_file=str(folder / "ca.crt"))


class Rig:
    def __init__(self, tls: TlsFiles) -> None:
        self.consensus = LocalConsensus("node-1")
        self.sealed = False
        self.initialized = True
        metrics = Metrics(version="9.9")
        metrics.watch(
            lambda: NodeState(consensus=self.consensus.status(), initialized=self.initialized, sealed=self.sealed)
        )
        self.server = MetricsServer(address=Address("127.0.0.1", 0), tls=tls, metrics=metrics, health=self.health)
        self.context = ssl.create_default_context(cafile=tls.ca_file)

    def health(self) -> HealthReport:
        state = state_of(self.consensus, initialized=self.initialized, sealed=self.sealed)
        return HealthReport(state=state, node_id="node-1", version="9.9", leader_id="node-1")

    async def raw(self, request: bytes, *, context: ssl.SSLContext | None = None) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port, ssl=context)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    async def get(self, target: str) -> tuple[int, str, str]:
        answer = await self.raw(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), context=self.context)
        head, _, body = answer.decode().partition("\r\n\r\n")
        return int(head.split(" ")[1]), head, body


def with_rig(tls: TlsFiles, test: Callable[[Rig], Awaitable[None]]) -> None:
    async def main() -> None:
        rig = Rig(tls)
        await rig.server.start()
        try:
            await test(rig)
        finally:
            await rig.server.stop()

    asyncio.run(main())


def test_metrics_tell_the_nodes_state_in_prometheus_format(tls: TlsFiles) -> None:
    async def metrics(rig: Rig) -> None:
        status, head, body = await rig.get("/metrics")
        assert status == 200
        assert "Content-Type: text/plain; version=1.0.0" in head
        for line in (
            'holdfast_role{role="leader"} 1.0', 'holdfast_role{role="follower"} 0.0', "holdfast_term 1.0",
            "holdfast_commit_index 1.0", "holdfast_applied_index 1.0", "holdfast_leader_known 1.0",
            "holdfast_quorum_contact_age_seconds 0.0", "holdfast_sealed 0.0", "holdfast_initialized 1.0",
            "holdfast_sessions 0.0", 'holdfast_build_info{version="9.9"} 1.0',
        ):  # fmt: skip
            assert line in body.splitlines()
        assert "process_resident_memory_bytes" in body

    with_rig(tls, metrics)


def test_health_has_vaults_codes(tls: TlsFiles) -> None:
    async def health(rig: Rig) -> None:
        status, _, body = await rig.get("/healthz")
        assert (status, json.loads(body)["state"]) == (200, "active")
        rig.consensus.set_role(Role.FOLLOWER, leader_id="node-2")
        assert (await rig.get("/healthz"))[0] == 429
        assert (await rig.get("/healthz?standbycode=200"))[0] == 200
        rig.consensus.set_role(Role.CANDIDATE)
        assert (await rig.get("/healthz"))[0] == 503
        rig.sealed = True
        assert (await rig.get("/healthz?standbycode=200"))[0] == 503
        assert (await rig.get("/healthz?sealedcode=204"))[0] == 204
        rig.initialized = False
        assert (await rig.get("/healthz"))[0] == 501
        for bad in ("x", "1", "99999", "²00", "-200"):
            assert (await rig.get(f"/healthz?uninitcode={bad}".encode().decode("latin-1")))[0] == 400

    with_rig(tls, health)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /metrics SPDY/3\r\n\r\n", 400),
        (b"GET //[ HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz?activecode=" + b"9" * 5000 + b" HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    ],
)
def test_other_requests_get_a_clear_refusal(tls: TlsFiles, request_bytes: bytes, status: int) -> None:
    async def refused(rig: Rig) -> None:
        answer = await rig.raw(request_bytes, context=rig.context)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())

    with_rig(tls, refused)


def test_plaintext_gets_no_answer(tls: TlsFiles) -> None:
    async def plaintext(rig: Rig) -> None:
        try:
            answer = await rig.raw(b"GET /metrics HTTP/1.1\r\n\r\n")
        except ConnectionError:
            answer = b""
        assert b"HTTP" not in answer
        assert (await rig.get("/metrics"))[0] == 200

    with_rig(tls, plaintext)
