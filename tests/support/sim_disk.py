"""A process's disk in a simulated world: one worker, whose syncs take their time, hang, or fail for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.cluster.raft.outbox import Job, OnJobDone
from holdfast.proto.errors import StorageFailed

if TYPE_CHECKING:
    from support.raft_world import Process, World


class Worker:
    """Jobs run one after another, and end in the order in which they came.

    What a job makes durable, it makes so at some moment between its beginning and its end: what is written after that
    moment is not covered, and a crash may find a job done that nobody was told of.
    """

    def __init__(self, world: World, node_id: str) -> None:
        self._world = world
        self._node_id = node_id
        self._free_s = 0.0
        self.process: Process | None = None
        self.failed = False
        """Whether a sync has failed in this life."""
        self.told = False
        """Whether the machine was told so."""

    def run(self, job: Job, on_done: OnJobDone) -> None:
        """See RunJob."""
        world, process = self._world, self.process
        assert process is not None, "a machine runs no job while it is made"
        begins_s = max(world.now_s, self._free_s)
        takes_s = world.slow_disks.get(self._node_id, world.disk_delay_s) * (0.2 + 1.6 * world.random.random())
        self._free_s = begins_s + takes_s
        error: list[StorageFailed] = []

        def work() -> None:
            if process.alive:
                try:
                    job()
                except StorageFailed as failure:
                    self.failed = True
                    world.trace.count("sync failed", self._node_id)
                    error.append(failure)

        def tell() -> None:
            self.told = self.failed
            on_done(error[0] if error else None)

        def done() -> None:
            world.guard(process, tell)

        world.after(begins_s - world.now_s + takes_s * world.random.random(), work)
        world.after(self._free_s - world.now_s, done)
