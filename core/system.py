"""The engines that the core brings itself: `sys/` and `auth/token/`, under the same contract as every other engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holdfast.core import tokens
from holdfast.core.mounting import MountsEngine
from holdfast.core.mounts import CORE_PREFIX
from holdfast.core.plugin import Engine
from holdfast.core.router import SystemMount
from holdfast.core.tokens.engine import TokenEngine


def system_mounts(engines: Mapping[str, Engine]) -> Sequence[SystemMount]:
    """What is always mounted. engines: what can be enabled, by type."""
    return [
        SystemMount("sys/", MountsEngine(engines), CORE_PREFIX),
        SystemMount("auth/token/", TokenEngine(), tokens.TOKENS_PREFIX),
    ]
