"""The quorum watch against the whole history of contact: never too late, never without cause, at any cadence."""

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.cluster.seal.quorum_watch import QuorumWatch, Verdict

GRACE_S = 10.0
START_S = 1000.0

steps = st.lists(
    st.tuples(
        st.floats(0.001, 25.0),  # time to the next observation
        st.floats(0.0, 1.0),  # where in that time the last contact is
        st.booleans(),  # whether there is any
        st.sampled_from(["look", "look", "look", "open"]),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(steps=steps)
def test_the_verdict_is_what_the_history_of_contact_says(steps: list[tuple[float, float, bool, str]]) -> None:
    watch = QuorumWatch(grace_s=GRACE_S, start_s=START_S)
    now, contact, believed = START_S, START_S, False
    for elapsed, share, has_contact, action in steps:
        before, now = now, now + elapsed
        if has_contact:
            contact = max(contact, before + share * elapsed)
        fresh = now - (now - contact) > START_S and (now - contact) <= GRACE_S
        slept = now - before > GRACE_S
        if action == "open":
            watch.opened(now, now - contact)
            believed = fresh and not slept
            continue
        verdict = watch.observe(now, now - contact)
        if not believed:
            assert verdict is Verdict.HOLD, "what was never seen cannot be lost"
        elif slept:
            assert verdict is Verdict.SLEPT
        else:
            assert verdict is (Verdict.HOLD if fresh else Verdict.LOST)
        believed = fresh and not slept


@settings(max_examples=200, deadline=None)
@given(gaps=st.lists(st.floats(0.001, 0.99 * GRACE_S), min_size=1, max_size=80), ages=st.data())
def test_a_node_in_contact_is_never_sealed(gaps: list[float], ages: st.DataObject) -> None:
    watch, now = QuorumWatch(grace_s=GRACE_S, start_s=START_S), START_S + 2 * GRACE_S
    for gap in gaps:
        now += gap
        assert watch.observe(now, ages.draw(st.floats(0.0, GRACE_S))) is Verdict.HOLD


@settings(max_examples=200, deadline=None)
@given(gaps=st.lists(st.floats(0.01, 25.0), min_size=1, max_size=80))
def test_a_node_that_never_had_a_quorum_is_never_sealed(gaps: list[float]) -> None:
    watch, now = QuorumWatch(grace_s=GRACE_S, start_s=START_S), START_S
    for gap in gaps:
        now += gap
        assert watch.observe(now, now - START_S) is Verdict.HOLD
    assert not watch.armed


@settings(max_examples=200, deadline=None)
@given(lead=st.floats(0.1, 500.0), gaps=st.lists(st.floats(0.001, 3.0), min_size=1, max_size=80))
def test_lost_contact_seals_at_the_first_look_after_the_grace_and_once(lead: float, gaps: list[float]) -> None:
    watch, contact = QuorumWatch(grace_s=GRACE_S, start_s=START_S), START_S + lead
    watch.observe(contact, 0.0)
    now, sealed = contact, False
    for gap in gaps:
        now += gap
        verdict = watch.observe(now, now - contact)
        due = now - contact > GRACE_S and not sealed
        assert verdict is (Verdict.LOST if due else Verdict.HOLD)
        sealed = sealed or due


@settings(max_examples=200, deadline=None)
@given(slept=st.floats(GRACE_S + 0.001, 1e6), claimed=st.floats(0.0, 1.0))
def test_no_message_read_after_a_long_sleep_excuses_it(slept: float, claimed: float) -> None:
    watch = QuorumWatch(grace_s=GRACE_S, start_s=START_S)
    watch.observe(START_S + 1, 0.0)
    assert watch.observe(START_S + 1 + slept, claimed) is Verdict.SLEPT
