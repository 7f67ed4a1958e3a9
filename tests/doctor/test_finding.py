"""A log gets a line a check; a person a table. Both hold everything."""

from __future__ import annotations

import io

from rich.console import Console

from recsys.doctor.finding import Finding, has_fault, show

FINDINGS = [
    Finding("disk", "ok", "12.0 GiB free"),
    Finding("token", "fault", "file has [mode] 0644", "chmod 600 " + "x" * 90),
]


def shown(terminal: bool) -> str:
    out = io.StringIO()
    show(FINDINGS, Console(file=out, force_terminal=terminal, width=120, no_color=True))
    return out.getvalue()


def test_a_log_has_a_line_for_each_check_however_long():
    lines = shown(terminal=False).splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "fault"]
    assert lines[1].endswith("x" * 90)
    assert "[mode]" in lines[1]


def test_a_terminal_has_a_table():
    table = shown(terminal=True)
    assert "what to do" in table
    assert "[mode]" in table


def test_one_fault_is_a_fault_and_warnings_are_none():
    assert has_fault(FINDINGS)
    assert not has_fault([Finding("disk", "warning", "")])
