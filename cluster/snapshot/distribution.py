"""Getting a snapshot file, and the store that is made of it, to every node, before and after a restore is in the log.

A node fetches a file from whoever has it, verifies it, keeps it durably (`spool.py`), and prepares its content beside
the state (`StateHome.stage`). That happens when the leader asks for it (`prepare`), or when the node comes to a restore
in its log without the content, as one does that was away meanwhile or was started again; it then goes on until it has
it.

A file stays until no member's log can bring a node to its restore any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import msgspec
import structlog

from holdfast.cluster.peer.calls import Handler, PeerCalls
from holdfast.cluster.raft.consensus import ConsensusStatus
from holdfast.cluster.raft.restoring import fill
from holdfast.cluster.snapshot.saving import Pacer
from holdfast.cluster.snapshot.spool import Spool
from holdfast.proto.errors import Fatal, HoldfastError, InvalidArgument, NotFound, StorageFailed, Unavailable
from holdfast.proto.snapshot_file import SnapshotDamaged, SnapshotReader
from holdfast.storage.decoding import MALFORMED
from holdfast.storage.home import Reception

FETCH_CALL = "snapshot.fetch"
"""A part of a file. Fetch -> the bytes, fewer than asked for at the end."""
PREPARE_CALL = "snapshot.prepare"
"""Fetch a file and prepare its content. Prepare -> empty."""
NEEDED_CALL = "snapshot.needed"
"""Whether the callee's log may still bring a node to a restore of a file. Its SHA-256 -> one byte."""

PART_BYTES = 512 * 1024
CALL_TIMEOUT_S = 30.0
PREPARE_TIMEOUT_S = 590.0
"""How long a member may take to fetch and prepare; calls between nodes may not take longer."""
PAUSE_S = 1.0
BYTES_PER_S = 32 * 1024 * 1024
SWEEP_S = 600.0
AGE_S_MIN = 3600.0
"""Files that are younger may be on their way into the log."""

_log = structlog.stdlib.get_logger(__name__)
T = TypeVar("T")


class Fetch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a file."""

    sha256: bytes
    offset: int


class Prepare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file, and who has it."""

    sha256: bytes
    holder: str


class Contents(Protocol):
    """The consensus module, as far as prepared content goes (`RaftNode`)."""

    on_content_wanted: Callable[[bytes], None]

    def status(self) -> ConsensusStatus: ...
    def stage_content(self) -> Reception: ...
    def prepare_content(self, sha256: bytes, content: Reception) -> None: ...
    def content_prepared(self, sha256: bytes) -> bool: ...
    def give_up_content(self, sha256: bytes) -> Reception | None: ...
    def content_wanted(self) -> bytes: ...
    def content_in_log(self, sha256: bytes) -> bool: ...


