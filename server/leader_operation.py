"""An operation that only the leader can carry out, asked for on any node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec

from holdfast.cluster.peer.calls import PeerCalls
from holdfast.cluster.raft.consensus import Consensus, Role
from holdfast.core.request import Consistency, Operation, Request
from holdfast.proto.errors import Fatal, InvalidArgument, NoLeader, NotLeader, OutcomeUnknown
from holdfast.server.errors import not_joined
from holdfast.server.forwarding import call_member, serve_member
from holdfast.server.metadata import Call
from holdfast.storage.decoding import MALFORMED

Order = TypeVar("Order", bound=msgspec.Struct)
Result = TypeVar("Result", bound=msgspec.Struct)


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who asks, as it travels to the leader, where it is checked."""

    token: str
    call_id: str
    remote_address: str
    timeout_s: float

    def __repr__(self) -> str:
        return f"Credentials(call_id={self.call_id!r})"

    @classmethod
    def of(cls, call: Call) -> Credentials:
        """The credentials of a call."""
        return cls(token=call.token, call_id=call.id, remote_address=call.remote_address, timeout_s=call.timeout_s)

    def request(
        self,
        operation: Operation,
        path: str,
        *,
        data: dict[str, Any] | None = None,
        forwarded_by: str = "",
        consistency: Consistency = Consistency.LINEARIZABLE,
    ) -> Request:
        """The request that core is to authorize."""
        return Request(
            operation=operation,
            path=path,
            data=data or {},
            token=self.token,
            id=self.call_id,
            remote_address=self.remote_address,
            timeout_s=self.timeout_s,
            forwarded_by=forwarded_by,
            consistency=consistency,
        )


class LeaderOperation(Generic[Order, Result]):
    """Runs `carry_out(order, forwarded_by)` on the leader: here, or on the node that leads.

    name: of the call between nodes. forwarded_by: the id of the node that was asked; empty when this one was.
    """

    def __init__(
        self,
        name: str,
        order_type: type[Order],
        result_type: type[Result],
        carry_out: Callable[[Order, str], Awaitable[Result]],
        *,
        consensus: Consensus,
        calls: PeerCalls,
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        self._name = name
        self._orders = msgspec.msgpack.Decoder(order_type)
        self._results = msgspec.msgpack.Decoder(result_type)
        self._carry_out = carry_out
        self._consensus = consensus
        self._calls = calls
        serve_member(calls, name, self._answer, on_fatal)

    async def __call__(self, order: Order, *, timeout_s: float) -> Result:
        """Have the order carried out. Raises what carrying it out raises; NoLeader when nobody leads."""
        status = self._consensus.status()
        try:
            if status.role is Role.LEADER:
                return await self._carry_out(order, "")
            if not status.leader_id and not status.peers:
                raise not_joined()
            if not status.leader_id:
                raise NoLeader("no leader is known at the moment; try again")
            reply = await call_member(
                self._calls, status.leader_id, self._name, msgspec.msgpack.encode(order), timeout_s=timeout_s
            )
        except NotLeader as error:
            raise NoLeader("leadership is changing hands; try again") from error
        try:
            return self._results.decode(reply)
        except MALFORMED:
            raise OutcomeUnknown("the leader's answer has an unknown form; do the nodes run one version?") from None

    async def _answer(self, caller: str, payload: bytes) -> bytes:
        try:
            order = self._orders.decode(payload)
        except MALFORMED:
            raise InvalidArgument("a forwarded order has an unknown form; do the nodes run one version?") from None
        if self._consensus.status().role is not Role.LEADER:
            raise NotLeader("this node does not lead")
        return msgspec.msgpack.encode(await self._carry_out(order, caller))
