"""holdfast.v1.SnapshotService: the state of the cluster as a file, and back.

A restore is sent to any node. That one takes the file in, whole and verified, before the leader is told where it is.
"""
# ruff: noqa: N802 - method names are the protocol's

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import msgspec

from holdfast.cluster.peer.calls import PeerCalls
from holdfast.cluster.raft.consensus import Consensus
from holdfast.cluster.snapshot.distribution import Distribution
from holdfast.cluster.snapshot.restoring import Restored, Restorer
from holdfast.cluster.snapshot.saving import SnapshotMaker
from holdfast.core.request import Operation
from holdfast.proto.errors import FailedPrecondition, Fatal, InvalidArgument
from holdfast.proto.snapshot_file import SnapshotMetadata, check_of
from holdfast.proto.v1 import snapshot_pb2 as pb
from holdfast.proto.v1.snapshot_pb2_grpc import SnapshotServiceServicer
from holdfast.server.authorization import Authorize, authorized
from holdfast.server.frontend import Context, FrontEnd, rpc
from holdfast.server.leader_operation import Credentials, LeaderOperation
from holdfast.server.metadata import Call
from holdfast.server.snapshot_schedule import SnapshotSchedule
from holdfast.server.snapshot_targets import Stored

SNAPSHOT_PATH = "sys/storage/raft/snapshot"
FORCE_PATH = "sys/storage/raft/snapshot-force"

STREAM_S_MAX = 6 * 3600.0
"""How long a snapshot may take to be sent or received."""


RESTORE_S = 590.0
"""How long the leader may take to restore a file that a node has taken in; calls between nodes may not take longer."""


class _RestoreOrder(msgspec.Struct, frozen=True):
    credentials: Credentials
    sha256: bytes
    holder: str
    force: bool


class _ListOrder(msgspec.Struct, frozen=True):
    credentials: Credentials


class _Listed(msgspec.Struct, frozen=True):
    target: str
    snapshots: tuple[Stored, ...]


