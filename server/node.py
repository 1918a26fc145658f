"""The composition root: one node, wired by hand. Read it as a table of contents of what a node is made of.

Constructing a Node opens its stores and connects its rooms; nothing runs until `start`. The order of starting and
stopping, and why, is in DESIGN.md.
"""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 - the composition root hands randomness out
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc_reflection.v1alpha import reflection

import holdfast
from holdfast.cluster.peer.network import PeerNetwork
from holdfast.cluster.peer.tls import Kind, PeerTls
from holdfast.cluster.raft.autopilot import AutopilotConfig
from holdfast.cluster.raft.consensus import Consensus, Member, Role
from holdfast.cluster.raft.node import RaftNode
from holdfast.cluster.raft.timing import Timing
from holdfast.cluster.seal.seal import SealManager
from holdfast.cluster.seal.state import SealStatus
from holdfast.cluster.snapshot.distribution import Distribution
from holdfast.cluster.snapshot.restoring import Restorer
from holdfast.cluster.snapshot.saving import SnapshotMaker
from holdfast.cluster.snapshot.spool import Spool
from holdfast.core.audit.engine import audit_mounts
from holdfast.core.core import Core
from holdfast.core.housekeeping import Housekeeper
from holdfast.core.plugin import Engine
from holdfast.engines.kv.engine import KvEngine
from holdfast.proto.errors import Fatal, HoldfastError, Uninitialized
from holdfast.proto.v1 import (
    autopilot_pb2,
    join_pb2,
    keys_pb2,
    kv_pb2,
    logical_pb2,
    raft_pb2,
    replica_pb2,
    seal_provider_pb2,
    snapshot_pb2,
    sys_pb2,
)
from holdfast.proto.v1.autopilot_pb2_grpc import add_AutopilotServiceServicer_to_server
from holdfast.proto.v1.join_pb2_grpc import add_JoinServiceServicer_to_server
from holdfast.proto.v1.keys_pb2_grpc import add_KeysServiceServicer_to_server
from holdfast.proto.v1.kv_pb2_grpc import add_KvServiceServicer_to_server
from holdfast.proto.v1.logical_pb2_grpc import add_LogicalServiceServicer_to_server
from holdfast.proto.v1.raft_pb2_grpc import add_RaftServiceServicer_to_server
from holdfast.proto.v1.replica_pb2_grpc import add_ReplicaServiceServicer_to_server
from holdfast.proto.v1.seal_provider_pb2_grpc import add_SealProviderServiceServicer_to_server
from holdfast.proto.v1.snapshot_pb2_grpc import add_SnapshotServiceServicer_to_server
from holdfast.proto.v1.sys_pb2_grpc import add_SysServiceServicer_to_server
from holdfast.server import identity
from holdfast.server.auditing import Auditing
from holdfast.server.autopilot_service import AutopilotService
from holdfast.server.certificates import Certificates
from holdfast.server.config import ConfigError, NodeConfig, TlsFiles, parse_address
from holdfast.server.errors import not_joined
from holdfast.server.exits import EXIT_FATAL
from holdfast.server.forwarding import PeerForwarder, serve_forwarded
from holdfast.server.frontend import FrontEnd
from holdfast.server.health import HEALTH_SERVICE, GrpcHealth, HealthReport, add_health_servicer, state_of
from holdfast.server.joining import Joining
from holdfast.server.key_operations import KeyOperations
from holdfast.server.keys_service import KeysService
from holdfast.server.kv_service import KvService
from holdfast.server.limits import DRAIN_TIMEOUT_S, FATAL_DRAIN_TIMEOUT_S, RPCS_MAX, TRANSFER_TIMEOUT_S, grpc_options
from holdfast.server.logical_service import LogicalService
from holdfast.server.measured import MeasuredConsensus
from holdfast.server.memory import overwrite_freed_memory_soon
from holdfast.server.metrics import Metrics, NodeState
from holdfast.server.metrics_http import MetricsServer
from holdfast.server.process import DataFolder, on_hangup, on_termination, process_age_ms, settle_garbage_collector
from holdfast.server.raft_service import RaftService
from holdfast.server.replica_service import ReplicaService
from holdfast.server.seal_provider_service import SealProviderService
from holdfast.server.sealing import Sealing
from holdfast.server.snapshot_schedule import schedule_of
from holdfast.server.snapshot_service import SnapshotService
from holdfast.server.streams import StreamCap
from holdfast.server.sys_service import SysService
from holdfast.storage.barrier import Barrier
from holdfast.storage.rocksdb import RocksStore
from holdfast.storage.rockshome import RocksHome
from holdfast.storage.transaction import Transaction

