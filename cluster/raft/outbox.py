"""What may leave only when the log is durable, and the one worker that makes it so.

Votes, acknowledgements and vote requests are posted here. `flush` starts a sync when there is something to write and
none is running; what was posted before it leaves after it. Everything posted meanwhile waits for the next one.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.cluster.raft.journal import Journal
from holdfast.cluster.raft.messages import Message

Job = Callable[[], None]
OnJobDone = Callable[[BaseException | None], None]
RunJob = Callable[[Job, OnJobDone], None]
"""Run a blocking job in the worker, one after another, and report on the event-loop thread how it ended."""


class Outbox:
    """Messages in the order in which they were posted.

    deliver: sends a message to a member (or to this node itself). on_synced: called after each sync.
    on_failure: called when a sync failed; nothing of what waited leaves.
    last_sync_s: how long the latest sync took; 0 before the first.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        run_job: RunJob,
        clock: Callable[[], float],
        deliver: Callable[[str, Message], None],
        on_synced: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._journal = journal
        self._run_job = run_job
        self._clock = clock
        self._sync_began_s = 0.0
        self.last_sync_s = 0.0
        self._deliver = deliver
        self._on_synced = on_synced
        self._on_failure = on_failure
        self._waiting: list[tuple[str, Message]] = []
        self._syncing = False
        self._failed = False

    def post(self, node_id: str, message: Message) -> None:
        """Deliver the message once everything the journal holds now is durable."""
        self._waiting.append((node_id, message))

    def busy_s(self, now_s: float) -> float:
        """For how long the sync under way has been so; 0 when there is none."""
        return now_s - self._sync_began_s if self._syncing else 0.0

    def flush(self) -> None:
        """Start a sync if one is due, or release what needs none."""
        if self._syncing or self._failed:
            return
        if not self._journal.dirty:
            self._release(self._take())
            return
        leaving = self._take()
        job = self._journal.begin_sync()
        self._syncing = True
        self._sync_began_s = self._clock()
        self._run_job(job, lambda error: self._synced(leaving, error))

    def _take(self) -> list[tuple[str, Message]]:
        leaving, self._waiting = self._waiting, []
        return leaving

    def _synced(self, leaving: list[tuple[str, Message]], error: BaseException | None) -> None:
        self._syncing = False
        self.last_sync_s = self._clock() - self._sync_began_s
        if error is not None:
            self._failed = True
            self._on_failure(error)
            return
        self._journal.end_sync()
        self._release(leaving)
        self._on_synced()

    def _release(self, leaving: list[tuple[str, Message]]) -> None:
        for node_id, message in leaving:
            # A promise of an earlier term is worth nothing once a later term was adopted.
            if message.term >= self._journal.getCurrentTerm():
                self._deliver(node_id, message)
