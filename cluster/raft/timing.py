"""The module's times and limits. Nothing in consensus waits or queues without one of these."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Timing:
    """Durations in seconds.

    heartbeat_s: how often a leader shows itself.
    election_min_s, election_max_s: a follower that has heard no leader for a random time in between campaigns; while
        it has heard one within `election_min_s` it grants no vote (stickiness).
    quorum_timeout_s: a leader that has not been in contact with a quorum for this long steps down.
    transfer_timeout_s: how long a leader holds proposals back for a transfer before it gives the transfer up.
    transfer_backoff_s: how long an ineligible leader takes proposals again between two attempts to hand over.
    disk_stall_s: a leader whose sync takes longer steps down: it can acknowledge nothing.
    stop_s: how long a node that stops waits for a sync under way.
    snapshot_bytes_per_s: how fast a snapshot is sent at most, so that writes hardly notice it.
    snapshot_retry_s: a snapshot that makes no progress for this long is offered again.
    snapshot_keep_s: how long a snapshot is kept for members that lost their session while it was sent.
    away_s: a member that was not heard for this long does not keep the log from being trimmed.
    state_compare_s: how often the leader has the replicas' states compared.
    scrub_interval_s: how long after reading all of its records a node begins again. scrub_bytes_per_s: how fast.
    server_stabilization_s: how long a learner must have been healthy before it votes, where autopilot's configuration
        does not say.
    tick_s: the timer that drives the machine when nothing else does.
    """

    heartbeat_s: float = 0.04
    election_min_s: float = 0.3
    election_max_s: float = 0.6
    quorum_timeout_s: float = 0.3
    transfer_timeout_s: float = 0.6
    transfer_backoff_s: float = 0.5
    disk_stall_s: float = 2.0
    stop_s: float = 10.0
    snapshot_bytes_per_s: int = 16 * MIB
    snapshot_retry_s: float = 1.0
    snapshot_keep_s: float = 20.0
    away_s: float = 5.0
    state_compare_s: float = 1.0
    scrub_interval_s: float = 86_400.0
    scrub_bytes_per_s: int = 4 * MIB
    server_stabilization_s: float = 0.0
    tick_s: float = 0.01


@dataclass(frozen=True)
class Limits:
    """Counts and bytes.

    queue_*: proposals waiting to be appended; beyond, `Overloaded`.
    group_*: proposals that share one log entry.
    uncommitted_bytes: payload appended and not yet committed; beyond, proposals stay queued.
    reads: read barriers waiting; beyond, `Overloaded`.
    append_bytes: payload of one AppendEntries (one entry may exceed it alone).
    window_*: what is sent to a follower and not yet acknowledged.
    apply_*: entries in one write of the state machine.
    tick_bytes: payload appended in one tick; the rest waits for the next, so that acknowledgements are heard between.
    log_tail, log_tail_bytes: what is kept below what every member has, for members that restart: so many entries, and
        no more than so much payload. (The log is held in memory too.)
    trim_step, trim_step_bytes: a trim waits until it can remove so many entries, or so much payload.
    trim_max: the most entries one trim removes.
    log_lag, log_lag_bytes: a member further behind than this does not keep the log from being trimmed; it is sent a
        snapshot.
    snapshot_chunk_bytes: of one message. snapshot_window_bytes: sent and not yet acknowledged.
    """

    queue_count: int = 8192
    queue_bytes: int = 64 * MIB
    group_count: int = 512
    group_bytes: int = 1 * MIB
    uncommitted_bytes: int = 64 * MIB
    reads: int = 65536
    append_bytes: int = 1 * MIB
    window_bytes: int = 8 * MIB
    window_messages: int = 256
    apply_entries: int = 512
    apply_bytes: int = 4 * MIB
    tick_bytes: int = 4 * MIB
    log_tail: int = 5000
    log_tail_bytes: int = 64 * MIB
    log_lag: int = 100_000
    log_lag_bytes: int = 256 * MIB
    snapshot_chunk_bytes: int = 256 * KIB
    snapshot_window_bytes: int = 2 * MIB
    trim_step: int = 1000
    trim_step_bytes: int = 16 * MIB
    trim_max: int = 10000
