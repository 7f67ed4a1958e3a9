"""The headline of the report page: does the trained model win, and how sure is that?"""

from __future__ import annotations

from html import escape
from typing import Any

from recsys.eval.report_models import TRAINED, Models
from recsys.eval.report_numbers import interval_text, is_number, number, signed
from recsys.eval.report_plots import bar_plot
from recsys.eval.segments import ALL
from recsys.page import figure, section, table

LEVEL = 0.0005
"""A relative difference below this would be printed as 0.0 %, so it is called level."""


def result(models: Models, confidence: dict[str, Any]) -> str:
    """Verdict, a sentence for each headline metric, and all models with their intervals.

    `confidence` is that block of report.json, empty where a report has none. With it, a win or a
    loss is one whose interval leaves 0 out.
    """
    compared = [_compare(models, metric, confidence) for metric in models.metrics]
    outcomes = [(found, m) for (found, _), m in zip(compared, models.metrics, strict=True)]
    lines = "".join(f"<li>{escape(line)}</li>" for _, line in compared)
    html = f'<p class="verdict">{_summary(outcomes)}</p><ul>{lines}</ul>'
    return section("Result", html + _intervals(models, confidence) + _table(models, confidence))


def _compare(models: Models, metric: str, confidence: dict[str, Any]) -> tuple[str, str]:
    """How the trained model fares at `metric`, as one word and as a sentence."""
    values = {name: segments[ALL].get(metric) for name, segments in models.segments.items()}
    known = {name: value for name, value in values.items() if is_number(value)}
    own = known.pop(TRAINED, None)
    if own is None or not known:
        return "unknown", f"{metric}: there is nothing to compare."
    best = max(known, key=lambda name: known[name])
    outcome, difference = _difference(own, known[best])
    margin = confidence.get("margins", {}).get(best, {}).get(metric)
    sure = ""
    if margin:
        outcome = _outcome(margin)
        told = interval_text(margin["low"], margin["high"], with_sign=True)
        sure = f": {signed(margin['difference'])} {told}, {confidence['level']:.0%}"
    return outcome, (
        f"{metric}: the trained model has {own:.4f}, {difference} the best baseline, "
        f"{best} ({known[best]:.4f}){sure}."
    )


def _outcome(margin: dict[str, float]) -> str:
    if margin["low"] > 0:
        return "wins"
    return "loses" if margin["high"] < 0 else "level"


def _difference(own: float, best: float) -> tuple[str, str]:
    if best == 0:
        return ("level", "level with") if own == 0 else ("wins", "above")
    relative = own / best - 1
    if abs(relative) < LEVEL:
        return "level", "level with"
    if relative > 0:
        return "wins", f"{relative:.1%} above"
    return "loses", f"{-relative:.1%} below"


def _summary(outcomes: list[tuple[str, str]]) -> str:
    """The verdict over (outcome, metric) of each headline metric; a loss is said first."""
    at = {
        outcome: " and ".join(metric for found, metric in outcomes if found == outcome)
        for outcome, _ in outcomes
    }
    if "loses" in at:
        return f"The trained model loses to a baseline at {at['loses']}."
    if "level" in at:
        return f"The trained model is only level with the best baseline at {at['level']}."
    if "wins" in at:
        return f"The trained model beats every baseline at {at['wins']}."
    return "The trained model is compared with no baseline."


def _intervals(models: Models, confidence: dict[str, Any]) -> str:
    metric = models.metrics[1]
    known = confidence.get("models", {})
    shown = [name for name in models.segments if name in models.colours and name in known]
    if not shown:
        return ""
    bars = [
        (models.colours[name], models.segments[name][ALL].get(metric), known[name].get(metric))
        for name in shown
    ]
    complete = [(c, value, ends) for c, value, ends in bars if is_number(value) and ends]
    caption = f"{metric} with {confidence['level']:.0%} intervals, best first"
    plot = bar_plot(metric, complete) if complete else ""
    return figure(plot, caption, models.legend()) if plot else ""


def _table(models: Models, confidence: dict[str, Any]) -> str:
    last = models.metrics[1]
    ends, margins = confidence.get("models", {}), confidence.get("margins", {})
    rows = [
        [
            models.name(name),
            *(number(segments[ALL].get(metric)) for metric in models.metrics),
            *([interval_text(*ends.get(name, {}).get(last, (None, None)))] if ends else []),
            *([_margin(margins.get(name, {}).get(last))] if margins else []),
        ]
        for name, segments in models.segments.items()
    ]
    level = f"{confidence['level']:.0%} interval" if ends else ""
    head = ["model", *models.metrics, *([level] if ends else [])]
    head += [f"the trained model is ahead by, {last}"] if margins else []
    return table(head, rows)


def _margin(margin: dict[str, float] | None) -> str:
    if margin is None:
        return "-"
    told = interval_text(margin["low"], margin["high"], with_sign=True)
    return f"{signed(margin['difference'])} {told}"
