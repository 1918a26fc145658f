"""Whatever autopilot sees, it removes nobody whom the cluster needs."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.cluster.raft.autopilot import Autopilot, AutopilotConfig, ServerView, majority

NOW_S = 1000.0
SERVERS = st.builds(
    ServerView,
    voter=st.booleans(),
    connected=st.booleans(),
    contact_s=st.floats(0, NOW_S),
    last_index=st.integers(0, 2000),
    lost=st.booleans(),
)
CONFIGS = st.builds(
    AutopilotConfig,
    cleanup_dead_servers=st.booleans(),
    dead_server_last_contact_threshold_s=st.floats(60, 900),
    min_quorum=st.integers(3, 5),
)


@given(CONFIGS, st.dictionaries(st.sampled_from("bcdefgh"), SERVERS), st.floats(0, NOW_S))
def test_a_member_is_removed_only_when_it_is_dead_and_can_be_spared(
    config: AutopilotConfig, others: dict[str, ServerView], began_s: float
) -> None:
    views = {"a": ServerView(voter=True, connected=True, contact_s=NOW_S, last_index=2000), **others}
    pilot = Autopilot("a", began_s)
    pilot.observe(NOW_S, config, views, 2000)
    dead = pilot.to_remove(NOW_S, config, views)
    if dead is None:
        return
    assert config.cleanup_dead_servers
    assert dead != "a"
    assert NOW_S - max(views[dead].contact_s, began_s) >= config.dead_server_last_contact_threshold_s
    voters = [name for name, view in views.items() if view.voter]
    left = [name for name in voters if name != dead]
    healthy = sum(pilot.healthy(name) for name in left)
    assert healthy >= majority(len(voters))
    assert healthy >= majority(len(left))
    assert not views[dead].voter or len(left) >= config.min_quorum
