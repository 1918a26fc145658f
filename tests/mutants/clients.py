"""Mistakes that clients see: stale reads, writes that take effect twice or over somebody else's."""

from mutants.mutant import Mutant, raft, safety, scene, unit

MUTANTS = (
    Mutant(
        "read_without_a_round",
        "a leader that was deposed and does not know it serves old data",
        raft("leadership"),
        "        self.rounds.echoed(self._majority(self._stamp, lambda progress: progress.stamp))",
        "        self.rounds.echoed(self._stamp)",
        (scene("paper_8_read_at_deposed_leader"), safety("a_read_needs_a_round_that_began_after_it")),
    ),
    Mutant(
        "read_on_a_round_that_began_before",
        "a heartbeat that was on its way when the read was asked answers it",
        raft("leadership"),
        "        self._stamp = max(self._stamp + 1, int(now_s * _STAMPS_PER_S))",
        "        self._stamp = max(self._stamp, int(now_s * _STAMPS_PER_S))",
        (scene("paper_8_read_index"),),
    ),
    Mutant(
        "read_before_the_no_op",
        "a new leader serves a state that lacks what its predecessor acknowledged",
        raft("leadership"),
        "        if self.read_ready:\n            self.rounds.begin",
        "        if self._term:\n            self.rounds.begin",
        (scene("paper_8_noop"), safety("no_read_before_the_terms_no_op_is_committed")),
    ),
    Mutant(
        "read_before_it_is_applied",
        "a follower serves its own state before it has applied as far as the leader said",
        raft("reads"),
        "            if needed > index:\n",
        "            if needed < 0:\n",
        (
            scene("thesis_6_4_follower_read"),
            safety("a_follower_asks_the_leader_and_waits_until_it_has_applied_that_much"),
        ),
    ),
    Mutant(
        "anyone_answers_reads",
        "a node that does not lead any more answers a member's question",
        raft("asking"),
        "            self._send(node_id, ReadIndexReply(self._term(), message.question, None))",
        "            self._send(node_id, ReadIndexReply(self._term(), message.question, 0))",
        (safety("a_node_that_does_not_lead_answers_that_it_cannot_tell"),),
    ),
    Mutant(
        "old_heartbeats_are_contact",
        "a follower that was stopped takes heartbeats of long ago for contact, and its seal holds",
        raft("quorum_contact"),
        "        if self._proved:\n",
        "        if self._timing:\n",
        (
            scene("own_follower_was_stopped"),
            unit("liveness", "heartbeats_that_waited_while_the_process_was_stopped_are_no_contact"),
        ),
    ),
    Mutant(
        "request_record_not_looked_at",
        "a retry after an unknown outcome takes effect a second time",
        raft("statemachine"),
        "            if response is not None:\n                return Duplicate(response)",
        "            if response is None and batch.preconditions is None:\n                return Duplicate(b'')",
        (scene("paper_8_exactly_once"), safety("a_request_takes_effect_once_however_often_it_is_sent")),
    ),
    Mutant(
        "request_record_forgotten_early",
        "a retry some seconds later takes effect a second time",
        raft("statemachine"),
        "    return now_ms - recorded_ms > REQUEST_WINDOW_MS",
        "    return now_ms - recorded_ms > 0",
        (scene("paper_8_exactly_once"), unit("statemachine", "the_window_is_kept_inside_a_chunk_too")),
    ),
    Mutant(
        "cluster_time_stands_still",
        "no request record ever expires, and the state grows for ever",
        raft("leadership"),
        "        return max(self._began_cluster_ms + since_ms, self._journal.last.cluster_time_ms)",
        "        return self._journal.last.cluster_time_ms",
        (safety("cluster_time_is_time_spent_leading_and_goes_on_from_the_log"),),
    ),
    Mutant(
        "cluster_time_of_the_leaders_clock",
        "a new leader's clock makes requests forgotten at once, and a retry takes effect twice",
        raft("leadership"),
        "        since_ms = int((now_s - self.began_s) * 1000)",
        "        since_ms = int(now_s * 1000)",
        (safety("cluster_time_is_time_spent_leading_and_goes_on_from_the_log"), scene("paper_8_exactly_once")),
    ),
    Mutant(
        "conflicted_request_remembered",
        "a write that changed nothing counts as done when it is sent again",
        raft("statemachine"),
        "                return Conflicted(precondition.key)",
        "                if batch.request is not None:\n"
        "                    self.requests[batch.request.key] = (entry.cluster_time_ms, batch.request.response)\n"
        "                return Conflicted(precondition.key)",
        (unit("statemachine", "a_conflicted_request_is_not_remembered"),),
    ),
    Mutant(
        "precondition_not_checked",
        "a write overwrites what somebody else wrote in between",
        raft("statemachine"),
        "            if self._revision(precondition.key) != precondition.revision:",
        "            if self._revision(precondition.key) < 0:",
        (
            scene("paper_8_exactly_once"),
            safety("preconditions_see_what_earlier_batches_of_the_same_entry_and_chunk_did"),
        ),
    ),
    Mutant(
        "precondition_blind_within_a_chunk",
        "whether a precondition holds depends on how entries fall into chunks, and replicas differ",
        raft("statemachine"),
        "        if key in self.records:\n            record",
        "        if key in self.requests:\n            record",
        (
            safety("preconditions_see_what_earlier_batches_of_the_same_entry_and_chunk_did"),
            "tests/property/raft/test_raft_properties.py::test_the_outcomes_do_not_depend_on_chunks_or_crashes",
        ),
    ),
    Mutant(
        "lost_leadership_called_failure",
        "a client is told that nothing happened to a write that may still take effect",
        raft("proposals"),
        "        self.fail(queued=lambda: not_leader(leader_id), appended=outcome_unknown)",
        "        self.fail(queued=lambda: not_leader(leader_id), appended=lambda: not_leader(leader_id))",
        (unit("parts", "lost_leadership_tells_the_queued_and_the_appended_apart"), scene("thesis_6_2_check_quorum")),
    ),
)
