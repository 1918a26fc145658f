"""What this node and its peers say of themselves: seal, leader, clock."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.server.diagnose.asking import Answer
from holdfast.server.diagnose.finding import Context, Finding, failed, passed, warned

CLOCK_S_WARN = 1.0


def check_seals(context: Context) -> Iterator[Finding]:
    """Who is unsealed, this node first."""
    if not context.running:
        yield passed("seal.self", "no node runs here")
    else:
        yield judge_seal("self", context.own_answer)
        if (own := context.own_answer.node_id) and own != context.config.node_id:
            detail = f"at {context.config.api.advertise} answers {own}, not {context.config.node_id}"
            yield failed("seal.identity", detail, "correct api.advertise")
    for node_id, answer in context.answers.items():
        yield judge_seal(node_id, answer)


def judge_seal(node_id: str, answer: Answer) -> Finding:
    """A sealed node votes and serves nothing."""
    check = f"seal.{node_id}"
    if answer.problem:
        return warned(check, f"not known: {answer.problem}", "see the findings on peers and ports")
    if not answer.initialized:
        return warned(check, "the cluster has no keys yet", "holdfast operator init, once, at one node")
    if answer.sealed:
        return warned(check, "sealed", "holdfast operator unseal, at that node")
    if not answer.leader_id:
        return warned(check, "unsealed, and knows no leader", "see that a majority of the nodes runs and is connected")
    if answer.providers:
        detail = "unsealed; providers out of order: " + "; ".join(answer.providers)
        return warned(check, detail, "repair them before the node must be unsealed")
    return passed(check, f"unsealed; {answer.leader_id} leads")


def check_clocks(context: Context) -> Iterator[Finding]:
    """This host's clock beside every peer's that answers."""
    for node_id, answer in context.answers.items():
        if not answer.problem:
            yield judge_clock(node_id, answer)


def judge_clock(node_id: str, answer: Answer) -> Finding:
    """Consensus does not need clocks that agree; certificates, tokens' lives and logs do."""
    ahead = answer.clock_ahead_s
    detail = (
        f"{node_id} is {abs(ahead):.2f} s {'ahead' if ahead > 0 else 'behind'} (within {answer.uncertainty_s:.2f} s)"
    )
    if abs(ahead) - answer.uncertainty_s > CLOCK_S_WARN:
        return warned(f"clock.{node_id}", detail, "synchronise both hosts' clocks (chrony, systemd-timesyncd)")
    return passed(f"clock.{node_id}", detail)
