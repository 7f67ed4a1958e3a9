"""The page of a comparison: the verdict, every metric, and the difference in every segment."""

from __future__ import annotations

from html import escape
from typing import Any

from recsys.eval.report_numbers import count, interval_text, number, signed
from recsys.eval.report_plots import difference_plot
from recsys.eval.segments import ALL
from recsys.page import facts, figure, page, section, table

_CHANCE = (
    '<p class="note">Each interval is sure by itself: of many segments some leave 0 out by chance, '
    "at 95% one in twenty.</p>"
)
_AHEAD = "B ahead in resamples"


def render_comparison(comparison: dict[str, Any]) -> str:
    """The page for the content of comparison.json, as HTML text."""
    segments = comparison["segments"]
    parts = [
        _result(comparison),
        _facts(comparison),
        *(_by_segment(metric, segments) for metric in segments[ALL]["metrics"]),
        _left_out(comparison["left_out"]),
    ]
    return page("Comparison of two recommenders", "\n".join(part for part in parts if part))


def _result(comparison: dict[str, Any]) -> str:
    first, *others = comparison["verdicts"]
    lines = "".join(f"<li>{escape(line)}</li>" for line in others)
    metrics = comparison["segments"][ALL]["metrics"]
    rows = [[escape(name), *_cells(found)] for name, found in metrics.items()]
    head = ["metric", "A", "B", "B - A", f"{comparison['level']:.0%} interval", _AHEAD]
    html = f'<p class="verdict">{escape(first)}</p><ul>{lines}</ul>'
    return section("Result", html + table(head, rows))


def _facts(comparison: dict[str, Any]) -> str:
    sides = {
        name: escape(f"{side['model']} of report {side['report'][:12]}")
        for name, side in (("A", comparison["first"]), ("B", comparison["second"]))
    }
    names = ("split", "filter_seen", "resamples")
    told = {name: count(comparison[name]) for name in names}
    told["rows"] = count(comparison["segments"][ALL]["rows"])
    dataset = {"dataset": escape(comparison["dataset"][:12])}
    return section("What is compared", facts(sides | dataset | told))


def _by_segment(metric: str, segments: dict[str, dict[str, Any]]) -> str:
    found = {name: segment["metrics"][metric] for name, segment in segments.items()}
    plot = difference_plot(
        metric, [(each["difference"], (each["low"], each["high"])) for each in found.values()]
    )
    rows = [
        [escape(f"{at}. {name}"), count(segments[name]["rows"]), *_cells(each)]
        for at, (name, each) in enumerate(found.items(), start=1)
    ]
    html = table(["segment", "rows", "A", "B", "B - A", "interval", _AHEAD], rows)
    return section(f"{metric} by segment", figure(plot, f"B - A in {metric}") + html + _CHANCE)


def _cells(found: dict[str, float]) -> list[str]:
    return [
        number(found["first"]),
        number(found["second"]),
        signed(found["difference"]),
        interval_text(found["low"], found["high"], with_sign=True),
        f"{found['share_ahead']:.1%}",
    ]


def _left_out(names: list[str]) -> str:
    if not names:
        return ""
    told = ", ".join(map(escape, names))
    return section("Left out", f"<p>Not the same rows in both reports: {told}</p>")
