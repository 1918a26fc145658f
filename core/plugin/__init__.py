"""The plug-in contract: all that an engine or auth method knows of Holdfast."""

from holdfast.core.plugin.contract import (
    Caller,
    Engine,
    Handler,
    HandlerContext,
    OperationSpec,
    PathSpec,
    StorageView,
)
from holdfast.core.request import Operation, Response

__all__ = [
    "Caller",
    "Engine",
    "Handler",
    "HandlerContext",
    "Operation",
    "OperationSpec",
    "PathSpec",
    "Response",
    "StorageView",
]
