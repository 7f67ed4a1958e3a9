"""How well values and probabilities are predicted, as the report page tells it."""

from __future__ import annotations

from html import escape

from recsys.eval.report_numbers import number
from recsys.page import section, table, words

TITLES = {
    "rating": "Predicted values; less is better",
    "probability": "Predicted probabilities; less is better, except of AUC",
}


def predictions(heads: dict[str, dict[str, dict[str, float]]]) -> str:
    """One table a head, with what it has to beat."""
    parts = [_one(TITLES.get(head, head), scores) for head, scores in heads.items()]
    return section("Predictions", "".join(parts)) if parts else ""


def _one(title: str, scores: dict[str, dict[str, float]]) -> str:
    metrics = list(next(iter(scores.values())))
    rows = [
        [escape(words(name)), *(number(values.get(metric)) for metric in metrics)]
        for name, values in scores.items()
    ]
    return f"<h3>{escape(title)}</h3>" + table(["", *map(words, metrics)], rows)
