"""What became of the raw rows, as the report page tells it."""

from __future__ import annotations

from html import escape

from recsys.eval.report_numbers import count
from recsys.page import section, share_of, table, words


def quality(tables: dict[str, dict]) -> str:
    """Rows of every raw table; `tables` is that block of quality.json."""
    if not tables:
        return ""
    columns = ("read", "kept", "quarantined", "dropped")
    numbers = {
        name: [_rows_of(counts, column) for column in columns] for name, counts in tables.items()
    }
    rows = [[escape(name), *map(count, counts)] for name, counts in numbers.items()]
    wrong = [name for name, (read, *parts) in numbers.items() if read != sum(parts)]
    note = "<p>Rows read = kept + quarantined + dropped.</p>"
    if wrong:
        note = f"<p><b>The counts do not add up: {escape(', '.join(wrong))}.</b></p>"
    return section("Data quality", note + table(["table", *columns], rows) + _reasons(tables))


def _rows_of(counts: dict, column: str) -> int:
    found = counts.get(column) or 0
    return sum(found.values()) if isinstance(found, dict) else found


def _reasons(tables: dict[str, dict]) -> str:
    rows = [
        [escape(f"{name}: {words(rule)}"), count(number), share_of(number, counts.get("read"))]
        for name, counts in tables.items()
        for rule, number in sorted(
            (counts.get("reasons") or {}).items(), key=lambda entry: -entry[1]
        )
    ]
    return table(["reason for quarantine", "rows", "of rows read"], rows) if rows else ""