ENGINES: tuple[Callable[[], Engine], ...] = (KvEngine,)
"""The registry of secret engines: a new one is a line here."""

log = structlog.stdlib.get_logger(__name__)


def elapsed_s() -> float:
    """Seconds on a clock that never goes back and that counts the time in which the machine was suspended: what is
    remembered from before a suspension must not look fresh after it."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@dataclass(frozen=True)
class Sources:
    """Time and randomness, handed down to every room. Seconds."""

    monotonic: Callable[[], float] = elapsed_s
    wall_clock: Callable[[], float] = time.time  # noqa: TID251 - the composition root hands time out
    random_bytes: Callable[[int], bytes] = secrets.token_bytes


class Node:
    """A node of the cluster. Construct it inside a running event loop, `start` it, `stop` it once."""

    def __init__(self, config: NodeConfig, sources: Sources | None = None, *, config_file: Path | None = None) -> None:
        """config_file: the node.yaml that `config` came from.

        Raises ConfigError when the data folder cannot be used, Fatal when what is stored there is damaged."""
        sources = sources or Sources()
        self._config = config
        self.fatal: asyncio.Future[Fatal] = asyncio.get_running_loop().create_future()
        """Resolved when the node must stop at once (law 7)."""

        self._held = ExitStack()
        with ExitStack() as undo:
            undo.callback(self._held.close)
            data = Path(config.data_dir)
            self._held.enter_context(DataFolder(data))
            identity.claim(data, node_id=config.node_id, cluster_name=config.cluster_name)
            journal = RocksStore.open(data / "journal")
            self._held.callback(journal.close)
            state = RocksHome.open(data / "state")
            self._held.callback(state.close)
            undo.pop_all()

        self._metrics = Metrics(version=holdfast.__version__)
        self._certificates = Certificates(config, wall_clock=sources.wall_clock)
        self._metrics.add_collector(self._certificates)
        self._network = PeerNetwork(
            node_id=config.node_id,
            bind=config.cluster.bind,
            tls=_peer_tls(config.cluster.tls),
            allow=self._hears,
            lineage=lambda: self._raft.lineage,
            judge=lambda peer, lineage: self._raft.judge(peer, lineage),
        )
        self._certificates.on_reload(self._network.reload_certificates)
        self._raft = RaftNode(
            member=Member(
                node_id=config.node_id,
                cluster_address=config.cluster.advertise,
                api_address=config.api.advertise,
            ),
            initial_members=_members(config),
            journal_store=journal,
            state=state,
            links=self._network,
            clock=sources.monotonic,
            rng=random.SystemRandom(),
            on_fatal=self._on_fatal,
            on_left_behind=lambda lineage: identity.leave_behind(data, lineage),
            limits=config.raft.limits,
            timing=Timing(server_stabilization_s=AutopilotConfig().server_stabilization_time_s),
        )
        self._consensus: Consensus = MeasuredConsensus(self._raft, self._metrics, sources.monotonic)
        self._seal = SealManager(
            self._consensus,
            random_bytes=sources.random_bytes,
            wall_clock=sources.wall_clock,
            cluster_name=config.cluster_name,
            on_fatal=self._on_fatal,
        )
        self._housekeeper = Housekeeper(
            self._consensus,
            barrier=self._barrier,
            clock=sources.monotonic,
            wall_clock=sources.wall_clock,
            on_fatal=self._on_fatal,
        )
        self._auditing = Auditing(
            node_id=config.node_id,
            consensus=self._consensus,
            barrier=self._barrier,
            metrics=self._metrics,
            wall_clock=sources.wall_clock,
            clock=sources.monotonic,
        )
        self._joining = Joining(config, consensus=self._consensus, barrier=self._barrier, wall_clock=sources.wall_clock)
        self._sealing = Sealing(
            config.seal,
            node_id=config.node_id,
            seal=self._seal,
            consensus=self._consensus,
            calls=self._network,
            metrics=self._metrics,
            config_file=config_file,
            event=self._auditing.event,
            trusts=self._joining.trusts,
            clock=sources.monotonic,
            wall_clock=sources.wall_clock,
            random_bytes=sources.random_bytes,
            on_fatal=self._on_fatal,
        )
        self._core = Core(
            node_id=config.node_id,
            consensus=self._consensus,
            barrier=self._barrier,
            engines={engine.type: engine for engine in (make() for make in ENGINES)},
            forwarder=PeerForwarder(self._network, self._metrics),
            audit=self._auditing.devices,
            system=[*audit_mounts(self._auditing.devices), *self._joining.mounts],
            wall_clock=sources.wall_clock,
            random_bytes=sources.random_bytes,
        )
        serve_forwarded(self._network, self._core.handle, self._on_fatal)
        self._snapshots = SnapshotMaker(
            self._raft,
            node_id=config.node_id,
            version=holdfast.__version__,
            wall_clock=sources.wall_clock,
            monotonic=sources.monotonic,
        )
        self._distribution = Distribution(
            self._raft,
            self._network,
            Spool(data / "restore"),
            node_id=config.node_id,
            wall_clock=sources.wall_clock,
            monotonic=sources.monotonic,
            on_fatal=self._on_fatal,
        )
        self._raft.on_replaced(self._state_replaced)
        self._schedule = schedule_of(
            config.snapshots,
            folder=data / "backup",
            maker=self._snapshots,
            consensus=self._consensus,
            seal=self._seal,
            metrics=self._metrics,
            wall_clock=sources.wall_clock,
            monotonic=sources.monotonic,
            on_fatal=self._on_fatal,
        )
        self._metrics.watch(self._state)
        self._wire_front_end(sources)

    def _wire_front_end(self, sources: Sources) -> None:
        """The gRPC services over the rooms below, and the health and metrics that tell of them."""
        front_end = FrontEnd(
            metrics=self._metrics,
            random_bytes=sources.random_bytes,
            monotonic=sources.monotonic,
            on_fatal=self._on_fatal,
        )
        self._front_end = front_end
        services = [
            module.DESCRIPTOR.services_by_name[name].full_name
            for module, name in (
                (kv_pb2, "KvService"), (sys_pb2, "SysService"), (raft_pb2, "RaftService"),
                (logical_pb2, "LogicalService"), (snapshot_pb2, "SnapshotService"),
                (seal_provider_pb2, "SealProviderService"), (keys_pb2, "KeysService"), (join_pb2, "JoinService"),
                (replica_pb2, "ReplicaService"), (autopilot_pb2, "AutopilotService"),
            )
        ]  # fmt: skip
        self._grpc_health = GrpcHealth(services=services, state=lambda: self._health().state)
        self._server = grpc.aio.server(
            interceptors=[StreamCap()], options=grpc_options(), maximum_concurrent_rpcs=RPCS_MAX
        )
        add_KvServiceServicer_to_server(KvService(front_end, self._core.handle, self._consensus), self._server)
        add_LogicalServiceServicer_to_server(LogicalService(front_end, self._core.handle), self._server)
        add_RaftServiceServicer_to_server(
            RaftService(
                front_end,
                consensus=self._consensus,
                calls=self._network,
                authorize=self._core.authorize,
                admitted=self._joining.admitted,
                on_fatal=self._on_fatal,
            ),
            self._server,
        )
        add_JoinServiceServicer_to_server(
            self._joining.service(
                front_end,
                calls=self._network,
                serve_open=self._core.serve_open,
                clock=sources.monotonic,
                on_fatal=self._on_fatal,
            ),
            self._server,
        )
        add_SnapshotServiceServicer_to_server(
            SnapshotService(
                front_end,
                node_id=self._config.node_id,
                maker=self._snapshots,
                distribution=self._distribution,
                schedule=self._schedule,
                restorer=Restorer(
                    self._raft, self._consensus, self._seal, self._distribution, node_id=self._config.node_id
                ),
                consensus=self._consensus,
                calls=self._network,
                authorize=self._core.authorize,
                on_fatal=self._on_fatal,
            ),
            self._server,
        )
        add_SealProviderServiceServicer_to_server(
            SealProviderService(
                front_end,
                node_id=self._config.node_id,
                consensus=self._consensus,
                calls=self._network,
                wraps=self._sealing.wraps,
                keeper=self._sealing.providers,
                authorize=self._core.authorize,
                on_fatal=self._on_fatal,
            ),
            self._server,
        )
        add_KeysServiceServicer_to_server(
            KeysService(
                front_end,
                KeyOperations(
                    consensus=self._consensus,
                    calls=self._network,
                    seal=self._seal,
                    authorize=self._core.authorize,
                    witness=self._core.witness,
                    make_token=self._core.create_root_token,
                    recover=self._sealing.recover_root_key,
                    event=self._auditing.event,
                    random_bytes=sources.random_bytes,
                    clock=sources.monotonic,
                    wall_clock=sources.wall_clock,
                    on_fatal=self._on_fatal,
                ),
            ),
            self._server,
        )
        add_AutopilotServiceServicer_to_server(
            AutopilotService(
                front_end,
                seat=self._raft,
                consensus=self._consensus,
                calls=self._network,
                authorize=self._core.authorize,
                on_fatal=self._on_fatal,
            ),
            self._server,
        )
        add_ReplicaServiceServicer_to_server(ReplicaService(front_end, self._consensus), self._server)
        add_SysServiceServicer_to_server(
            SysService(
                front_end,
                version=holdfast.__version__,
                consensus=self._consensus,
                calls=self._network,
                seal=self._seal,
                unseal_members=self._sealing.unseal_members,
                seal_providers=lambda: self._sealing.providers.statuses,
                on_quorum_return=self._config.seal.on_quorum_return,
                bootstrap=self._bootstrap,
                authorize=self._core.authorize,
                health=self._health,
                wall_clock=sources.wall_clock,
                on_fatal=self._on_fatal,
            ),
            self._server,
        )
        add_health_servicer(self._grpc_health.servicer, self._server)
        reflection.enable_server_reflection([*services, HEALTH_SERVICE, reflection.SERVICE_NAME], self._server)
        self._metrics_server = (
            MetricsServer(
                address=parse_address(self._config.metrics.bind),
                tls=self._config.api.tls,
                metrics=self._metrics,
                health=self._health,
            )
            if self._config.metrics is not None
            else None
        )

        if self._metrics_server is not None:
            self._certificates.on_reload(self._metrics_server.reload_certificate)

    def reload_certificates(self) -> None:
        """Read the certificates again (SIGHUP)."""
        self._certificates.reload()

    async def start(self) -> None:
        """Start everything, the rooms below first: who listens can serve. Returns when the client port is open.

        Raises ConfigError when a port cannot be bound, HoldfastError when a room cannot start."""
        await self._network.start()
        await self._raft.start()
        await self._seal.load()
        self._seal.on_change(self._seal_changed)
        self._sealing.start()
        self._housekeeper.start()
        self._distribution.start()
        if self._schedule is not None:
            self._schedule.start()
        self._consensus.on_role_change(lambda _: self._grpc_health.refresh())
        await self._grpc_health.start()
        self._listen()
        await self._server.start()
        if self._metrics_server is not None:
            await _bound("metrics.bind", self._metrics_server.start)

    async def stop(self) -> None:
        """Leave in order: turn clients away, let calls end, hand leadership on, drop the keys, close the books."""
        log.info("stopping")
        await self._grpc_health.stop()
        await self._server.stop(DRAIN_TIMEOUT_S)
        await self._hand_over()
        await self._housekeeper.stop()
        await self._sealing.stop()
        await self._seal.close()
        await self._auditing.stop()
        if self._schedule is not None:
            await self._schedule.stop()
        await self._distribution.stop()
        await self._raft.stop()
        await self._network.stop()
        if self._metrics_server is not None:
            await self._metrics_server.stop()
        self._held.close()
        log.info("stopped")

    async def discard(self) -> None:
        """After a start that failed: end what has begun."""
        await self._server.stop(None)
        await self._housekeeper.stop()
        await self._sealing.stop()
        await self._seal.close()
        await self._auditing.stop()
        if self._schedule is not None:
            await self._schedule.stop()
        await self._distribution.stop()
        await self._raft.stop()
        await self._network.stop()
        self._held.close()

    async def abandon(self) -> None:
        """After a fatal error: let the answers out that tell of it, and touch nothing else."""
        await self._server.stop(FATAL_DRAIN_TIMEOUT_S)

    def _listen(self) -> None:
        bind = self._config.api.bind
        try:
            self._server.add_secure_port(bind, self._certificates.api_credentials())
        except RuntimeError:
            raise ConfigError(f"api.bind: {bind} cannot be bound; is another process listening there?") from None

    async def _hand_over(self) -> None:
        try:
            status = self._consensus.status()
            if status.role is not Role.LEADER or len(status.peers) < 2:
                return
            heir = await self._consensus.transfer_leadership(timeout_s=TRANSFER_TIMEOUT_S)
            log.info("handed leadership on", leader_id=heir)
        except HoldfastError as error:  # Unavailable from a node that was told to stop before it had started
            log.info("leadership was not handed on; the others will elect", reason=error.reason)

    def _on_fatal(self, error: Fatal) -> None:
        if not self.fatal.done():
            self.fatal.set_result(error)

    def _hears(self, _node_id: str, kind: Kind) -> bool:
        """A node that hears no leader (it joins, or the members changed while it was away) listens to Raft messages of
        every node that the cluster CA vouches for: one of them may lead. Calls are for members alone."""
        return kind is Kind.RAFT and self._raft.hears_strangers()

    @property
    def sealed(self) -> bool:
        """Whether the node holds no keys, as it does after every start."""
        return self._seal.sealed

    def _barrier(self) -> Barrier:
        """The open barrier. Raises Uninitialized or Sealed."""
        try:
            return self._sealing.barrier
        except Uninitialized:
            if not self._raft.status().peers:
                raise not_joined() from None
            raise

    async def _bootstrap(self, txn: Transaction) -> str:
        self._joining.bootstrap(txn)
        return await self._core.bootstrap(txn)

    def _state(self) -> NodeState:
        self._sealing.check()
        return NodeState(
            consensus=self._consensus.status(),
            initialized=self._seal.initialized,
            sealed=self._seal.sealed,
            in_flight=self._front_end.in_flight,
        )

    def _health(self) -> HealthReport:
        self._sealing.check()
        return HealthReport(
            state=state_of(self._consensus, initialized=self._seal.initialized, sealed=self._seal.sealed),
            node_id=self._config.node_id,
            version=holdfast.__version__,
            leader_id=self._consensus.status().leader_id,
        )

    def _state_replaced(self, keys_replaced: bool) -> None:  # noqa: FBT001 - a listener's form
        """A restore, or a member's snapshot: nothing that was read before counts, nor do keys that were replaced."""
        self._core.forget()
        if keys_replaced:
            self._seal.seal("a snapshot with other keys was restored: unseal with the shares that belong to it")

    def _seal_changed(self, status: SealStatus) -> None:
        if status.sealed:
            self._core.forget()
            if status.last_seal_reason or status.role is Role.LEADER:  # it held keys, or has just made them
                overwrite_freed_memory_soon()
            self._auditing.sealed(status.last_seal_reason)
        else:
            self._auditing.event("unsealed")
        log.info("seal_state", sealed=status.sealed, initialized=status.initialized, reason=status.last_seal_reason)
        self._grpc_health.refresh()


