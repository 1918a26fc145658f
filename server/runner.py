"""How a node's coroutine becomes a process: uvloop, and an end that cannot hang."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from typing import Any

import uvloop

from holdfast.server.exits import EXIT_FATAL


def run_loop(work: Coroutine[Any, Any, int]) -> int:
    """Run `work` on a fresh uvloop and return its exit code.

    After a fatal error the process ends here and now: threads that wait for a failed disk would keep it alive.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(work)
        if code == EXIT_FATAL:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return code
