"""Which models a report page shows: all of them in tables, the best of them in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from recsys.eval.report_numbers import is_number
from recsys.eval.segments import ALL
from recsys.page import key, legend
from recsys.plots import NUM_COLOURS

TRAINED = "model"
"""The key of the trained model in `report["models"]`; all others are baselines."""
HEADLINE_CUTOFF = 10
"""The k of headline and segments; without it in the report, the nearest k there is."""


@dataclass(frozen=True)
class Models:
    """Segments by model, the model with the best NDCG first.

    `colours` numbers the models that pictures show: the trained one, and the best of the others.
    `metrics` are the names of the two headline metrics, the one that orders last.
    """

    segments: dict[str, dict[str, dict[str, Any]]]
    colours: dict[str, int]
    metrics: tuple[str, str]

    @property
    def drawn(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Segments of the models in pictures, by colour."""
        return {name: self.segments[name] for name in self.colours}

    def name(self, model: str) -> str:
        """A model's name as markup, behind its colour where it has one."""
        colour = self.colours.get(model)
        return escape(model) if colour is None else key(model, colour)

    def legend(self) -> str:
        """Names of the models in pictures, and how many there are beside."""
        left_out = len(self.segments) - len(self.colours)
        note = f'<p class="note">{left_out} more models are in the tables.</p>' if left_out else ""
        return legend(self.colours) + note


def read_models(segments: dict[str, dict[str, dict[str, Any]]]) -> Models:
    """The `models` of a report.

    Raises:
        ValueError: there is no model, or one of them has no segment `all`.
    """
    if not segments:
        raise ValueError("the report has no models, so there is nothing to show")
    for name, of_model in segments.items():
        if ALL not in of_model:
            raise ValueError(f"model {name!r} has no segment {ALL!r} in the report")
    cutoffs = {k for of_model in segments.values() for k in by_cutoff(of_model[ALL], "recall")}
    k = min(sorted(cutoffs), key=lambda k: abs(k - HEADLINE_CUTOFF), default=HEADLINE_CUTOFF)
    metrics = (f"recall@{k}", f"ndcg@{k}")

    def order(name: str) -> tuple[float, bool, str]:
        value = segments[name][ALL].get(metrics[1])
        return -value if is_number(value) else 0.0, name != TRAINED, name

    best_first = sorted(segments, key=order)
    # The trained model has a place and the first colour, however many are better.
    shown = sorted(best_first, key=lambda name: name != TRAINED)[:NUM_COLOURS]
    colours = {name: number for number, name in enumerate(shown)}
    return Models({name: segments[name] for name in best_first}, colours, metrics)


def by_cutoff(metrics: Mapping[str, Any], family: str) -> dict[float, float]:
    """A metric's values by k."""
    split = ((*name.partition("@"), value) for name, value in metrics.items())
    return {
        int(cutoff): value
        for found, _, cutoff, value in split
        if found == family and cutoff.isdecimal() and int(cutoff) > 0 and is_number(value)
    }
