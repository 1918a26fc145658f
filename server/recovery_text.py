"""How a recovery is shown: a table and sentences for people, plain data for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.cluster.raft.recovery import Plan, Standing, Survivor
from holdfast.server.recovery import Recovered

_GAP = "   "


def survivor_data(survivor: Survivor) -> dict[str, Any]:
    """A survivor's facts, without the digests that only the comparison needs."""
    return {
        "node_id": survivor.node_id,
        "cluster_name": survivor.cluster_name,
        "term": survivor.term,
        "last_term": survivor.last.term,
        "last_index": survivor.last.index,
        "last_digest": survivor.last.digest,
        "first_index": survivor.base.index + 1,
        "committed_index": survivor.committed,
        "applied_index": survivor.applied.index,
        "configuration_index": survivor.configuration_index,
        "members": [{"node_id": m.node_id, "voter": m.voter} for m in survivor.members],
        "vouched": survivor.vouched,
        "recoveries": len(survivor.lineage) // 16,
        "restores_to_carry_out": list(survivor.restores),
        "snapshot_files": list(survivor.files),
    }


def plan_data(plan: Plan) -> dict[str, Any]:
    """A plan as data."""
    undecided = plan.undecided
    return {
        "cluster_name": plan.best.cluster_name,
        "recover_from": plan.best.node_id,
        "new_term": plan.term,
        "voters": plan.voters,
        "committed_index": plan.committed,
        "kept_to_index": plan.best.last.index,
        "undecided": None if undecided is None else {"first_index": undecided[0], "last_index": undecided[1]},
        "may_lose_acknowledged": plan.may_lose,
        "lacking_snapshot_files": [{"sha256": sha256, "held_by": list(held)} for sha256, held in plan.lacking],
        "given_up": [{"node_id": m.node_id, "cluster_address": m.cluster_address} for m in plan.lost],
        "survivors": [
            {
                **survivor_data(standing.survivor),
                "role": standing.role,
                "same_up_to_index": standing.shared_to,
                "missing_entries": standing.missing,
                "dropped_entries": standing.dropped,
            }
            for standing in plan.standings
        ],
    }


def recovered_data(done: Recovered) -> dict[str, Any]:
    """What was done, as data."""
    return {**plan_data(done.plan), "data_dir": str(done.data_dir), "configuration_index": done.index}


def survivor_text(survivor: Survivor) -> str:
    """A survivor for people."""
    rows: list[tuple[str, object]] = [
        ("Cluster", survivor.cluster_name),
        ("Node", survivor.node_id),
        ("Log", f"to index {survivor.last.index}, term {survivor.last.term}"),
        ("Committed", f"at least to index {survivor.committed}"),
        ("Members", ", ".join(m.node_id + ("" if m.voter else " (learner)") for m in survivor.members) or "none"),
    ]
    if not survivor.vouched:
        rows.append(("Note", "a new disk that was not brought up to date; it gives no vote"))
    return _columns(rows)


def plan_text(plan: Plan) -> str:
    """A plan for people."""
    voters = sum(standing.role == "voter" for standing in plan.standings)
    best = plan.best
    headings = ("Node", "Role", "Log Ends At", "Term", "Committed", "Missing", "Dropped", "")
    rows = [headings, tuple("-" * len(heading) for heading in headings), *map(_row, plan.standings)]
    facts: list[tuple[str, object]] = [
        ("Recover from", f"{best.node_id}: its log holds the most"),
        ("Given up", ", ".join(member.node_id for member in plan.lost) or "nobody"),
        ("Kept", f"everything up to index {plan.committed}: it is known to be committed"),
    ]
    if plan.undecided is not None:
        first, last = plan.undecided
        facts.append(("Kept too", f"index {first} to {last}: nobody here knows whether these were acknowledged"))
    if any(standing.dropped for standing in plan.standings):
        facts.append(("Dropped", "entries that only other survivors have: those were never acknowledged"))
    for sha256, holders in plan.lacking:
        facts.append(
            (
                "Needed first",
                f"the snapshot file of a restore that {best.node_id} has not carried out, SHA-256 {sha256}; "
                + (f"{', '.join(holders)} has it" if holders else "no survivor has it"),
            )
        )
    facts.append(("Possibly lost", _possibly_lost(plan)))
    return (
        f"Cluster {best.cluster_name}: {voters} of {plan.voters} voters are here, {plan.voters // 2 + 1} are needed."
        f"\n\n{_columns(rows)}\n\n{_columns(facts)}"
    )


def _row(standing: Standing) -> tuple[object, ...]:
    survivor = standing.survivor
    note = "" if survivor.vouched else "a new disk, not brought up to date"
    return (
        survivor.node_id, standing.role, survivor.last.index, survivor.last.term, survivor.committed,
        standing.missing, standing.dropped, note,
    )  # fmt: skip


def _possibly_lost(plan: Plan) -> str:
    if not plan.may_lose:
        return "nothing that was acknowledged, unless members were added or removed since that log's end"
    return (
        f"writes that were acknowledged after index {plan.best.last.index}. A majority of the voters is given up, and "
        "what only they had cannot be told from here"
    )


def question(plan: Plan) -> str:
    """What is said before the confirmation is asked for."""
    return (
        f"{plan.best.node_id} becomes the only member of {plan.best.cluster_name}. This cannot be undone. The members "
        "given up must never run again with their data: destroy their folders, or keep them switched off."
    )


def recovered_text(done: Recovered) -> str:
    """What to do next, in order."""
    best = done.plan.best.node_id
    others = [standing.survivor.node_id for standing in done.plan.standings if standing.survivor is not done.plan.best]
    steps: list[str] = [
        f"Start {best} with its configuration as it is, and unseal it. It leads by itself.",
        *(
            f"On {node}: move the data folder away, set initial_members: [] in node.yaml, start it, and tell {best}: "
            f"holdfast operator raft join {node} CLUSTER_ADDRESS API_ADDRESS"
            for node in others
        ),
        "Add machines in place of those that were given up, the same way. Unseal each once it has caught up.",
        "Destroy the data folders of those that were given up, or keep them switched off.",
    ]
    numbered = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
    return f"{best} is the only member now (index {done.index}, term {done.plan.term}).\n\n{numbered}"


def _columns(rows: Sequence[Sequence[object]]) -> str:
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    return "\n".join(
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts
    )
