"""The plug-in contract: all that an engine or auth method knows of Holdfast."""

from holdfast.core.plugin.contract import (
    Engine,
    Handler,
    HandlerContext,
    OperationSpec,
    PathSpec,
    StorageView,
)
from holdfast.core.request import Operation, Response

__all__ = [
    "Engine",
    "Handler",
    "HandlerContext",
    "Operation",
    "OperationSpec",
    "PathSpec",
    "Response",
    "StorageView",
]
