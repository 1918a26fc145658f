"""Mistakes in membership: majorities that do not overlap."""

from mutants.mutant import Mutant, raft, safety, scene, unit

_MAJORITY = (
    "            own if node_id == self._self_id else of(self.progress[node_id])\n"
    "            for node_id in self._journal.configurations."
)

MUTANTS = (
    Mutant(
        "removal_that_leaves_the_unreached",
        "the voters left cannot elect a leader: one of them has a new disk, which gives no vote",
        raft("changes"),
        "        _check_left(leadership, self._journal.configurations.voters, configuration.voters)\n",
        "",
        (safety("no_voter_goes_when_the_rest_would_need_one_that_was_not_reached"),),
    ),
    Mutant(
        "two_changes_at_once",
        "two changes that are not committed make majorities that do not overlap",
        raft("changes"),
        "        return leadership.read_ready and self._journal.configurations.index <= leadership.commit",
        "        return leadership.read_ready",
        (
            scene("fault_b6_concurrent_changes"),
            safety("no_membership_change_before_the_terms_no_op_and_only_one_at_a_time"),
        ),
    ),
    Mutant(
        "change_before_the_no_op",
        "a new leader's change and one of an earlier term that is not committed are in force at once",
        raft("changes"),
        "        return leadership.read_ready and self._journal.configurations.index <= leadership.commit",
        "        return self._journal.configurations.index <= leadership.commit",
        (
            scene("paper_6_one_change_at_a_time"),
            safety("the_terms_no_op_guards_membership_even_when_the_change_before_is_committed"),
        ),
    ),
    Mutant(
        "learner_counts",
        "an entry is committed on the word of a member that does not vote",
        raft("leadership"),
        _MAJORITY + "voters",
        _MAJORITY + "peers",
        (scene("paper_6_learner_does_not_count"), scene("paper_6_add_a_server")),
    ),
    Mutant(
        "change_in_effect_only_when_committed",
        "a change is committed by the majority before it, and two leaders see different ones",
        raft("leadership"),
        _MAJORITY + "voters",
        _MAJORITY + "at(self.commit).configuration.voters",
        (scene("paper_6_leader_removes_itself"),),
    ),
    Mutant(
        "removed_leader_counts_itself",
        "a leader that removes itself commits its removal without a majority of those who stay",
        raft("leadership"),
        "        return reached_by_majority(values)",
        "        return reached_by_majority([*values, own])",
        (scene("paper_6_leader_removes_itself"),),
    ),
    Mutant(
        "truncated_change_stays",
        "a change that was never committed stays in force at one node",
        raft("journal"),
        "        self.configurations.truncate(from_index)\n",
        "",
        (
            scene("paper_6_one_change_at_a_time"),
            safety("a_membership_change_that_is_truncated_goes_out_of_effect"),
        ),
    ),
    Mutant(
        "change_forgotten_over_a_restart",
        "a node that restarts counts by a configuration that its log has left behind",
        raft("journal"),
        "        self._hold(entry)\n        self._note_configuration(entry)\n\n    def _hold",
        "        self._hold(entry)\n\n    def _hold",
        (
            scene("paper_6_change_survives_restart"),
            safety("members_of_the_log_not_of_the_configuration_count_after_a_restart"),
        ),
    ),
    Mutant(
        "promotion_during_another_change",
        "a promotion and a change that is not committed make majorities that do not overlap",
        raft("changes"),
        "        if not current.promoting or not self._settled(leadership):",
        "        if not current.promoting:",
        (safety("no_learner_is_promoted_while_another_change_is_not_committed"),),
    ),
    Mutant(
        "learner_promoted_before_it_caught_up",
        "a voter that lacks the log makes the cluster wait, or fail, for it",
        raft("progress"),
        "        if self.match < self.round_end:\n            return False\n",
        "",
        (unit("liveness", "a_learner_whose_rounds_take_long_is_not_promoted_until_one_does_not"),),
    ),
)
