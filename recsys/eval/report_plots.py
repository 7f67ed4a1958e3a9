"""The pictures of the report page, as SVG to put inside HTML.

Colours are written as CSS variables, so that the page decides them for light and for dark. The
figures are small and their legends are HTML: both stay readable on a phone.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NUM_COLOURS = 6
"""The page defines `--series-0` to `--series-5`; more lines than that repeat colours."""
_INK, _LINE = "#0a0b0c", "#0a0b0d"
_SERIES = [f"#0a0b1{number}" for number in range(NUM_COLOURS)]
# matplotlib knows no CSS variables: it draws in these stand-ins, which _svg then renames.
_CSS = {_INK: "var(--ink)", _LINE: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))

Curve = Mapping[float, float]
"""y by x; points that are not finite are left out."""


def series_colour(number: int) -> str:
    """The CSS colour of line or bar `number`, for a legend in HTML."""
    return f"var(--series-{number % NUM_COLOURS})"


def metric_plot(name: str, curves: Sequence[Curve]) -> str:
    """One metric over the cutoffs, one line per model."""
    cutoffs = sorted({k for curve in curves for k in curve})
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(3.6, 2.6)
        _draw_lines(axes, curves, marker="o")
        axes.set_xscale("log")
        axes.set_xticks(cutoffs, [f"{k:g}" for k in cutoffs])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel("k")
        return _svg(figure, f"metric {name}", f"{name} at each cutoff, one line per model")


def training_plot(name: str, curves: Sequence[Curve], first_colour: int = 0) -> str:
    """Curves over the steps of training; `first_colour` is the colour number of the first."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(4.4, 2.8)
        _draw_lines(axes, curves, first_colour=first_colour)
        axes.set_xlabel("step")
        return _svg(figure, f"training {name}", f"{name} over the steps of training")


def segment_plot(
    name: str, segments: Sequence[str], values: Sequence[Sequence[float | None]]
) -> str:
    """Grouped bars: `values[m][s]` is the metric of model m in segment s, None where unknown."""
    height = 0.8 / len(values)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(4.4, 0.4 + len(segments) * (0.1 + 0.13 * len(values)))
        for number, row in enumerate(values):
            places = [at - 0.4 + (number + 0.5) * height for at in range(len(segments))]
            widths = [value if value is not None else 0.0 for value in row]
            axes.barh(places, widths, height * 0.9, color=_SERIES[number % NUM_COLOURS])
        axes.set_yticks(range(len(segments)), segments)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.margins(y=0.01)
        axes.invert_yaxis()
        return _svg(figure, f"segment {name}", f"{name} by segment, one bar per model")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    return figure, axes


def _draw_lines(
    axes: Axes, curves: Sequence[Curve], marker: str | None = None, first_colour: int = 0
) -> None:
    for number, curve in enumerate(curves, start=first_colour):
        points = sorted((x, y) for x, y in curve.items() if math.isfinite(y))
        # One point draws no line, so it is shown as a dot.
        dot = marker or ("o" if len(points) == 1 else None)
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=_SERIES[number % NUM_COLOURS],
            marker=dot,
            markersize=4,
            linewidth=1.8,
        )


def _svg(figure: Figure, salt: str, label: str) -> str:
    """`figure` as one svg element; `salt` keeps its ids apart from the page's other pictures."""
    target = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(target, format="svg", metadata=_NO_METADATA)
    text = target.getvalue()
    text = text[text.index("<svg") :].strip()
    # Groups are named figure_1, axes_1 in every picture; nothing refers to those names.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for colour, variable in _CSS.items():
        text = text.replace(colour, variable)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