async def run(config: NodeConfig, *, config_file: Path | None = None) -> int:
    """Run a node until it is told to stop or meets a fatal error. Returns the process's exit code: 0 or 70.

    config_file: see Node.
    Raises ConfigError or HoldfastError when the node cannot start."""
    asyncio.get_running_loop().set_exception_handler(_loop_exception)
    stopping = asyncio.Event()
    undo_signals = on_termination(lambda _: stopping.set())
    try:
        node = Node(config, config_file=config_file)
        undo_reload = on_hangup(node.reload_certificates)
        try:
            return await _run_to_the_end(node, stopping)
        finally:
            undo_reload()
    except Fatal as error:
        return fatal_exit(error)
    except (ConfigError, HoldfastError):
        raise
    except Exception:
        log.critical("the node failed in a way that was not foreseen, and stops", exc_info=True)
        return EXIT_FATAL
    finally:
        undo_signals()


async def _run_to_the_end(node: Node, stopping: asyncio.Event) -> int:
    try:
        told = await _until(node.start(), stopping, node.fatal)
    except (ConfigError, HoldfastError) as error:
        if not isinstance(error, Fatal):
            await node.discard()
        raise
    if not told:
        log.info("ready", started_ms=process_age_ms(), version=holdfast.__version__, sealed=node.sealed)
        settle_garbage_collector()
        await _until(asyncio.Event().wait(), stopping, node.fatal)
    if node.fatal.done() or await _until(node.stop(), asyncio.Event(), node.fatal):
        await node.abandon()
        return fatal_exit(node.fatal.result())
    return 0


