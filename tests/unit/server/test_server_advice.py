"""What a person is told to do, in each state that a node can be in."""

import msgspec
import pytest

from holdfast.cluster.raft.consensus import Role
from holdfast.cluster.seal.state import SealStatus
from holdfast.server.advice import OPERATOR_SEALED, next_step

WELL = SealStatus(
    type="shamir", initialized=True, sealed=False, threshold=3, shares=5, progress=0, nonce="", cluster_name="c",
    cluster_id="i", node_id="node-1", last_seal_reason="", last_seal_time_s=None, role=Role.FOLLOWER,
    leader_id="node-2", quorum_contact_age_s=0.05,
)  # fmt: skip


def told(*, part: str = "follower", on_quorum_return: str = "manual", unhealthy: object = (), **facts: object) -> str:
    status = msgspec.structs.replace(WELL, **facts)
    return next_step(status, part=part, on_quorum_return=on_quorum_return, unhealthy=unhealthy)  # type: ignore[arg-type]


def test_who_serves_is_told_nothing() -> None:
    assert told() == ""
    assert told(part="leader", on_quorum_return="auto") == ""


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"part": "removed", "sealed": True}, "destroy its data folder"),
        ({"part": "joining", "initialized": False, "leader_id": ""}, "operator raft join node-1"),
        ({"leader_id": ""}, "no contact with a majority"),
        ({"quorum_contact_age_s": 30.0, "sealed": True}, "Unseal it after that"),
        ({"initialized": False, "sealed": True}, "operator init"),
        ({"sealed": True}, "3 of 5 shares"),
        ({"sealed": True, "progress": 1, "nonce": "n"}, "2 more shares"),
        ({"sealed": True, "progress": 2, "nonce": "n"}, "1 more share:"),
        ({"sealed": True, "last_seal_reason": OPERATOR_SEALED, "on_quorum_return": "auto"}, "people unseal it"),
        ({"sealed": True, "on_quorum_return": "auto"}, "providers by itself"),
        ({"sealed": True, "on_quorum_return": "peers"}, "member by itself"),
        ({"unhealthy": [("kms", "timeout")]}, "kms (timeout)"),
    ],
)
def test_each_state_has_its_next_step(facts: dict[str, object], words: str) -> None:
    assert words in told(**facts)  # type: ignore[arg-type]


def test_the_most_pressing_thing_comes_first() -> None:
    assert "majority" in told(leader_id="", sealed=True, unhealthy=[("kms", "timeout")])
    assert "unseal" in told(sealed=True, unhealthy=[("kms", "timeout")])
