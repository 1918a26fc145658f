"""Mistakes in the quorum watch: a node that holds its keys without a quorum."""

from mutants.mutant import Mutant

_PROPERTIES = "tests/property/seal/test_seal_quorum_watch_properties.py::test_"
_GUARD = "tests/unit/seal/test_seal_quorum_guard.py::test_"

MUTANTS = (
    Mutant(
        "watch_never_seals",
        "a node that was stolen or cut off keeps its keys for ever",
        "cluster/seal/quorum_watch.py",
        "        if lost:\n",
        "        if lost and gap_s < 0:\n",
        (
            _GUARD + "contact_lost_for_the_grace_seals_with_a_reason_and_is_counted_once",
            _PROPERTIES + "lost_contact_seals_at_the_first_look_after_the_grace_and_once",
        ),
    ),
    Mutant(
        "watch_ignores_a_pause",
        "a node that was suspended serves once more on messages of long ago",
        "cluster/seal/quorum_watch.py",
        "        slept = gap_s > self.grace_s and not alone",
        "        slept = gap_s < 0 and not alone",
        (
            _GUARD + "the_first_request_after_a_long_sleep_finds_no_keys_whatever_the_contact_claims",
            _PROPERTIES + "no_message_read_after_a_long_sleep_excuses_it",
        ),
    ),
    Mutant(
        "watch_believes_what_it_sees_on_waking",
        "the first message after a sleep arms the watch anew as if it were fresh",
        "cluster/seal/quorum_watch.py",
        "        self._armed = fresh and not slept",
        "        self._armed = fresh",
        (_PROPERTIES + "the_verdict_is_what_the_history_of_contact_says",),
    ),
    Mutant(
        "watch_is_never_armed",
        "no contact is ever seen, so none can be lost",
        "cluster/seal/quorum_watch.py",
        "        fresh = contact_age_s <= self.grace_s and now_s - contact_age_s > self._start_s",
        "        fresh = contact_age_s < 0 and now_s - contact_age_s > self._start_s",
        (_GUARD + "contact_lost_for_the_grace_seals_with_a_reason_and_is_counted_once",),
    ),
    Mutant(
        "requests_do_not_ask_the_watch",
        "a request that comes before the timer uses keys that should be gone",
        "cluster/seal/quorum_guard.py",
        "        self.check()\n        return self._seal.barrier",
        "        return self._seal.barrier",
        (_GUARD + "the_first_request_after_a_long_sleep_finds_no_keys_whatever_the_contact_claims",),
    ),
    Mutant(
        "the_timer_does_not_ask_the_watch",
        "a node without requests keeps its keys for ever",
        "cluster/seal/quorum_guard.py",
        "call_later(self._interval_s, self._on_timer)\n        self.check()",
        "call_later(self._interval_s, self._on_timer)",
        (_GUARD + "the_timer_seals_without_any_request",),
    ),
)
