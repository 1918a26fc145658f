"""Findings as text. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import yaml

from holdfast.server.diagnose.finding import Finding, Result

FORMATS = ("table", "json", "yaml")


def exit_code(findings: Sequence[Finding]) -> int:
    """1 when something failed, else 0."""
    return int(any(finding.result is Result.FAIL for finding in findings))


def render(findings: Sequence[Finding], form: str) -> str:
    """The report in one of FORMATS."""
    if form == "table":
        return _table(findings)
    facts = {
        "result": max((f.result for f in findings), key=list(Result).index, default=Result.PASS).value,
        "findings": [
            {"check": f.check, "result": f.result.value, "detail": f.detail, "remedy": f.remedy or None}
            for f in findings
        ],
    }
    if form == "json":
        return json.dumps(facts, indent=2, ensure_ascii=False)
    return str(yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)).rstrip("\n")


def _table(findings: Sequence[Finding]) -> str:
    """One line for each finding, its remedy below it."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.result.value:<4}  {finding.check:<{width}}  {finding.detail}")
        if finding.remedy:
            lines.append(f"{'':<4}  {'':<{width}}  -> {finding.remedy}")
    counts = Counter(finding.result for finding in findings)
    lines += ["", ", ".join(f"{counts[result]} {result.value}" for result in Result)]
    return "\n".join(line.rstrip() for line in lines)
