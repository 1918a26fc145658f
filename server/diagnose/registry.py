"""All checks, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from holdfast.server.config import ConfigError, load
from holdfast.server.diagnose.certificates import check_certificates
from holdfast.server.diagnose.cluster import check_clocks, check_seals
from holdfast.server.diagnose.data_folder import check_data_folder
from holdfast.server.diagnose.finding import Check, Context, Finding, failed, passed
from holdfast.server.diagnose.host import check_host
from holdfast.server.diagnose.network import check_names, check_peers, check_ports

CHECKS: tuple[Check, ...] = (
    check_certificates,
    check_data_folder,
    check_names,
    check_ports,
    check_peers,
    check_seals,
    check_clocks,
    check_host,
)
"""In the order of the report. A new group is a line here."""

_AT_ONCE = 8


def diagnose(
    file: Path, *, now_s: Callable[[], float], extra: Sequence[Check] = (), timeout_s: float = 3.0
) -> list[Finding]:
    """Everything that can be found out about the node of this configuration. extra: checks of who is not in the
    registry, such as unseal providers'. Without a usable configuration there is nothing else to look at."""
    try:
        config = load(file)
    except ConfigError as error:
        return [failed("configuration", str(error), "correct the file: holdfastd --config FILE --check-config")]
    context = Context(config, now_s=now_s, timeout_s=timeout_s)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="diagnose") as pool:
        groups = pool.map(lambda check: _run(check, context), (*CHECKS, *extra))
        return [passed("configuration", f"{file} is well-formed"), *(found for group in groups for found in group)]


def _run(check: Check, context: Context) -> list[Finding]:
    findings: list[Finding] = []
    try:
        findings.extend(check(context))
    except Exception as error:  # noqa: BLE001 - one check that breaks must not hide what the others found
        name = check.__name__.removeprefix("check_")
        findings.append(failed(name, f"the check itself failed: {type(error).__name__}", "report this as a fault"))
    return findings
