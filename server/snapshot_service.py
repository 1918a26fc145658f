"""holdfast.v1.SnapshotService: the state of the cluster as a file, and back."""
# ruff: noqa: N802 - method names are the protocol's

from __future__ import annotations

import hashlib
from contextlib import aclosing

from holdfast.cluster.snapshot.saving import SnapshotMaker
from holdfast.core.request import Operation
from holdfast.proto.snapshot_file import SnapshotMetadata, check_of
from holdfast.proto.v1 import snapshot_pb2 as pb
from holdfast.proto.v1.snapshot_pb2_grpc import SnapshotServiceServicer
from holdfast.server.authorization import Authorize, authorized
from holdfast.server.frontend import Context, FrontEnd
from holdfast.server.leader_operation import Credentials
from holdfast.server.metadata import Call

SNAPSHOT_PATH = "sys/storage/raft/snapshot"

STREAM_S_MAX = 6 * 3600.0
"""How long a snapshot may take to be sent or received."""


class SnapshotService(SnapshotServiceServicer):
    """Save is served by the node that is asked, from its own state, once that is known to be current."""

    def __init__(self, front_end: FrontEnd, *, maker: SnapshotMaker, authorize: Authorize) -> None:
        self.front_end = front_end
        self._maker = maker
        self._authorize = authorize

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
