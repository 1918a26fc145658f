"""What a script can ask about a node, by name."""

from __future__ import annotations

from support.golden import trace
from support.golden.promises import durable
from support.golden.stage import Stage

from holdfast.cluster.raft.hardened import HardenedRaft


def summary(machine: HardenedRaft) -> str:
    """A node on one line."""
    log = machine.log
    return (
        f"{Stage.state_of(machine)}; log {log.base.index + 1} to {trace.place(log.last)}, durable to {log.synced}, "
        f"commit {machine.commit}, applied {machine.applied}"
    )


def terms(machine: HardenedRaft) -> str:
    """The terms of the entries in a node's log."""
    log = machine.log
    return ",".join(str(log.entry(index).term) for index in range(log.base.index + 1, log.last_index + 1))


def record(machine: HardenedRaft, key: str) -> str:
    """What a node's own state holds under a key."""
    found = machine.machine.get(key.encode())
    return "nothing" if found is None else found.value.decode()


def fact(stage: Stage, node_id: str, key: str) -> str:
    """A fact about a node. `running` and the facts of its disk hold for a node that is down, too."""
    if key == "running":
        return "yes" if node_id in stage.actors else "no"
    if key.startswith("disk-"):
        return _fact_of_disk(stage, node_id, key)
    machine = stage.actors[node_id].machine
    if key.startswith("match-"):
        assert machine.leadership is not None, f"{node_id} does not lead"
        return str(machine.leadership.progress[key.removeprefix("match-")].match)
    return {
        "role": machine.role.value,
        "term": str(machine.term),
        "vote": machine.voted_for or "none",
        "leader": machine.leader_id or "none",
        "last": str(machine.log.last_index),
        "base": str(machine.log.base.index),
        "commit": str(machine.commit),
        "applied": str(machine.applied),
        "durable": str(machine.log.synced),
        "terms": terms(machine),
        "members": trace.members(machine.log.configurations.current).replace(" ", ","),
        "ready": "yes" if machine.ready else "no",
        "installs": str(stage.homes[node_id].installs),
        "contact-ms": str(round(machine.quorum_contact_age_s() * 1000)),
    }[key]


def _fact_of_disk(stage: Stage, node_id: str, key: str) -> str:
    disk = durable(stage.disks[node_id])
    return {
        "disk-last": str(disk.last_index),
        "disk-term": str(disk.getCurrentTerm()),
        "disk-vote": disk.getVotedForNodeId() or "none",
    }[key]