def fatal_exit(error: Fatal) -> int:
    """Say why the process ends, in one line; returns its exit code."""
    log.critical("fatal error, the node stops", reason=error.reason, message=error.message)
    return EXIT_FATAL


async def _until(work: Coroutine[Any, Any, object], stopping: asyncio.Event, fatal: asyncio.Future[Fatal]) -> bool:
    """Run `work` unless the node is to stop first. Returns whether it is to stop; raises what `work` raised."""
    working = asyncio.ensure_future(work)
    told = asyncio.ensure_future(stopping.wait())
    awaited: set[asyncio.Future[Any]] = {working, told, fatal}
    await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if working.done():
        working.result()
        return stopping.is_set() or fatal.done()
    working.cancel()
    await asyncio.wait({working})
    return True


async def _bound(field: str, start: Callable[[], Awaitable[None]]) -> None:
    try:
        await start()
    except OSError as error:
        raise ConfigError(f"{field}: cannot be bound: {error.strerror or error}") from error


def _peer_tls(tls: TlsFiles) -> PeerTls:
    return PeerTls(cert_file=Path(tls.cert_file), key_file=Path(tls.key_file), ca_file=Path(tls.ca_file))


def _members(config: NodeConfig) -> tuple[Member, ...]:
    return tuple(
        Member(node_id=m.node_id, cluster_address=m.cluster_address, api_address=m.api_address)
        for m in config.cluster.initial_members
    )


def _loop_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio found in a task or a callback that nobody waits for."""
    log.error("unexpected exception in the event loop", what=context.get("message"), exc_info=context.get("exception"))
