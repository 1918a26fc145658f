"""What the person in front of a node's status does next: facts in, a sentence out. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.cluster.seal.state import SealStatus

OPERATOR_SEALED = "an operator sealed it"
"""The reason that `holdfast operator seal` leaves."""

CONTACT_LOST_S = 1.0
"""A node in contact with a quorum hears of it many times a second."""


def next_step(
    status: SealStatus, *, part: str, on_quorum_return: str, unhealthy: Sequence[tuple[str, str]] = ()
) -> str:
    """What to do, the most pressing thing first; empty when there is nothing to do.

    part: the role, or "joining" or "removed". on_quorum_return: the node's setting. unhealthy: unseal providers that
    did not work when they were last tried, with what was wrong."""
    if part == "removed":
        return (
            "This node was removed from the cluster. Stop it and destroy its data folder; the machine can join again"
            " under a node id that was never used."
        )
    if part == "joining":
        return (
            "No cluster has let this node in yet. At a member: `holdfast operator raft join"
            f" {status.node_id} CLUSTER_ADDRESS API_ADDRESS`."
        )
    if not status.leader_id or status.quorum_contact_age_s > CONTACT_LOST_S:
        return (
            "This node has no contact with a majority. Start the nodes that are down, sealed or not, and see what keeps"
            " them apart: `holdfast operator diagnose`." + (" Unseal it after that." if status.sealed else "")
        )
    if not status.initialized:
        return "Make the cluster's keys, once: `holdfast operator init`."
    if status.sealed:
        return _unseal(status, on_quorum_return)
    if unhealthy:
        names = ", ".join(f"{name} ({health})" for name, health in unhealthy)
        return (
            f"Unseal providers that would not open this node now: {names}. See `holdfast operator seal-provider list`"
            " before they are needed; shares unseal in any case."
        )
    return ""


def _unseal(status: SealStatus, on_quorum_return: str) -> str:
    left = status.threshold - status.progress
    shares = (
        f"{left} more {'shares' if left > 1 else 'share'}" if status.progress else f"{left} of {status.shares} shares"
    )
    by_hand = f"`holdfast operator unseal`, {shares}; with -cluster once for all nodes"
    if status.progress:
        return f"An unsealing is under way. Give it {shares}: `holdfast operator unseal`."
    if status.last_seal_reason == OPERATOR_SEALED:
        return f"An operator sealed this node, and people unseal it: {by_hand}."
    if on_quorum_return == "auto":
        return f"The node tries its unseal providers by itself. If it stays sealed: {by_hand}."
    if on_quorum_return == "peers":
        return f"The node asks an unsealed member by itself. If it stays sealed: {by_hand}."
    return f"Unseal it: {by_hand}."
