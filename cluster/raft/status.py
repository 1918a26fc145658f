"""What a node says about itself and, when it leads, about its followers."""

from __future__ import annotations

from holdfast.cluster.raft.consensus import ConsensusStatus, Member, PeerProgress
from holdfast.cluster.raft.hardened import HardenedRaft


def status_of(machine: HardenedRaft, now_s: float) -> ConsensusStatus:
    """The state of the consensus module as of now (seconds of the machine's clock)."""
    applied = machine.machine.applied
    comparison = None if machine.leadership is None else machine.leadership.comparison
    return ConsensusStatus(
        node_id=machine.node_id,
        role=machine.role,
        term=machine.term,
        leader_id=machine.leader_id,
        ready=machine.ready,
        last_index=machine.log.last_index,
        commit_index=machine.commit,
        applied_index=applied.index,
        digest=applied.digest.hex(),
        quorum_contact_age_s=machine.quorum_contact_age_s(),
        cluster_time_ms=applied.cluster_time_ms,
        membership_index=machine.log.configurations.index if machine.log.configurations.index > 1 else 0,
        state_digest=machine.machine.state_digest.hex(),
        state_compared_index=machine.compared_index,
        state_scrubbed_index=machine.scrub.scrubbed_index,
        state_differing=() if comparison is None else tuple(comparison.differing(machine.log.configurations.peers)),
        peers=tuple(_peer(machine, member, now_s) for member in machine.log.configurations.current.members),
    )


def _peer(machine: HardenedRaft, member: Member, now_s: float) -> PeerProgress:
    own = member.node_id == machine.node_id
    progress = None if machine.leadership is None else machine.leadership.progress.get(member.node_id)
    if own:
        match, contact_s, eligible = machine.log.synced, now_s, machine.eligible
    elif progress is not None:
        match, contact_s, eligible = progress.match, progress.contact_s, progress.eligible
    else:
        heard_s = machine.leader_heard_s if member.node_id == machine.leader_id else machine.started_s
        match, contact_s, eligible = 0, max(heard_s, machine.started_s), False
    return PeerProgress(
        member=member,
        leader=member.node_id == machine.leader_id,
        match_index=match,
        connected=own or machine.is_connected(member.node_id),
        last_contact_ms=max(0, int((now_s - contact_s) * 1000)),
        eligible=eligible,
    )
