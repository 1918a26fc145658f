"""Which recoveries a membership descends from, so that a node that was given up is told apart from a member.

A recovery from a lost quorum (`recovery.py`) makes a new membership out of one survivor, against the rules of Raft: the
nodes that were given up may hold a majority of the old one. A lineage is the ids of the recoveries, one behind the
other. It stands in the configuration, so that the log, its trimming and snapshots carry it like the members. Decisions;
nothing here sends or stores.
"""

from __future__ import annotations

import enum

ID_BYTES = 8
"""The length of a recovery's id: random, so that two recoveries of the same cluster differ."""

RECOVERIES_MAX = 128
"""How many recoveries a lineage can hold."""


class Kinship(enum.Enum):
    """How another node's lineage stands to this node's."""

    SAME = "same"
    BEHIND = "behind"
    """The other one has not seen a recovery that this one descends from: it joins, or it was given up."""
    AHEAD = "ahead"
    """The other one descends from a recovery that this one knows nothing of."""
    FOREIGN = "foreign"
    """Each descends from a recovery of its own: two survivors were made clusters of their own."""


def kinship(own: bytes, other: bytes) -> Kinship:
    """How `other` stands to `own`."""
    if own == other:
        return Kinship.SAME
    if own.startswith(other):
        return Kinship.BEHIND
    return Kinship.AHEAD if other.startswith(own) else Kinship.FOREIGN


class Verdict(enum.Enum):
    """What a node does about a peer that it has dialled."""

    SPEAK = "speak"
    FOUNDED = "founded"
    """Speak, and know that the cluster has a history: this node founds none."""
    REFUSE = "refuse"
    LEFT_BEHIND = "left behind"
    """This node was given up in a recovery: it must stop for good."""


def judge(own: bytes, peer: bytes, *, vouched: bool, has_led_or_heard: bool) -> Verdict:
    """Judge a peer by its lineage (DESIGN.md, "A quorum that is lost for good").

    vouched: of this node's log. A log that is not vouched for gives no vote and is being filled: it is behind for a
    while. has_led_or_heard: since this process began, it has led, or heard another leader than this peer. It then
    belongs to a membership that is alive, and whoever recovered a survivor was mistaken: for people to settle.
    """
    match kinship(own, peer):
        case Kinship.SAME | Kinship.BEHIND:
            return Verdict.SPEAK
        case Kinship.AHEAD if not vouched:
            return Verdict.FOUNDED
        case Kinship.AHEAD if not has_led_or_heard:
            return Verdict.LEFT_BEHIND
        case _:
            return Verdict.REFUSE
