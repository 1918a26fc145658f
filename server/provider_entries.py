"""This node's credentials for the unseal providers, as node.yaml has them at the moment.

A provider is added while the cluster runs, and a node that is unsealed must not be restarted to learn of it. So this
section of node.yaml is read again when the file has changed; everything else holds from the start of the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import structlog

from holdfast.cluster.seal.providers.credentials import Credentials
from holdfast.server.config import ConfigError, load

_log = structlog.stdlib.get_logger(__name__)


class ProviderEntries:
    """entries: as they were at the start. file: the node.yaml that they came from; None when there is none to reread.

    A file that cannot be used any more is told in the log, and the entries stay as they were."""

    def __init__(self, entries: Mapping[str, Credentials], file: Path | None) -> None:
        self._entries = entries
        self._file = file
        self._seen = self._stamp()

    def __call__(self, name: str) -> Credentials | None:
        """The entry of a provider; None when there is none."""
        stamp = self._stamp()
        if self._file is not None and stamp not in (self._seen, None):
            self._seen = stamp
            try:
                self._entries = load(self._file).seal.providers
            except ConfigError as error:
                _log.warning("seal_providers_not_reread", message=str(error))
        return self._entries.get(name)

    def _stamp(self) -> tuple[int, int, int] | None:
        if self._file is None:
            return None
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
