"""What a check is given and what it gives."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from holdfast.server.config import NodeConfig
from holdfast.server.diagnose.asking import Answer, ask
from holdfast.server.diagnose.locks import held_by_a_process


class Result(enum.StrEnum):
    """fail: the node cannot start or cannot serve. warn: it can, and somebody should look."""

    PASS = "pass"  # noqa: S105 - not a password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """check: "group.name". detail: what was seen. remedy: what to do about it; empty for a pass."""

    check: str
    result: Result
    detail: str
    remedy: str = ""


def passed(check: str, detail: str) -> Finding:
    """All is well."""
    return Finding(check, Result.PASS, detail)


def warned(check: str, detail: str, remedy: str) -> Finding:
    """It works, and should not stay so."""
    return Finding(check, Result.WARN, detail, remedy)


def failed(check: str, detail: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check, Result.FAIL, detail, remedy)


@dataclass(frozen=True)
class Peer:
    """Another member, as this node's configuration names it."""

    node_id: str
    cluster_address: str
    api_address: str


class Context:
    """Read by every check. now_s: Unix time in seconds. timeout_s: for one connection or one question."""

    def __init__(self, config: NodeConfig, *, now_s: Callable[[], float], timeout_s: float = 3.0) -> None:
        self.config = config
        self.now_s = now_s
        self.timeout_s = timeout_s

    @property
    def data_dir(self) -> Path:
        """The node's data folder."""
        return Path(self.config.data_dir)

    @property
    def peers(self) -> list[Peer]:
        """The other members that the configuration names; a node that joined later has none."""
        return [
            Peer(member.node_id, member.cluster_address, member.api_address)
            for member in self.config.cluster.initial_members
            if member.node_id != self.config.node_id
        ]

    @cached_property
    def running(self) -> bool:
        """Whether a node holds the data folder. An unreadable lock counts as not held."""
        return held_by_a_process(self.data_dir / "lock") is True

    @cached_property
    def own_answer(self) -> Answer:
        """What this node says of itself, when it runs."""
        return self._ask(self.config.api.advertise)

    @cached_property
    def answers(self) -> dict[str, Answer]:
        """What each peer says of itself, by node id."""
        return {peer.node_id: self._ask(peer.api_address) for peer in self.peers}

    def _ask(self, address: str) -> Answer:
        return ask(address, ca_file=Path(self.config.api.tls.ca_file), now_s=self.now_s, timeout_s=self.timeout_s)


Check = Callable[[Context], Iterator[Finding]]
"""Yields a finding for each thing it looks at."""
