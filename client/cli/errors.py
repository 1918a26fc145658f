"""How a failure is told: what happened and why (the error's own words), what to do next, and an exit code."""

from __future__ import annotations

import click

from holdfast.client.cli.output import Format, plain, to_json
from holdfast.client.failures import LocalError
from holdfast.proto import errors
from holdfast.proto.errors import HoldfastError

EXIT_LOCAL = 1
EXIT_REMOTE = 2
EXIT_INTERRUPTED = 130

_NEXT: tuple[tuple[type[HoldfastError], str], ...] = (
    (errors.Unauthenticated, "run `holdfast login`, or set HOLDFAST_TOKEN to a valid token"),
    (errors.PermissionDenied, "use a token whose policies allow this, or ask for one"),
    (errors.Uninitialized, "run `holdfast operator init` once, then `holdfast operator unseal` on each node"),
    (errors.Sealed, "run `holdfast operator unseal` on this node, or name another one with -address"),
    (errors.NoLeader, "see `holdfast status` on each node; a majority must run and be connected, sealed or not"),
    (errors.ShareRejected, "give another share, or start over with `holdfast operator unseal -reset`"),
    (errors.Overloaded, "try again later, and more slowly"),
    (errors.OutcomeUnknown, "look at the current state before repeating it"),
    (errors.Fatal, "see the node's log; it stops rather than serve doubtful data"),
)

_OF_A_NODE = (errors.Unavailable, errors.Overloaded, errors.OutcomeUnknown, errors.Fatal)
"""What one node answers and another one might not: it helps to know which ones did."""


class Declined(LocalError):
    """The question was answered with no, or could not be asked."""


def exit_code(error: HoldfastError) -> int:
    """1 for a mistake on this side, 2 for anything that a node or the way to it answered with."""
    return EXIT_LOCAL if isinstance(error, LocalError) else EXIT_REMOTE


def next_step(error: HoldfastError) -> str:
    """What to do about it, where the message does not say so itself; else an empty string."""
    for cls, step in _NEXT:
        if isinstance(error, cls):
            told = "`holdfast " in error.message or step in error.message.lower()
            return "" if told else step
    return ""


def asked(error: HoldfastError) -> str:
    """The nodes that were asked in vain, where they are not in the message; else an empty string."""
    nodes = str(error.details.get("asked", ""))
    return nodes if isinstance(error, _OF_A_NODE) and nodes not in error.message else ""


def tell(error: HoldfastError, chosen: Format) -> str:
    """The text for standard error."""
    if chosen is Format.JSON:
        facts = {
            "reason": error.reason,
            "message": error.message,
            "next": next_step(error) or None,
            "retryable": error.retryable,
            "retry_after_ms": error.retry_after_ms,
            "field": error.field or None,
            "details": error.details,
        }
        return to_json({"error": facts})
    lines = [f"Error: {plain(error.message)}"]
    if nodes := asked(error):
        lines.append(f"Asked: {plain(nodes)}.")
    if step := next_step(error):
        lines.append(f"Next: {step}.")
    return "\n".join(lines)


def tell_usage(error: click.ClickException, chosen: Format) -> str:
    """The text for standard error of a command line that was not understood."""
    message = error.format_message()
    if chosen is Format.JSON:
        return to_json({"error": {"reason": "USAGE", "message": message, "next": None, "retryable": False}})
    lines = [f"Error: {message}"]
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        lines.append(f"Next: see `{context.command_path} -help`.")
    return "\n".join(lines)
