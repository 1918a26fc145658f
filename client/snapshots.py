"""Saving and restoring the state of a cluster: the calls of SnapshotService, which stream."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import grpc

from holdfast.client.api import Run
from holdfast.client.calls.call import Call
from holdfast.client.failures import LocalError, RpcFailure
from holdfast.client.retry import Effect
from holdfast.client.session import ClientState
from holdfast.client.snapshot_files import NewFile, SnapshotInfo, inspect, new_file
from holdfast.proto.errors import Unavailable
from holdfast.proto.snapshot_file import check_of
from holdfast.proto.v1 import snapshot_pb2 as pb

_SERVICE = "/holdfast.v1.SnapshotService/"
STREAM_S_MAX = 6 * 3600.0
PART_BYTES = 256 * 1024

Progress = Callable[[int, int], None]
"""Told the bytes so far and about how many there will be."""


@dataclass(frozen=True)
class SavedSnapshot:
    """A snapshot file that was saved and verified. node_id: the node whose state it is."""

    path: Path
    info: SnapshotInfo
    node_id: str


@dataclass(frozen=True)
class RestoredState:
    """What a restore did. index: where it stands in the log. keys_replaced: every node is sealed, and opens with the
    shares that belong to the snapshot. prepared: the nodes that had the snapshot when it took effect; the unprepared
    ones fetch it by themselves."""

    index: int
    snapshot_index: int
    keys_replaced: bool
    prepared: tuple[str, ...]
    unprepared: tuple[str, ...]


@dataclass(frozen=True)
class StoredSnapshot:
    """A snapshot that the schedule has stored."""

    name: str
    size: int
    created: datetime
    index: int


@dataclass(frozen=True)
class StoredSnapshots:
    """What a schedule has stored, and where: a folder of the leader, or s3://bucket/prefix."""

    target: str
    snapshots: tuple[StoredSnapshot, ...]


def _no_progress(_done: int, _expected: int) -> None:
    pass


