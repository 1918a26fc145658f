"""How answers are shown: tables for people, JSON and YAML for programs. Pure: data in, text out."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import yaml

_COLUMN_GAP = "    "


class Format(enum.StrEnum):
    """What `-format` accepts."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def to_json(value: object) -> str:
    """Stable JSON: the order of the data, two spaces, Unicode as it is."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def to_yaml(value: object) -> str:
    """YAML in the order of the data, without a final newline."""
    text = str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False))
    return text.removesuffix("\n").removesuffix("\n...")


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Left-aligned columns under headings underlined with dashes."""
    cells = [list(headings), ["-" * len(heading) for heading in headings]]
    cells += [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[column].split("\n")[0]) for row in cells) for column in range(len(headings))]
    lines = (
        _COLUMN_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )
    return "\n".join(lines)


def pairs(members: Mapping[str, object], headings: tuple[str, str] = ("Key", "Value")) -> str:
    """A table of two columns."""
    return table(headings, list(members.items()))


def section(title: str, width: int) -> str:
    """A title between rules, centred over `width` columns, as `===== Data =====`."""
    rule = "=" * max(2, (width - len(title) - 2) // 2)
    return f"{rule} {title} {rule}"


def plain(value: object) -> str:
    """One cell. Control characters other than line ends and tabs are made visible, so that stored data cannot act on
    the terminal."""
    if value is None:
        text = "n/a"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, datetime):
        text = timestamp(value) or ""
    elif isinstance(value, dict | list | tuple):
        text = json.dumps(value, ensure_ascii=False) if value else "none"
    else:
        text = str(value)
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def timestamp(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC with a Z."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def raw(value: object) -> str:
    """A field's bare value: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
