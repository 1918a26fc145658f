"""Whether another process holds a file's lock, without taking it for longer than the look."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def held_by_a_process(path: Path) -> bool | None:
    """Whether the lock is held; None when that cannot be told. A file that is missing is held by nobody."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        # Shared, so that two who look at the same time do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False
