"""The report page by segment: kinds of histories and items, groups of users and items, fairness.

Pictures have the segments that every report has; groups are named by the data, in any language,
and stand in tables. All of them show the models that pictures show.
"""

from __future__ import annotations

from html import escape
from typing import Any

from recsys.eval.report_metrics import BEST
from recsys.eval.report_models import Models
from recsys.eval.report_numbers import best_in_bold, count, interval_text, is_number, number
from recsys.eval.report_plots import segment_plot
from recsys.eval.segments import ALL, split_group_name
from recsys.page import figure, section, table

MAX_BESIDE = 3
"""Models whose columns fit beside a picture."""
_CHANCE = (
    '<p class="note">The gap is that of the best and the worst group, which were picked for it: '
    "with many groups an interval may leave out 0 by chance.</p>"
)


def segments(models: Models) -> str:
    """Headline metrics by history length and by kind of target."""
    names = [name for name in _segment_names(models) if split_group_name(name) is None]
    if names == [ALL]:
        return ""
    parts = [_pictured(models, names, metric) for metric in models.metrics]
    return section("By segment", models.legend() + "".join(parts) + BEST)


def _pictured(models: Models, names: list[str], metric: str) -> str:
    values = [[found.get(name, {}).get(metric) for name in names] for found in _drawn(models)]
    bars = [[value if is_number(value) else None for value in row] for row in values]
    plot = figure(segment_plot(metric, names, bars), metric)
    labels = [escape(name) for name in names]
    html = _table(models, "segment", dict(zip(names, labels, strict=True)), metric)
    return f'<div class="beside">{plot}{html}</div>' if len(bars) <= MAX_BESIDE else plot + html


def groups(models: Models, fairness: dict[str, dict[str, dict[str, Any]]]) -> str:
    """A table for each column of users and items; for users with the gap between groups."""
    columns: dict[tuple[str, str], dict[str, str]] = {}
    for name in _segment_names(models):
        if group := split_group_name(name):
            kind, column, value = group
            columns.setdefault((kind, column), {})[name] = escape(value)
    parts = [
        f"<h3>{escape(f'{kind} {column}')}</h3>"
        + _table(models, f"{column}, {models.metrics[1]}", labels, models.metrics[1])
        + (_gaps(models, fairness.get(column, {})) if kind == "user" else "")
        for (kind, column), labels in columns.items()
    ]
    return section("By group", "".join(parts) + BEST) if parts else ""


def _gaps(models: Models, of_models: dict[str, dict[str, Any]]) -> str:
    rows = [
        [
            models.name(model),
            number(gap["gap"]),
            interval_text(gap["low"], gap["high"], with_sign=True),
            escape(gap["best"]),
            escape(gap["worst"]),
        ]
        for model in models.colours
        if (gap := of_models.get(model))
    ]
    if not rows:
        return ""
    return table(["fairness", "gap in ndcg@10", "95% interval", "best", "worst"], rows) + _CHANCE


def _table(models: Models, title: str, labels: dict[str, str], metric: str) -> str:
    """`labels` are segments and their names as markup."""
    rows = [
        [label, _users(models, name), *best_in_bold([_value(s, name, metric) for s in shown])]
        for shown in [_drawn(models)]
        for name, label in labels.items()
    ]
    return table([title, "users", *models.colours], rows)


def _value(segments_of_model: dict[str, dict[str, Any]], name: str, metric: str) -> object:
    return segments_of_model.get(name, {}).get(metric)


def _drawn(models: Models) -> list[dict[str, dict[str, Any]]]:
    return list(models.drawn.values())


def _segment_names(models: Models) -> list[str]:
    return list(dict.fromkeys([ALL, *(n for found in models.segments.values() for n in found)]))


def _users(models: Models, segment: str) -> str:
    found = models.segments.values()
    return count(next((m[segment].get("users") for m in found if segment in m), None))
