"""The report page: one HTML file that says how good the model is, and on what data.

`render_report` takes what report.json, the training log and the quality counts hold. The page
loads nothing from elsewhere and runs no script.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TypeGuard

from recsys.eval.report_plots import metric_plot, segment_plot, training_plot
from recsys.page import (
    facts,
    figure,
    grid,
    key,
    legend,
    page,
    section,
    share_of,
    table,
    words,
)

TRAINED = "model"
"""The key of the trained model in `report["models"]`; all others are baselines."""
ALL = "all"
"""The segment of every row."""
HEADLINE_CUTOFF = 10
"""The k of headline and segments; without it in the report, the nearest k there is."""
FAMILIES = ("recall", "ndcg", "mrr", "hit_rate", "coverage")
LEVEL = 0.0005
"""A relative difference below this would be printed as 0.0 %, so it is called level."""
_BEST = '<p class="note">Bold: the best of the row.</p>'
_HIT = ' <span class="hit">(came next)</span>'


def render_report(report: dict, training_log: list[dict], quality: dict) -> str:
    """The page for one evaluation, as HTML text.

    Args:
        report: the content of report.json. Only `models` is needed, and in it the segment `all`.
        training_log: rows of training and of validation, mixed; may be empty.
        quality: the content of quality.json. Only `tables` is shown; may be empty.

    Raises:
        ValueError: there is no model, or one of them has no segment `all`.
    """
    models = _ordered_models(report.get("models") or {})
    metrics = _headline_metrics(models)
    parts = [
        _headline(models, metrics),
        _facts(report),
        _metrics(models),
        _segments(models, metrics),
        _training(training_log),
        _quality(quality.get("tables") or {}),
        _examples(report.get("examples") or []),
    ]
    return page("Recommender evaluation", "\n".join(part for part in parts if part))


def _ordered_models(models: dict[str, dict]) -> dict[str, dict]:
    if not models:
        raise ValueError("the report has no models, so there is nothing to show")
    for name, segments in models.items():
        if ALL not in segments:
            raise ValueError(f"model {name!r} has no segment {ALL!r} in the report")
    return dict(sorted(models.items(), key=lambda entry: entry[0] != TRAINED))


def _headline_metrics(models: dict[str, dict]) -> list[str]:
    cutoffs = {k for segments in models.values() for k in _by_cutoff(segments[ALL], "recall")}
    k = min(sorted(cutoffs), key=lambda k: abs(k - HEADLINE_CUTOFF), default=HEADLINE_CUTOFF)
    return [f"recall@{k}", f"ndcg@{k}"]


# Headline


def _headline(models: dict[str, dict], metrics: list[str]) -> str:
    compared = [_compare(models, metric) for metric in metrics]
    lines = "".join(f"<li>{escape(line)}</li>" for _, line in compared)
    rows = [
        [key(name, at), *(_number(segments[ALL].get(metric)) for metric in metrics)]
        for at, (name, segments) in enumerate(models.items())
    ]
    verdict = _summary(
        [(outcome, metric) for (outcome, _), metric in zip(compared, metrics, strict=True)]
    )
    table_html = table(["model", *metrics], rows)
    return section("Result", f'<p class="verdict">{verdict}</p><ul>{lines}</ul>{table_html}')


def _compare(models: dict[str, dict], metric: str) -> tuple[str, str]:
    """How the trained model fares at `metric`, as one word and as a sentence."""
    values = {name: segments[ALL].get(metric) for name, segments in models.items()}
    known = {name: value for name, value in values.items() if _is_number(value)}
    own = known.pop(TRAINED, None)
    if own is None or not known:
        return "unknown", f"{metric}: there is nothing to compare."
    best = max(known, key=lambda name: known[name])
    outcome, difference = _difference(own, known[best])
    return outcome, (
        f"{metric}: the trained model has {own:.4f}, {difference} the best baseline, "
        f"{best} ({known[best]:.4f})."
    )


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


def _facts(report: dict) -> str:
    known = {f"split {name}": value for name, value in (report.get("split") or {}).items()}
    known |= report.get("data") or {}
    cells = {name: _count(value) for name, value in known.items()}
    return section("Evaluated on", facts(cells)) if cells else ""


# Metrics and segments


def _metrics(models: dict[str, dict]) -> str:
    names = _metric_names(models)
    families = dict.fromkeys(name.partition("@")[0] for name in names)
    cards = [
        _family(models, family, [name for name in names if name.partition("@")[0] == family])
        for family in families
    ]
    return section("Metrics", legend(_colours(models)) + grid(cards) + _BEST)


def _family(models: dict[str, dict], family: str, names: list[str]) -> str:
    """One metric at all its cutoffs, as picture and as table."""
    measured = [segments[ALL] for segments in models.values()]
    curves = [_by_cutoff(metrics, family) for metrics in measured]
    plot = metric_plot(family, curves) if any(curves) else ""
    rows = [
        [escape(name), *_row_of_numbers([metrics.get(name) for metrics in measured])]
        for name in names
    ]
    return figure(plot, family) + table(["metric", *models], rows)


def _metric_names(models: dict[str, dict]) -> list[str]:
    """Every metric of segment `all`: known families first, each by rising cutoff."""
    found = {
        name
        for segments in models.values()
        for name, value in segments[ALL].items()
        if name != "users" and _is_number(value)
    }

    def order(name: str) -> tuple[int, str, int, str]:
        family, _, cutoff = name.partition("@")
        place = FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)
        return place, family, int(cutoff) if cutoff.isdecimal() else 0, name

    return sorted(found, key=order)


def _by_cutoff(metrics: dict, family: str) -> dict[float, float]:
    split = ((*name.partition("@"), value) for name, value in metrics.items())
    return {
        int(cutoff): value
        for found, _, cutoff, value in split
        if found == family and cutoff.isdecimal() and int(cutoff) > 0 and _is_number(value)
    }


def _segments(models: dict[str, dict], metrics: list[str]) -> str:
    names = list(dict.fromkeys([ALL, *(name for found in models.values() for name in found)]))
    if names == [ALL]:
        return ""
    parts = [_segment_metric(models, names, metric) for metric in metrics]
    return section("By segment", legend(_colours(models)) + "".join(parts) + _BEST)


def _segment_metric(models: dict[str, dict], names: list[str], metric: str) -> str:
    values = [[found.get(name, {}).get(metric) for name in names] for found in models.values()]
    bars = [[value if _is_number(value) else None for value in row] for row in values]
    rows = [
        [escape(name), _users(models, name), *_row_of_numbers([row[at] for row in values])]
        for at, name in enumerate(names)
    ]
    plot = figure(segment_plot(metric, names, bars), metric)
    return f'<div class="beside">{plot}{table(["segment", "users", *models], rows)}</div>'


def _users(models: dict[str, dict], segment: str) -> str:
    return _count(
        next((found[segment].get("users") for found in models.values() if segment in found), None)
    )


# Training


def _training(log: list[dict]) -> str:
    if not log:
        return section("Training", "<p>There is no training log.</p>")
    losses = {"train loss": _by_step(log, "loss"), "valid loss": _by_step(log, "valid_loss")}
    measured = dict.fromkeys(
        key for row in log for key in row if key.startswith("valid_") and key != "valid_loss"
    )
    metrics = {key.replace("_", " ", 1): _by_step(log, key) for key in measured}
    plots = [_curves("loss", losses, 0), _curves("validation metric", metrics, len(losses))]
    return section("Training", grid(plots) + _best_steps(metrics))


def _by_step(log: list[dict], key: str) -> dict[float, float]:
    """`key` by step. After a resume the log has some steps twice: the later row counts."""
    return {row["step"]: row[key] for row in log if "step" in row and _is_number(row.get(key))}


def _curves(title: str, curves: dict[str, dict[float, float]], first_colour: int) -> str:
    if not any(curves.values()):
        return ""
    plot = training_plot(title, list(curves.values()), first_colour)
    return figure(plot, title, legend(_colours(curves, first_colour)))


def _colours(names: Iterable[str], first: int = 0) -> dict[str, int]:
    """The colour number of every name, in the order in which they were drawn."""
    return {name: number for number, name in enumerate(names, start=first)}


def _best_steps(metrics: dict[str, dict[float, float]]) -> str:
    lines = "".join(
        f"<li>Best {escape(name)}: {max(curve.values()):.4f} "
        f"at step {_count(max(curve, key=lambda step: curve[step]))}.</li>"
        for name, curve in metrics.items()
        if curve
    )
    return f"<ul>{lines}</ul>" if lines else ""


# Data quality and examples


def _quality(tables: dict[str, dict]) -> str:
    """What became of the raw rows of every table."""
    if not tables:
        return ""
    columns = ("read", "kept", "quarantined", "dropped")
    numbers = {
        name: [_rows_of(counts, column) for column in columns] for name, counts in tables.items()
    }
    rows = [[escape(name), *map(_count, counts)] for name, counts in numbers.items()]
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
        [escape(f"{name}: {words(rule)}"), _count(count), share_of(count, counts.get("read"))]
        for name, counts in tables.items()
        for rule, count in sorted(
            (counts.get("reasons") or {}).items(), key=lambda entry: -entry[1]
        )
    ]
    return table(["reason for quarantine", "rows", "of rows read"], rows) if rows else ""


def _examples(examples: list[dict]) -> str:
    cards = "".join(_example(example) for example in examples)
    return section("Examples", cards) if cards else ""


def _example(example: dict) -> str:
    targets = example.get("target") or []
    return (
        '<div class="example">'
        f"<div><h3>History, oldest first</h3>{_titles(example.get('history') or [])}</div>"
        f"<div><h3>What came next</h3>{_titles(targets)}</div>"
        "<div><h3>Recommended, best first</h3>"
        f"{_titles(example.get('recommended') or [], targets)}</div></div>"
    )


def _titles(titles: Sequence[str | None], targets: Sequence[str | None] = ()) -> str:
    lines = "".join(
        f"<li>{escape(title or '(no title)')}{_HIT if title and title in targets else ''}</li>"
        for title in titles
    )
    return f"<ol>{lines}</ol>" if lines else "<p>none</p>"


# Numbers as text


def _row_of_numbers(values: Sequence[object]) -> list[str]:
    """Cells of one metric, the best in bold."""
    cells = [_number(value) for value in values]
    best = max((value for value in values if _is_number(value)), default=None)
    if len(values) < 2 or best is None:
        return cells
    return [f"<b>{cell}</b>" if cell == _number(best) else cell for cell in cells]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: object) -> str:
    return f"{value:.4f}" if _is_number(value) else "-"


def _count(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else escape(str(value))
