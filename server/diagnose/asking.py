"""Asks a node what it says of itself: the calls that need no token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from holdfast.proto.v1 import sys_pb2
from holdfast.proto.v1.sys_pb2_grpc import SysServiceStub

_WELL = ("healthy", "unchecked")


@dataclass(frozen=True)
class Answer:
    """problem: why there is none; empty when there is one. clock_ahead_s: how far the node's clock is ahead of this
    host's, and uncertainty_s how much of that the way there and back may account for. providers: those that the node
    does not find healthy, with its reasons."""

    problem: str = ""
    node_id: str = ""
    initialized: bool = False
    sealed: bool = True
    leader_id: str = ""
    clock_ahead_s: float = 0.0
    uncertainty_s: float = 0.0
    providers: tuple[str, ...] = ()


def ask(address: str, *, ca_file: Path, now_s: Callable[[], float], timeout_s: float) -> Answer:
    """Health and SealStatus of the node at host:port."""
    try:
        credentials = grpc.ssl_channel_credentials(ca_file.read_bytes())
    except OSError as error:
        return Answer(problem=f"the CA {ca_file} cannot be read: {error.strerror}")
    with grpc.secure_channel(address, credentials) as channel:
        stub = SysServiceStub(channel)
        try:
            seal = stub.SealStatus(sys_pb2.SealStatusRequest(), timeout=timeout_s, wait_for_ready=True)
            before_s = now_s()
            health = stub.Health(sys_pb2.HealthRequest(), timeout=timeout_s)
            after_s = now_s()
        except grpc.RpcError as error:
            return Answer(problem=_problem(error.code()))
    half_s = (after_s - before_s) / 2
    return Answer(
        node_id=health.node_id,
        initialized=seal.initialized,
        sealed=seal.sealed,
        leader_id=seal.leader_id,
        clock_ahead_s=health.server_time.ToMicroseconds() / 1e6 - before_s - half_s,
        uncertainty_s=half_s,
        providers=tuple(f"{p.name} ({p.health})" for p in seal.seal_providers if p.health not in _WELL),
    )


def _problem(code: grpc.StatusCode) -> str:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "it does not answer, or its certificate does not fit the address"
    return f"it answers {code.name.lower()}"
