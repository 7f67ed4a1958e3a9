"""What a fault did, as a row of a table and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Outcome:
    """Seconds after the injection until the first sign of it and until the last; None where there
    was none. `wrong` counts answers that no live version gives."""

    detected_s: float | None
    recovered_s: float | None
    wrong: int
    passed: bool
    said: str
    detail: dict[str, Any] = field(default_factory=dict)


def run_all(faults: Iterable[tuple[str, Callable[[], Outcome]]]) -> None:
    """Inject each, print the table and one JSON object last; exit with 1 if any did not pass."""
    console, table = Console(width=150), Table("fault", "detected", "recovered", "wrong", "", "")
    found: dict[str, Outcome] = {}
    for name, inject in faults:
        found[name] = outcome = inject()
        cells = (_seconds(outcome.detected_s), _seconds(outcome.recovered_s), str(outcome.wrong))
        verdict = "passed" if outcome.passed else "FAILED"
        console.print(f"{name}: {verdict}: {outcome.said}")
        table.add_row(name, *cells, verdict, outcome.said)
    console.print(table)
    print(json.dumps({name: asdict(outcome) for name, outcome in found.items()}))
    sys.exit(any(not outcome.passed for outcome in found.values()))


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} s"
