"""Mistakes with snapshots: state that is damaged, that goes back, or that vouches for a log that was never compared."""

from mutants.mutant import Mutant, raft, scene, unit

MUTANTS = (
    Mutant(
        "offer_moves_commit",
        "a deposed leader answers success for writes that were never committed",
        raft("following"),
        "            self._receiver.offered(node_id, message)",
        "            self.commit = max(self.commit, min(message.at.index, self.log.last_index))\n"
        "            self._receiver.offered(node_id, message)",
        (
            scene("fault_b3_snapshot_over_unverified_tail"),
            unit("snapshots", "a_snapshot_moves_no_commit_index_over_a_tail_that_was_not_compared"),
        ),
    ),
    Mutant(
        "snapshot_reached_by_index_alone",
        "a tail of another history counts as what the snapshot holds",
        raft("replica"),
        "    if mine is None or mine.term != at.term:\n        return False\n",
        "    if mine is None:\n        return False\n    if mine.term != at.term:\n        return True\n",
        (unit("snapshots", "a_snapshot_moves_no_commit_index_over_a_tail_that_was_not_compared"),),
    ),
    Mutant(
        "snapshot_digest_not_compared_with_the_log",
        "two histories that differ go on side by side unnoticed",
        raft("replica"),
        "    if mine.digest != at.digest:",
        "    if not mine.digest:",
        (unit("snapshots", "the_same_place_with_another_digest_is_a_divergence"),),
    ),
    Mutant(
        "snapshot_goes_back",
        "a node goes back to an older state and forgets what it acknowledged",
        raft("following"),
        "        if at.index <= self.commit:\n            return True\n",
        "",
        (unit("snapshots", "a_snapshot_never_goes_backwards"),),
    ),
    Mutant(
        "chunk_checksum_not_compared",
        "what was damaged on the way is written",
        raft("receiving"),
        "        if check_of(chunk.offset, chunk.data) != chunk.check or last != bool(chunk.digest):",
        "        if last != bool(chunk.digest):",
        (scene("fault_b8_damaged_snapshot"), unit("snapshots", "a_damaged_chunk_costs_the_session_and_nothing_else")),
    ),
    Mutant(
        "snapshot_digest_not_compared",
        "a damaged snapshot becomes the state",
        raft("receiving"),
        "    if current.reception.finish() != digest:",
        "    if not current.reception.finish():",
        (
            unit("snapshots", "a_wrong_digest_installs_nothing_and_the_next_offer_begins_anew"),
            scene("fault_b8_damaged_snapshot"),
        ),
    ),
    Mutant(
        "snapshot_position_not_compared",
        "the log begins anew at another place than the state stands",
        raft("receiving"),
        "        if machine.applied != current.restart.at:",
        "        if machine.applied.index < 0:",
        (unit("snapshots", "a_snapshot_that_stands_elsewhere_than_it_says_is_not_installed"),),
    ),
    Mutant(
        "snapshot_of_an_earlier_term",
        "a deposed leader's snapshot takes the place of the state",
        raft("following"),
        "        if not self._from_leader(node_id, message.term):\n"
        "            self._send(node_id, SnapshotProgress(self.term, message.id, message.attempt, 0))",
        "        if message.term < 0:\n"
        "            self._send(node_id, SnapshotProgress(self.term, message.id, message.attempt, 0))",
        (unit("snapshots", "a_snapshot_of_an_earlier_term_is_refused_with_the_term"),),
    ),
    Mutant(
        "install_not_announced_durably",
        "a loss of power in the middle of an install leaves state and log of different times",
        raft("installing"),
        "    journal.announce_restart(ready.restart)\n    journal.sync()\n",
        "    journal.announce_restart(ready.restart)\n",
        (unit("snapshots", "a_start_in_the_middle_of_an_install_finds_one_or_the_other"),),
    ),
    Mutant(
        "install_under_a_running_job",
        "the stores are exchanged while the worker writes to them",
        raft("following"),
        "        if self._jobs:\n            return\n",
        "",
        (unit("snapshots", "the_stores_are_exchanged_only_when_no_job_uses_them"),),
    ),
    Mutant(
        "applied_while_the_copy_is_made",
        "a snapshot holds more than its position says, and the receiver applies it again",
        raft("hardened"),
        "        if self.applied >= until or self._copier.copying or "
        "(self._sender is not None and self._sender.copier.copying):",
        "        if self.applied >= until:",
        (unit("snapshots", "nothing_is_applied_while_the_copy_is_made"),),
    ),
    Mutant(
        "trimmed_under_a_snapshot_that_is_sent",
        "the log that a snapshot leads to is gone when it has arrived, again and again",
        raft("leadership"),
        "*([] if self.held_from is None else [self.held_from])",
        "*([] if self.held_from is None else [])",
        (unit("snapshots", "the_log_is_kept_for_the_one_who_receives_and_trimmed_when_it_is_gone"),),
    ),
)
