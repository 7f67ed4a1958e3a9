"""Nodes, GPU hours, money and latency of a deployment, on paper.

    python -m benchmarks.capacity --users 100000000 --items 1000000 \
        --interactions-per-day 500000000 --requests-per-second 100000 --model qwen3-0.6b

Prints a table, and as its last line one JSON object with every figure, the assumptions and where
each comes from.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.capacity import facts
from benchmarks.capacity.demand import Demand
from benchmarks.capacity.plan import Row, plan


def main(demand: Demand) -> None:
    """Print the plan of a deployment."""
    rows = plan(demand)
    Console(width=100).print(as_table(rows))
    known = {
        name: asdict(fact) for name, fact in vars(facts).items() if isinstance(fact, facts.Fact)
    }
    print(
        json.dumps(
            {
                "benchmark": "capacity",
                "demand": asdict(demand),
                "rows": [asdict(row) for row in rows],
                "usd_a_month": round(sum(row.usd_a_month or 0.0 for row in rows)),
                "facts": known,
                "gpu": asdict(facts.GPUS[demand.gpu]),
            }
        )
    )


def as_table(rows: list[Row]) -> Table:
    """The rows with a rule between stages, and the sum of the money."""
    table = Table("stage", "what", "", "unit", "USD a month")
    for column in (2, 4):
        table.columns[column].justify = "right"
    before = ""
    for row in rows:
        if before and row.stage != before:
            table.add_section()
        money = "" if row.usd_a_month is None else f"{row.usd_a_month:,.0f}"
        shown = f"{row.value:,.0f}" if row.value >= 100 else f"{row.value:.3g}"
        table.add_row("" if row.stage == before else row.stage, row.what, shown, row.unit, money)
        before = row.stage
    table.add_section()
    table.add_row("all", "", "", "", f"{sum(row.usd_a_month or 0.0 for row in rows):,.0f}")
    return table


if __name__ == "__main__":
    main(tyro.cli(Demand, description=__doc__))
