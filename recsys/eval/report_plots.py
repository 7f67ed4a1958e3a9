"""The pictures of the report pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes

from recsys.plots import drawn_colour, new_figure, plot_style, to_svg

Curve = Mapping[float, float]
"""y by x; points that are not finite are left out."""


def metric_plot(name: str, curves: Mapping[int, Curve]) -> str:
    """One metric over the cutoffs, one line per model; `curves` by their colour numbers."""
    cutoffs = sorted({k for curve in curves.values() for k in curve})
    with plot_style():
        figure, axes = new_figure(4.4, 2.6)
        _draw_lines(axes, curves, marker="o")
        axes.set_xscale("log")
        axes.set_xticks(cutoffs, [f"{k:g}" for k in cutoffs])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel("k")
        return to_svg(figure, f"metric {name}", f"{name} at each cutoff, one line per model")


def training_plot(name: str, curves: Sequence[Curve], first_colour: int = 0) -> str:
    """Curves over the steps of training; `first_colour` is the colour number of the first."""
    with plot_style():
        figure, axes = new_figure(4.4, 2.8)
        _draw_lines(axes, dict(enumerate(curves, start=first_colour)))
        axes.set_xlabel("step")
        return to_svg(figure, f"training {name}", f"{name} over the steps of training")


def bar_plot(name: str, bars: Sequence[tuple[int, float, Sequence[float]]]) -> str:
    """Bars with their intervals, first on top: each (colour number, value, (low, high))."""
    with plot_style():
        figure, axes = new_figure(4.4, 0.4 + 0.28 * len(bars))
        for at, (colour, value, (low, high)) in enumerate(bars):
            axes.barh([at], [value], 0.7, color=drawn_colour(colour))
            axes.plot([low, high], [at, at], color=rcParams["text.color"], linewidth=1.5)
        axes.set_xlim(left=0)
        _list_rows(axes, [""] * len(bars))
        return to_svg(figure, f"bars {name}", f"{name} with intervals, one bar per model")


def difference_plot(name: str, rows: Sequence[tuple[float, Sequence[float]]]) -> str:
    """Differences with their intervals, each (value, (low, high)), numbered from 1 on top."""
    with plot_style():
        figure, axes = new_figure(4.4, 0.5 + 0.24 * len(rows))
        for at, (value, (low, high)) in enumerate(rows):
            axes.plot([low, high], [at, at], color=drawn_colour(0), linewidth=1.5)
            axes.plot([value], [at], "o", color=drawn_colour(0), markersize=4)
        axes.axvline(0, color=rcParams["text.color"], linewidth=0.8)
        _list_rows(axes, [str(at + 1) for at in range(len(rows))])
        return to_svg(figure, f"differences {name}", f"difference in {name} with intervals")


def map_plot(points: np.ndarray, categories: np.ndarray) -> str:
    """Dots at `points` (P, 2), each in the colour of its category's number."""
    with plot_style():
        figure, axes = new_figure(4.8, 4.0)
        for number in np.unique(categories).tolist():
            x, y = points[categories == number].T
            axes.plot(x, y, "o", color=drawn_colour(number), markersize=3, markeredgewidth=0)
        axes.tick_params(labelbottom=False, labelleft=False, length=0)
        return to_svg(figure, "item map", "items by their vectors, coloured by category")


def segment_plot(
    name: str, segments: Sequence[str], values: Sequence[Sequence[float | None]]
) -> str:
    """Grouped bars: `values[m][s]` is the metric of model m in segment s, None where unknown."""
    height = 0.8 / len(values)
    with plot_style():
        figure, axes = new_figure(4.4, 0.4 + len(segments) * (0.1 + 0.13 * len(values)))
        for number, row in enumerate(values):
            places = [at - 0.4 + (number + 0.5) * height for at in range(len(segments))]
            widths = [value if value is not None else 0.0 for value in row]
            axes.barh(places, widths, height * 0.9, color=drawn_colour(number))
        axes.margins(y=0.01)
        _list_rows(axes, segments)
        return to_svg(figure, f"segment {name}", f"{name} by segment, one bar per model")


def _list_rows(axes: Axes, names: Sequence[str]) -> None:
    """Rows from top to bottom."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()


def _draw_lines(axes: Axes, curves: Mapping[int, Curve], marker: str | None = None) -> None:
    for number, curve in curves.items():
        points = sorted((x, y) for x, y in curve.items() if math.isfinite(y))
        # One point draws no line, so it is shown as a dot.
        dot = marker or ("o" if len(points) == 1 else None)
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=drawn_colour(number),
            marker=dot,
            markersize=4,
            linewidth=1.8,
        )