class Snapshots:
    """The state of the cluster as a file, and back. Every call needs a token with `sudo` on its path.

    run: makes a call that does not stream. channel: the connection to an address. clock: monotonic seconds. sleep:
    waits that many seconds.
    """

    def __init__(
        self,
        run: Run,
        state: ClientState,
        channel: Callable[[str], grpc.Channel],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._run = run
        self._state = state
        self._channel = channel
        self._clock = clock
        self._sleep = sleep

    def save(self, path: str | Path, *, replace: bool = False, progress: Progress = _no_progress) -> SavedSnapshot:
        """Save the state of the cluster, as of now or later, to a new file. Nothing is left behind when that fails.

        The node verifies what it sends; what arrived is read back from the disk and verified before the file gets its
        name. replace: also when the name is taken. Raises LocalError, and what every call raises.

            client.snapshots.save("holdfast.hfsnap").info.metadata.index
        """
        path = Path(path)
        request = pb.SaveSnapshotRequest()
        call = Call(_SERVICE + "SaveSnapshot", request, pb.SaveSnapshotResponse, _as_it_is, Effect.READ)
        with new_file(path, replace=replace) as new:

            def attempt(address: str, metadata: tuple[tuple[str, str], ...]) -> pb.SavedSnapshot:
                stream = self._channel(address).unary_stream(
                    call.method,
                    request_serializer=pb.SaveSnapshotRequest.SerializeToString,
                    response_deserializer=pb.SaveSnapshotResponse.FromString,
                )(request, timeout=STREAM_S_MAX, metadata=metadata)
                new.begin_again()
                try:
                    return _receive(stream, new, progress)
                finally:
                    stream.cancel()

            saved = self._attempts(call, attempt)
            new.sync()
            info = inspect(new.temporary)
            if (info.size, info.sha256) != (saved.size, saved.sha256.hex()):
                raise LocalError(
                    f"{path}: what the disk gives back is not what the node sent. Check the disk.", field="file"
                )
            new.keep()
        return SavedSnapshot(path, info, saved.node_id)

    def restore(self, path: str | Path, *, force: bool = False, progress: Progress = _no_progress) -> RestoredState:
        """Replace the state of the whole cluster by that of a file: everything that was written since is gone, on every
        node. The file is checked first, here and by the node.

        force: also when the file's keys are not the cluster's; all nodes are sealed then. Raises LocalError for a file
        that is damaged, FailedPrecondition when the keys do not fit, OutcomeUnknown, and what every call raises.

            client.snapshots.restore("holdfast.hfsnap")
        """
        inspect(Path(path))
        return self._send_file(Path(path), force=force, progress=progress)

    def list(self) -> StoredSnapshots:
        """The snapshots that the leader's schedule has stored, the newest first.

        newest = client.snapshots.list().snapshots[0]
        """
        return self._run(
            Call(_SERVICE + "ListSnapshots", pb.ListSnapshotsRequest(), pb.ListSnapshotsResponse, _stored, Effect.READ)
        )

    def _send_file(self, path: Path, *, force: bool, progress: Progress) -> RestoredState:
        options = pb.RestoreSnapshotRequest(options=pb.RestoreOptions(force=force))
        call = Call(_SERVICE + "RestoreSnapshot", options, pb.RestoreSnapshotResponse, _as_it_is, Effect.ONCE)

        def attempt(address: str, metadata: tuple[tuple[str, str], ...]) -> pb.RestoreSnapshotResponse:
            send = self._channel(address).stream_unary(
                call.method,
                request_serializer=pb.RestoreSnapshotRequest.SerializeToString,
                response_deserializer=pb.RestoreSnapshotResponse.FromString,
            )
            with path.open("rb") as file:
                return send(_messages(options, file, progress), timeout=STREAM_S_MAX, metadata=metadata)

        done = self._attempts(call, attempt)
        return RestoredState(
            done.index, done.snapshot_index, done.keys_replaced, tuple(done.prepared), tuple(done.unprepared)
        )

    def _attempts(self, call: Call[Any], attempt: Callable[[str, tuple[tuple[str, str], ...]], Any]) -> Any:
        session = self._state.begin(call, self._clock())
        while True:
            chosen = session.attempt(self._clock())
            try:
                result = attempt(chosen.address, chosen.metadata)
            except grpc.RpcError as problem:
                failure = cast("RpcFailure", problem)
            else:
                session.succeeded()
                return result
            self._sleep(session.failed(self._clock(), failure))


def _as_it_is(response: Any) -> Any:
    return response


def _stored(response: pb.ListSnapshotsResponse) -> StoredSnapshots:
    found = (
        StoredSnapshot(one.name, one.size, datetime.fromtimestamp(one.created, UTC), one.index)
        for one in response.snapshots
    )
    return StoredSnapshots(response.target, tuple(found))


def _receive(stream: Iterator[pb.SaveSnapshotResponse], new: NewFile, progress: Progress) -> pb.SavedSnapshot:
    offset, expected, digest = 0, 0, hashlib.sha256()
    for message in stream:
        expected = message.expected_bytes or expected
        if message.offset != offset or (message.data and message.check != check_of(offset, message.data)):
            raise Unavailable("a part of the snapshot was damaged on its way; try again")
        if message.HasField("saved"):
            if (message.saved.size, message.saved.sha256) != (offset, digest.digest()):
                raise Unavailable("the snapshot is not what the node has sent; try again")
            return message.saved
        new.file.write(message.data)
        digest.update(message.data)
        offset += len(message.data)
        progress(offset, max(expected, offset))
    raise Unavailable("the snapshot ended before the node had verified it; try again")


def _messages(
    options: pb.RestoreSnapshotRequest, file: BinaryIO, progress: Progress
) -> Iterator[pb.RestoreSnapshotRequest]:
    size = os.fstat(file.fileno()).st_size
    yield options
    offset = 0
    while data := file.read(PART_BYTES):
        part = pb.RestorePart(offset=offset, data=data, check=check_of(offset, data))
        yield pb.RestoreSnapshotRequest(data=part)
        offset += len(data)
        progress(offset, size)
