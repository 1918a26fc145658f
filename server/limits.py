"""The limits of the front ends (law 6), in one place. At a limit the caller gets a clear error, never a stall."""

from __future__ import annotations

import resource

RECEIVED_BYTES_MAX = 2 * 1024 * 1024
"""The largest gRPC message taken in: a secret of 1 MiB and what is around it. It is read before its token is known, so
it is what a stranger can make a node hold, once for each call."""

SENT_BYTES_MAX = 128 * 1024 * 1024
"""The largest gRPC message sent: a batch of 100 secrets of 1 MiB. What clients of this package accept."""

METADATA_BYTES_MAX = 16 * 1024
"""The largest metadata of one call."""

REQUESTS_IN_FLIGHT_MAX = 1024
"""Requests served at the same time; one more is refused with Overloaded."""

STREAMS_MAX = 128
"""Streaming calls (health's Watch, reflection) at the same time; one more is refused with Overloaded."""

RPCS_MAX = REQUESTS_IN_FLIGHT_MAX + STREAMS_MAX + 256
"""Calls gRPC itself lets in. Higher than the cap on requests, so that refusals carry our error, and health probes
still get in when the node is full."""

STREAMS_PER_CONNECTION_MAX = 1024

CONNECTIONS_MAX = 4096
"""Connections to the client port; further ones are closed. At most half of the files that the process may open, since a
store that cannot open its next file ends the node."""

TIMEOUT_S_DEFAULT = 30.0
TIMEOUT_S_MAX = 90.0
TIMEOUT_S_MIN = 0.001

TOKEN_BYTES_MAX = 1024
MOUNT_BYTES_MAX = 128
PAGE_TOKEN_BYTES_MAX = 4096
SHARE_CHARS_MAX = 1024
BATCH_GET_MAX = 100
PAGE_SIZE_MAX = 1000
VERSIONS_PER_CALL_MAX = 1000

JSON_DEPTH_MAX = 100
"""Nesting of JSON data. Parsers recurse, and a stack is finite."""

HTTP_HEAD_BYTES_MAX = 8 * 1024
HTTP_CONNECTIONS_MAX = 64
HTTP_TIMEOUT_S = 10.0

DRAIN_TIMEOUT_S = 5.0
"""How long calls in flight may take to end when the node stops."""

FATAL_DRAIN_TIMEOUT_S = 0.5
"""The same after a fatal error: time for the answers that tell of it to leave."""

TRANSFER_TIMEOUT_S = 3.0
"""How long a stopping leader tries to hand leadership on."""

HEALTH_TIMEOUT_S = 1.0
"""How long a change of health may wait for those who watch it: one that reads nothing holds the others up."""


def grpc_options() -> list[tuple[str, int]]:
    """Options of the gRPC server (grpc_types.h)."""
    files_max, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    half = CONNECTIONS_MAX if files_max == resource.RLIM_INFINITY else files_max // 2
    return [
        ("grpc.max_allowed_incoming_connections", min(CONNECTIONS_MAX, half)),
        ("grpc.max_receive_message_length", RECEIVED_BYTES_MAX),
        ("grpc.max_send_message_length", SENT_BYTES_MAX),
        ("grpc.max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION_MAX),
        # Two nodes must not serve the same port unnoticed.
        ("grpc.so_reuseport", 0),
        # A dead client's connection is found and closed; a live client may ping every 10 s, with or without calls.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 3),
    ]
