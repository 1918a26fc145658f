"""What may enter the log. A batch that a replica could not apply must never get there: it would stop every node."""

from __future__ import annotations

from holdfast.cluster.raft.entries import encode_batch
from holdfast.proto.errors import InvalidArgument
from holdfast.storage.batch import MAX_BATCH_BYTES, Batch
from holdfast.storage.keys import KEY_BYTES_MAX

REQUEST_KEY_BYTES_MAX = 64
"""The longest request key, in bytes; the barrier makes 16."""


def admit(batch: Batch) -> bytes:
    """The encoded batch. Raises InvalidArgument when it is over the limits or names a key twice."""
    written = [*(put.key for put in batch.puts), *batch.deletes]
    if len(set(written)) != len(written):
        raise InvalidArgument("a batch writes a key twice")
    for key in (*written, *(precondition.key for precondition in batch.preconditions)):
        if not 0 < len(key) <= KEY_BYTES_MAX:
            raise InvalidArgument(f"a key of {len(key)} bytes; 1 to {KEY_BYTES_MAX} allowed")
    if batch.request is not None and not 0 < len(batch.request.key) <= REQUEST_KEY_BYTES_MAX:
        raise InvalidArgument(f"a request key of {len(batch.request.key)} bytes; 1 to {REQUEST_KEY_BYTES_MAX} allowed")
    encoded = encode_batch(batch)
    if len(encoded) > MAX_BATCH_BYTES:
        raise InvalidArgument(f"a batch of {len(encoded)} bytes; at most {MAX_BATCH_BYTES} allowed")
    return encoded
