"""The page of a sweep: each trial's validation score by epoch, and all trials, best first."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from recsys.page import figure, legend, page, section, table
from recsys.plots import drawn_colour, new_figure, plot_style, to_svg

Row = tuple[dict[str, Any], list[float], str]
"""Values by key, score after each epoch, and what went wrong."""


def sweep_page(metric: str, trials: Sequence[Row], best: str, epochs: int) -> str:
    """The document; `trials` come best first, and `best` is the first one's settings as TOML."""
    keys = list(trials[0][0])
    picture = figure(
        _curves(metric, [scores for _, scores, _ in trials]),
        f"{metric} by epoch",
        legend({"best": 0, "others": 5}),
    )
    rows = [_row(number, trial, keys, epochs) for number, trial in enumerate(trials, start=1)]
    return page(
        "Sweep",
        section("Trials", picture)
        + section("The best", f"<pre>{escape(best)}</pre>")
        + section("All, best first", table(["", metric, "epochs", *keys, ""], rows)),
    )


def _curves(metric: str, curves: Sequence[list[float]]) -> str:
    with plot_style():
        drawn, axes = new_figure(5.5, 3.2)
        for number, scores in reversed(list(enumerate(curves))):
            colour, width = (drawn_colour(0), 2.0) if number == 0 else (drawn_colour(5), 0.8)
            axes.plot(range(1, len(scores) + 1), scores, "o-", color=colour, lw=width, ms=2)
        axes.set_xlabel("epoch")
        return to_svg(drawn, "sweep", f"{metric} of each trial after each epoch")


def _row(number: int, trial: Row, keys: Sequence[str], epochs: int) -> list[str]:
    values, scores, error = trial
    score = f"{max(scores):.4f}" if scores else "-"
    end = error or ("" if len(scores) >= epochs else "stopped early")
    told = [escape(_short(values.get(key))) for key in keys]
    return [str(number), score, str(len(scores)), *told, escape(end)]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
