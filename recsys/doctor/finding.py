"""What a check says, and how all of them are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

Verdict = Literal["ok", "warning", "fault"]
COLOURS: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "fault": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result: what was found, and what to do where that is not well."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def has_fault(findings: Sequence[Finding]) -> bool:
    """Whether anything must be mended before the jobs can run."""
    return any(finding.verdict == "fault" for finding in findings)


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print a table on a terminal, and elsewhere a line each, which a log can be searched for."""
    if not console.is_terminal:
        for each in findings:
            advice = f"; {each.advice}" if each.advice else ""
            line = f"{each.verdict:8}{each.check}: {each.found}{advice}"
            console.print(Text(line), soft_wrap=True)
        return
    table = Table("check", "", "found", "what to do")
    for each in findings:
        verdict = Text(each.verdict, style=COLOURS[each.verdict])
        table.add_row(Text(each.check), verdict, Text(each.found), Text(each.advice))
    console.print(table)
