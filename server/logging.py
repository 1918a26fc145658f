"""Logs: one JSON object (or one readable line) per event, to stderr, whatever library wrote it.

Nothing in the house hands a secret to a logger. The processors here are the second line of defence: fields that are
named like secrets are blanked, bytes are never shown, and an exception is logged as its class and its frames, because
the text of a foreign exception may quote what it choked on.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from holdfast.proto.errors import HoldfastError
from holdfast.server.config import LogConfig

REDACTED = "[redacted]"

SENSITIVE_WORDS = frozenset(
    {
        *("token", "tokens", "share", "shares", "secret", "secrets", "password", "passphrase", "credential"),
        *("credentials", "authorization", "cookie", "data", "payload", "plaintext", "value", "values"),
    }
)
SENSITIVE_ENDINGS = ("_key", "_keys", "keyring", "privatekey")

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(config: LogConfig, *, node_id: str, stream: TextIO = sys.stderr) -> None:
    """Route structlog and the standard library's logging to `stream`. Called once, by the process that owns stderr."""
    shared: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _NodeId(node_id),
        describe_exception,
        redact,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(sort_keys=True)
        if config.format == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[config.level])
    # asyncio tells which selector it uses, at debug; grpc tells of every aborted call, which the front end counts.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("grpc").setLevel(logging.ERROR)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blank every field, however deep, that is named like a secret; show no bytes."""
    return {name: _clean(name, value) for name, value in event.items()}


def describe_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace `exc_info` by the exception's class and frames, and by its text only where that is known to be safe."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception"] = _chain(error)
        event["frames"] = _frames(error.__traceback__)
    return event


class _NodeId:
    """Adds the node's id to every event."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["node_id"] = self._node_id
        return event


def is_sensitive(name: str) -> bool:
    """Whether a field of this name is blanked."""
    lowered = name.lower().replace("-", "_")
    return f"_{lowered}".endswith(SENSITIVE_ENDINGS) or not SENSITIVE_WORDS.isdisjoint(lowered.split("_"))


def _clean(name: str, value: Any) -> Any:
    if name.startswith("_"):  # structlog's own
        return value
    if is_sensitive(name):
        return REDACTED
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if isinstance(value, Mapping):
        return {str(key): _clean(str(key), member) for key, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean("", member) for member in value]
    return value


def _chain(error: BaseException) -> list[str]:
    """The exception and its causes, the outermost first."""
    described: list[str] = []
    current: BaseException | None = error
    while current is not None and len(described) < 8:
        kind = type(current).__qualname__
        if isinstance(current, HoldfastError):
            described.append(f"{kind}: {current.message}")
        elif isinstance(current, OSError) and current.strerror:
            described.append(f"{kind}: {current.strerror}")
        else:
            described.append(kind)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return described


def _frames(trace: TracebackType | None) -> list[str]:
    """file:line function, the innermost last; neither source text nor values."""
    return [
        f"{frame.filename.rpartition('/holdfast/')[2]}:{frame.lineno} {frame.name}"
        for frame in traceback.StackSummary.extract(traceback.walk_tb(trace), lookup_lines=False)
    ][-25:]