class Distribution:
    """One node's part. wall_clock: Unix time in seconds. monotonic: seconds. on_fatal: must end the process."""

    def __init__(
        self,
        raft: Contents,
        calls: PeerCalls,
        spool: Spool,
        *,
        node_id: str,
        wall_clock: Callable[[], float],
        monotonic: Callable[[], float],
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        self._raft = raft
        self._calls = calls
        self.spool = spool
        self._node_id = node_id
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._on_fatal = on_fatal
        self._preparing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="restore")
        calls.serve(FETCH_CALL, self._ending_on_fatal(self._fetched))
        calls.serve(PREPARE_CALL, self._ending_on_fatal(self._asked_to_prepare))
        calls.serve(NEEDED_CALL, self._ending_on_fatal(self._asked_whether_needed))
        raft.on_content_wanted = lambda sha256: self._spawn(self._provide(sha256))

    def start(self) -> None:
        """Remove what is not needed any more, from now on."""
        self._spawn(self._sweep())

    async def stop(self) -> None:
        """End what is under way. May be called again, and without `start`."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        self._worker.shutdown(wait=False)

    async def work(self, job: Callable[[], T]) -> T:
        """Run a blocking job on the files in the one worker for them."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, job)

    def others(self) -> list[str]:
        """The other members that this node has a session with, or may have."""
        return [p.member.node_id for p in self._raft.status().peers if p.member.node_id != self._node_id]

    # Having a file and its content

    async def prepare(self, sha256: bytes, holders: Sequence[str]) -> None:
        """Have the content of a file ready beside the state. Raises NotFound when no holder has the file,
        SnapshotDamaged, Unavailable."""
        async with self._preparing:
            wanted = self._raft.content_wanted()
            if wanted not in (b"", sha256):
                raise Unavailable("this node is carrying out another restore: try again when it is done")
            # Content that is prepared does not outlive the process: the file must be here too, and count as new.
            await self.fetch(sha256, holders)
            if not self._raft.content_prepared(sha256):
                await self._stage(sha256)

    async def fetch(self, sha256: bytes, holders: Sequence[str]) -> None:
        """Have a file here, durable and verified. Raises as `prepare`."""
        if await self.work(lambda: self.spool.use(sha256)):
            return
        problem: HoldfastError = NotFound("no member has the snapshot file that is to be restored")
        for holder in holders:
            try:
                await self._fetch_from(holder, sha256)
            except Fatal:
                raise
            except HoldfastError as error:
                problem = error
            else:
                return
        raise problem

    async def _fetch_from(self, holder: str, sha256: bytes) -> None:
        incoming = await self.work(self.spool.begin)
        try:
            while True:
                request = msgspec.msgpack.encode(Fetch(sha256, incoming.size))
                try:
                    part = await self._calls.call(holder, FETCH_CALL, request, timeout_s=CALL_TIMEOUT_S)
                except Fatal as error:
                    raise Unavailable("the member that has the snapshot file stops: try again") from error
                await self.work(lambda part=part: self.spool.check_room(2 * len(part)))  # type: ignore[misc]
                await self.work(lambda part=part: incoming.write(part))  # type: ignore[misc]
                if len(part) < PART_BYTES:
                    break
            await self.work(lambda: incoming.keep(sha256))
        finally:
            await self.work(incoming.drop)
        _log.info("snapshot_file_fetched", holder=holder, size_bytes=incoming.size)

    async def _stage(self, sha256: bytes) -> None:
        """In slices, so that requests hardly feel it: see `saving.py`."""
        await self.work(lambda: self.spool.check_room_for(sha256))
        content = self._raft.stage_content()
        try:
            reader = await self._fill_or_discard(content, sha256)
        except SnapshotDamaged:  # since it was verified: another member's may be whole
            await self.work(lambda: self.spool.remove(sha256))
            raise
        except StorageFailed as error:  # of the store that is being made, not of the state
            raise Unavailable(f"the snapshot could not be unpacked here: {error.message}") from error
        except OSError as error:
            raise Unavailable(f"the snapshot file cannot be read here ({error.strerror or error})") from error
        self._raft.prepare_content(sha256, content)
        _log.info("snapshot_content_prepared", records=sum(reader.metadata.records.values()))

    async def _fill_or_discard(self, content: Reception, sha256: bytes) -> SnapshotReader:
        try:
            return await self._fill(content, sha256)
        except (HoldfastError, OSError):
            await self.work(content.discard)  # it may be what fills the disk
            raise

    async def _fill(self, content: Reception, sha256: bytes) -> SnapshotReader:
        store = await self.work(content.open)
        file = await self.work(lambda: self.spool.path(sha256).open("rb"))
        try:
            reader = await self.work(lambda: SnapshotReader(file))
            slices = iter(fill(store, reader.records()))
            pacer = Pacer(BYTES_PER_S, self._monotonic)
            while (size := await self.work(lambda: next(slices, None))) is not None:
                await pacer.took(size)
        finally:
            await self.work(file.close)
            await self.work(store.close)
        # Opening a store writes its log out as tables: done here, it is quick when the content takes the state's place.
        await self.work(lambda: content.open().close())
        return reader

    async def _provide(self, sha256: bytes) -> None:
        """Go on until the content is here that this node's log asks for."""
        while self._raft.content_wanted() == sha256 and not self._raft.content_prepared(sha256):
            try:
                await self.prepare(sha256, self.others())
            except Fatal:
                raise
            except HoldfastError as error:
                _log.warning("restore_waits_for_its_snapshot", reason=error.reason, message=error.message)
                await asyncio.sleep(PAUSE_S)

    # For other members

    async def _fetched(self, caller: str, payload: bytes) -> bytes:
        del caller
        request = _decode(payload, Fetch)

        def read() -> bytes:
            try:
                with self.spool.path(request.sha256).open("rb") as file:
                    file.seek(request.offset)
                    return file.read(PART_BYTES)
            except FileNotFoundError:
                raise NotFound("this member does not have the snapshot file") from None

        return await self.work(read)

    async def _asked_to_prepare(self, caller: str, payload: bytes) -> bytes:
        request = _decode(payload, Prepare)
        await self.prepare(request.sha256, [request.holder, caller])
        return b""

    async def prepare_on(self, member: str, sha256: bytes, holder: str) -> None:
        """Have another member prepare. Raises what it raises."""
        request = msgspec.msgpack.encode(Prepare(sha256, holder))
        await self._calls.call(member, PREPARE_CALL, request, timeout_s=PREPARE_TIMEOUT_S)

    async def _asked_whether_needed(self, caller: str, payload: bytes) -> bytes:
        del caller
        return bytes([self._raft.content_in_log(payload)])

    # Tidying

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.sweep()
            except OSError as error:
                _log.warning("snapshot_files_not_removed", problem=error.strerror)

    async def sweep(self, *, age_s_min: float = AGE_S_MIN) -> None:
        """Remove the files that nobody needs. A member that does not answer may need any."""
        for sha256, came in (await self.work(self.spool.held)).items():
            young = self._wall_clock() - came < age_s_min
            if young or self._raft.content_in_log(sha256) or await self._needed_elsewhere(sha256):
                continue
            await self._remove(sha256, came)

    async def _remove(self, sha256: bytes, came: float) -> None:
        """Remove a file, and what a restore that came to nothing has made of it; unless it was used meanwhile."""
        async with self._preparing:
            if await self.work(lambda: self.spool.remove_unused(sha256, came)):
                _log.info("snapshot_file_removed", sha256=sha256.hex())
                content = self._raft.give_up_content(sha256)
                if content is not None:
                    await self.work(content.discard)

    async def _needed_elsewhere(self, sha256: bytes) -> bool:
        for member in self.others():
            try:
                if await self._calls.call(member, NEEDED_CALL, sha256, timeout_s=CALL_TIMEOUT_S) != b"\0":
                    return True
            except HoldfastError:  # its Fatal is not ours
                return True
        return False

    # What surrounds it

    def _spawn(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            try:
                await work
            except Fatal as error:
                self._on_fatal(error)
            except Unavailable as error:
                _log.info("snapshot_distribution_ended", message=error.message)  # the node stops

        task = asyncio.get_running_loop().create_task(run(), name="snapshot distribution")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ending_on_fatal(self, handle: Callable[[str, bytes], Awaitable[bytes]]) -> Handler:
        async def answer(caller: str, payload: bytes) -> bytes:
            try:
                return await handle(caller, payload)
            except Fatal as error:
                self._on_fatal(error)
                raise

        return answer


S = TypeVar("S", bound=msgspec.Struct)


def _decode(payload: bytes, kind: type[S]) -> S:
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except MALFORMED:
        raise InvalidArgument("a call about a snapshot has an unknown form; do the nodes run one version?") from None
