"""What decoding stored or received bytes can raise."""

from __future__ import annotations

import msgspec

MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What `msgspec.msgpack.decode` raises for bytes that are none of ours: it lets text that is not UTF-8 and deep nesting
through as the interpreter's own errors."""