class SnapshotService(SnapshotServiceServicer):
    """Save is served by the node that is asked, from its own state, once that is known to be current; restore by the
    leader."""

    def __init__(
        self,
        front_end: FrontEnd,
        *,
        node_id: str,
        maker: SnapshotMaker,
        distribution: Distribution,
        restorer: Restorer,
        schedule: SnapshotSchedule | None,
        consensus: Consensus,
        calls: PeerCalls,
        authorize: Authorize,
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        self.front_end = front_end
        self._node_id = node_id
        self._maker = maker
        self._distribution = distribution
        self._restorer = restorer
        self._schedule = schedule
        self._authorize = authorize
        self._list = LeaderOperation(
            "snapshot.list", _ListOrder, _Listed, self._list_here, consensus=consensus, calls=calls, on_fatal=on_fatal
        )
        self._restore = LeaderOperation(
            "snapshot.restore", _RestoreOrder, Restored, self._restore_here, consensus=consensus, calls=calls,
            on_fatal=on_fatal,
        )  # fmt: skip

    async def SaveSnapshot(self, message: pb.SaveSnapshotRequest, context: Context) -> None:  # type: ignore[override]
        del message

        async def handle(call: Call) -> None:
            request = Credentials.of(call).request(Operation.READ, SNAPSHOT_PATH)
            async with authorized(self._authorize, request):
                await self._send(context)

        name = "SnapshotService/SaveSnapshot"
        await self.front_end.serve(name, handle, context, admit=True, timeout_s=STREAM_S_MAX)

    async def _send(self, context: Context) -> None:
        offset, digest = 0, hashlib.sha256()
        metadata: SnapshotMetadata | None = None
        async with aclosing(self._maker.make()) as parts:
            async for made in parts:
                message = pb.SaveSnapshotResponse(offset=offset, data=made.data, check=check_of(offset, made.data))
                if metadata is None:
                    metadata, message.expected_bytes = made.metadata, made.expected_bytes
                digest.update(made.data)
                offset += len(made.data)
                await context.write(message)
        assert metadata is not None, "a file has a head"
        saved = pb.SavedSnapshot(
            size=offset,
            sha256=digest.digest(),
            index=metadata.index,
            term=metadata.term,
            node_id=metadata.node_id,
        )
        await context.write(pb.SaveSnapshotResponse(offset=offset, saved=saved))

    async def RestoreSnapshot(
        self, messages: AsyncIterator[pb.RestoreSnapshotRequest], context: Context
    ) -> pb.RestoreSnapshotResponse:
        async def handle(call: Call) -> pb.RestoreSnapshotResponse:
            options = await anext(aiter(messages), None)
            if options is None or options.WhichOneof("part") != "options":
                raise InvalidArgument("the first message of a restore has its options", field="options")
            force = options.options.force
            credentials = Credentials.of(call)
            # The leader decides; but who may not restore does not fill this node's disk either.
            grant = await self._authorize(credentials.request(Operation.UPDATE, _path(force)))
            await grant.finish()
            sha256 = await self._take_in(messages)
            order = _RestoreOrder(credentials, sha256, self._node_id, force)
            done = await self._restore(order, timeout_s=RESTORE_S)
            return pb.RestoreSnapshotResponse(
                index=done.index,
                snapshot_index=done.snapshot_index,
                keys_replaced=done.keys_replaced,
                prepared=done.prepared,
                unprepared=done.unprepared,
            )

        name = "SnapshotService/RestoreSnapshot"
        return await self.front_end.serve(name, handle, context, admit=True, timeout_s=STREAM_S_MAX)

    async def _take_in(self, messages: AsyncIterator[pb.RestoreSnapshotRequest]) -> bytes:
        """The file, durable and verified; its SHA-256."""
        work, spool = self._distribution.work, self._distribution.spool
        incoming = await work(spool.begin)
        try:
            async for message in messages:
                part = message.data
                if message.WhichOneof("part") != "data" or part.offset != incoming.size:
                    raise InvalidArgument("a part of the snapshot is missing or out of order", field="offset")
                if part.check != check_of(part.offset, part.data):
                    raise InvalidArgument("a part of the snapshot was damaged on its way; try again", field="check")
                await work(lambda part=part: spool.check_room(2 * len(part.data)))  # type: ignore[misc]
                await work(lambda part=part: incoming.write(part.data))  # type: ignore[misc]
            return await work(incoming.keep)
        finally:
            await work(incoming.drop)

    async def _restore_here(self, order: _RestoreOrder, forwarded_by: str) -> Restored:
        request = order.credentials.request(Operation.UPDATE, _path(order.force), forwarded_by=forwarded_by)
        async with authorized(self._authorize, request):
            return await self._restorer.restore(order.sha256, holder=order.holder, force=order.force)

    @rpc
    async def ListSnapshots(self, message: pb.ListSnapshotsRequest, call: Call) -> pb.ListSnapshotsResponse:
        del message
        listed = await self._list(_ListOrder(Credentials.of(call)), timeout_s=call.timeout_s)
        snapshots = [
            pb.StoredSnapshot(name=one.name, size=one.size, created=int(one.created_s), index=one.index)
            for one in listed.snapshots
        ]
        return pb.ListSnapshotsResponse(target=listed.target, snapshots=snapshots)

    async def _list_here(self, order: _ListOrder, forwarded_by: str) -> _Listed:
        request = order.credentials.request(Operation.READ, SNAPSHOT_PATH, forwarded_by=forwarded_by)
        async with authorized(self._authorize, request):
            if self._schedule is None:
                raise FailedPrecondition("the leader saves no snapshots by itself: see `snapshots` in its node.yaml")
            return _Listed(self._schedule.label, tuple(await self._schedule.stored()))


def _path(force: bool) -> str:  # noqa: FBT001 - the option of the call
    return FORCE_PATH if force else SNAPSHOT_PATH
