"""The limits of the peer network, in one place. Every queue, wait and count between nodes has one (law 6)."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class PeerLimits:
    """Seconds end in `_s`, bytes in `_bytes`, the rest are counts. The defaults suit nodes within one region.

    connect_timeout_s: for a dial as a whole: name look-up, TCP, TLS, and the peer's welcome.
    handshake_timeout_s: for an incoming connection to become an authenticated session.
    backoff_min_s, backoff_max_s: between dials of one peer; doubles, with jitter over its upper half.
    call_backoff_max_s: the same for call sessions, whose callers wait for it.
    user_timeout_ms: how long sent bytes may stay unacknowledged before the kernel drops the connection (RFC 5482).
    keepalive_idle_s, keepalive_interval_s, keepalive_probes: find a dead peer behind an idle session.
    handshakes_max: unauthenticated connections at a time; one more evicts the oldest.
    write_buffer_bytes: what may wait on a session; beyond it the session is dropped.
    calls_max, call_bytes_max: calls in flight on one session, and their requests' bytes, at the serving end.
    call_timeout_max_s: the longest time a caller may ask for.
    drain_s: how long `stop` lets calls that are being served finish.
    close_s: how long a session may take to say goodbye before it is cut.
    log_interval_s: at most one line of a kind and cause in this time.
    """

    connect_timeout_s: float = 1.0
    handshake_timeout_s: float = 2.0
    backoff_min_s: float = 0.05
    backoff_max_s: float = 1.0
    call_backoff_max_s: float = 0.25
    user_timeout_ms: int = 2000
    keepalive_idle_s: int = 2
    keepalive_interval_s: int = 1
    keepalive_probes: int = 2
    handshakes_max: int = 128
    write_buffer_bytes: int = 32 * MIB
    calls_max: int = 1024
    call_bytes_max: int = 64 * MIB
    call_timeout_max_s: float = 600.0
    drain_s: float = 1.0
    close_s: float = 1.0
    log_interval_s: float = 10.0
