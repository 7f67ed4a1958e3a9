"""What a fault did, as a row of a table and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

VERDICTS = {True: "passed", False: "FAILED", None: "not run"}


@dataclass(frozen=True)
class Outcome:
    """Seconds after the injection until the first sign of it and until the last; None where there
    was none. `harm` counts what the suite says that it counts. `passed` is None where the fault
    could not be injected."""

    detected_s: float | None
    recovered_s: float | None
    harm: int
    passed: bool | None
    said: str
    detail: dict[str, Any] = field(default_factory=dict)


def run_all(faults: Iterable[tuple[str, Callable[[], Outcome]]], harm: str) -> None:
    """Inject each, print the table and one JSON object last; exit with 1 if any did not pass.

    `harm` names what is counted, such as wrong answers.
    """
    console, table = Console(width=150), Table("fault", "detected", "recovered", harm, "", "")
    found: dict[str, Outcome] = {}
    for name, inject in faults:
        found[name] = outcome = _injected(inject)
        cells = (_seconds(outcome.detected_s), _seconds(outcome.recovered_s), str(outcome.harm))
        verdict = VERDICTS[outcome.passed]
        console.print(f"{name}: {verdict}: {outcome.said}")
        table.add_row(name, *cells, verdict, outcome.said)
    console.print(table)
    print(json.dumps({name: _told(outcome, harm) for name, outcome in found.items()}))
    sys.exit(any(outcome.passed is False for outcome in found.values()))


def _injected(inject: Callable[[], Outcome]) -> Outcome:
    """What came of it; what took too long or fell over has failed, and the next one follows."""
    try:
        return inject()
    except (TimeoutError, RuntimeError) as error:
        return Outcome(None, None, 0, False, str(error))


def _told(outcome: Outcome, harm: str) -> dict[str, Any]:
    told = asdict(outcome)
    counted = told.pop("harm")
    return told | {harm.replace(" ", "_"): counted}


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} s"
